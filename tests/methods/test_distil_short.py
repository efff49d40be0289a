"""A fresh net is taught by labels and by the original, which stays as it is."""

import copy
import math

import pytest
import torch
from torch.nn import functional

from tests.helpers.entries import (
    OneLayer,
    classes,
    equal,
    given_net,
    load,
    loader,
    small_faces,
    small_loader,
    states,
)


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


def test_first_step_goes_down_the_loss_of_the_students_answers(monkeypatch):
    """Adam's first step is against the sign of the slope, here that of the labels."""
    net, teacher, faces, taught_by = OneLayer(), OneLayer(), small_faces(4), []
    torch.nn.init.zeros_(teacher.fc.weight)
    teacher.fc.bias.data = torch.tensor([4.0, 2.0, 1.0])
    entry, start = load("distil_short", EPOCHS=1, WEIGHT_DECAY=0.0), copy.deepcopy(net)

    def taught_loss(teacher, student, labels):
        taught_by.extend(teacher.tolist())
        return functional.cross_entropy(student, labels)

    monkeypatch.setattr(entry, "taught_loss", taught_loss)
    loss = functional.cross_entropy(start(faces.images), torch.tensor(faces.labels))
    (gradient,) = torch.autograd.grad(loss, start.fc.weight)
    entry.train(net, teacher, small_loader(4))
    assert taught_by == [[4.0, 2.0, 1.0]] * 4
    assert torch.equal((net.fc.weight - start.fc.weight).sign(), -gradient.sign())


def test_a_fresh_net_is_taught_by_the_original_on_the_retain_set(monkeypatch):
    entry, net, calls = load("distil_short"), OneLayer(), []
    before = states(net)

    def train(net, teacher, loader):
        assert not (net.fc.weight == before["fc.weight"]).any()
        assert equal(teacher.state_dict(), before)
        calls.append((loader, teacher.training))

    monkeypatch.setattr(entry, "train", train)
    entry.unlearning(net, "retain", "forget", "validation")
    assert calls == [("retain", False)]
