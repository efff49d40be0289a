"""The new label is the nearest other class of the original, which stays as it is."""

import copy

import torch
from torch.utils.data import DataLoader

from tests.helpers.entries import Faces, OneLayer, classes, equal, given_net, load, states


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
