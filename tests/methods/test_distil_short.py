"""A fresh net is taught by labels and by the original, which stays as it is."""

import copy
import math

import pytest
import torch

from tests.helpers.entries import classes, equal, given_net, load, loader, states


def test_loss_by_hand():
    """KL((1/2, 1/2) || (1/4, 3/4)) = ln(2 / sqrt 3) at temperature 1; at 2, of the softened answers, times 4."""
    teacher, student = torch.zeros(1, 2), torch.tensor([[0.25, 0.75]]).log()
    labels = torch.tensor([0])
    one = load("distil_short", TEMPERATURE=1.0, TAUGHT=0.25).taught_loss(teacher, student, labels)
    assert one.item() == pytest.approx(0.75 * math.log(4) + 0.25 * math.log(2 / math.sqrt(3)))
    root = torch.tensor([1.0, math.sqrt(3)])  # sqrt(1/4) to sqrt(3/4)
    softened = (root / root.sum()).log()
    two = load("distil_short", TEMPERATURE=2.0, TAUGHT=1.0).taught_loss(teacher, student, labels)
    assert two.item() == pytest.approx(4 * (0.5 * (math.log(0.5) - softened)).sum().item(), rel=1e-5)


def test_the_gradient_is_the_students_and_the_teacher_stays():
    entry, net = load("distil_short", TAUGHT=1.0), given_net(3)
    teacher, before = copy.deepcopy(net), states(net)
    entry.draw_anew(net.modules())
    fresh = states(net)
    entry.train(net, teacher, loader(classes(9, 3)))
    assert equal(teacher.state_dict(), before)
    assert not equal(net.state_dict(), fresh)
