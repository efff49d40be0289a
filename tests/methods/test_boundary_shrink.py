"""The new label is the nearest other class of the original, which stays as it is."""

import copy

import pytest
import torch
from torch.nn import functional
from torch.utils.data import DataLoader

from tests.helpers.entries import (
    Faces,
    OneLayer,
    classes,
    equal,
    given_net,
    load,
    small_faces,
    small_loader,
    states,
)


def test_nearest_other_class_by_hand():
    """Class 1 is next to class 0 along the attack, class 2 is far; the true class is never the answer."""
    net = OneLayer()
    torch.nn.init.zeros_(net.fc.weight)
    with torch.no_grad():
        net.fc.weight[0], net.fc.weight[1] = 1.0, -1.0  # brightness is for class 0 and against class 1
    net.fc.bias.data = torch.tensor([0.0, 0.0, -50.0])
    entry = load("boundary_shrink", STEP=0.1)
    grey = torch.full((1, 3, 2, 2), 20.0)
    assert entry.nearest_other_class(net, grey, torch.tensor([0])).tolist() == [1]
    assert entry.nearest_other_class(net, grey, torch.tensor([1])).tolist() == [0]
    net.fc.bias.data = torch.tensor([0.0, -90.0, -50.0])  # the step does not leave class 0; second best is 2
    assert entry.nearest_other_class(net, grey, torch.tensor([0])).tolist() == [2]


@pytest.mark.parametrize("way", [1.0, -1.0])
@pytest.mark.parametrize(("rival", "answer"), [(6.9, 1), (7.5, 2)])
def test_attack_is_one_step_up_the_loss_of_the_true_class(way, rival, answer):
    """On grey, class 1 has the logit 6, and 0.1 of the range on each of 12 values makes it 7.2; class 2 stays."""
    net = OneLayer()
    torch.nn.init.zeros_(net.fc.weight)
    torch.nn.init.constant_(net.fc.weight[1], way)
    net.fc.bias.data = torch.tensor([0.0, 6.0 - 6.0 * way, rival])
    grey = torch.full((1, 3, 2, 2), 127.5)
    found = load("boundary_shrink", STEP=0.1).nearest_other_class(net, grey, torch.tensor([0]))
    assert found.tolist() == [answer]


def test_attack_stays_in_the_range_of_pictures():
    seen = []

    class Watched(OneLayer):
        def forward(self, images):
            seen.append(images.detach())
            return super().forward(images)

    images = torch.tensor([0.0, 255.0]).repeat(6).view(1, 3, 2, 2)
    load("boundary_shrink", STEP=0.5).nearest_other_class(Watched(), images, torch.tensor([0]))
    assert seen[1].min() >= 0 and seen[1].max() <= 255
    assert not torch.equal(*seen)


def test_the_net_moves_and_the_original_does_not():
    entry, net = load("boundary_shrink"), given_net(3)
    original, before = copy.deepcopy(net), states(net)
    entry.shrink(net, original, DataLoader(Faces(classes(6, 3)), batch_size=6))
    assert equal(original.state_dict(), before)
    assert not equal(dict(net.named_parameters()), before)


def test_one_pass_is_a_step_towards_the_class_that_the_original_puts_next():
    """The net's own second choices are others."""
    net, original, faces = OneLayer(), OneLayer(), small_faces(4)
    torch.nn.init.zeros_(original.fc.weight)
    net.fc.bias.data, original.fc.bias.data = torch.tensor([5.0, 0.0, 9.0]), torch.tensor([0.0, 9.0, 5.0])
    start, wanted = copy.deepcopy(net), torch.tensor([1, 2, 1, 1])  # of the labels 0, 1, 2, 0
    loss = functional.cross_entropy(start(faces.images), wanted)
    (gradient,) = torch.autograd.grad(loss, start.fc.weight)
    load("boundary_shrink", PASSES=1, SHRINK_LR=0.5).shrink(net, original, small_loader(4))
    torch.testing.assert_close(net.fc.weight, start.fc.weight - 0.5 * gradient)


def test_forget_set_first_beside_the_untouched_original_and_then_the_tail(monkeypatch):
    entry, net, calls = load("boundary_shrink"), OneLayer(), []
    before = states(net)

    def shrink(net, original, loader):
        torch.nn.init.zeros_(net.fc.weight)
        calls.append((loader, equal(original.state_dict(), before)))

    monkeypatch.setattr(entry, "shrink", shrink)
    monkeypatch.setattr(entry, "finetune", lambda net, loader, criterion: calls.append(loader))
    entry.unlearning(net, "retain", "forget", "validation")
    assert calls == [("forget", True), "retain"]
