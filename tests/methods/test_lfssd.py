"""Importances without labels, and dampening by their ratio."""

import pytest
import torch
from torch import nn

from tests.helpers.entries import Faces, OneLayer, equal, load, small_faces, states


def test_importances_are_absolute_gradients_of_the_output_size():
    """In batches of four and one, each weighted by its number of pictures."""
    net, faces = OneLayer(), small_faces(5)
    torch.manual_seed(0)
    rows = torch.randperm(5)
    torch.manual_seed(0)
    found = load("lfssd", IMPORTANCE_BATCH=4).output_importances(net, faces)
    expected = 0
    for part in rows.split(4):
        size = net(faces.images[part]).square().sum(dim=1).mean()
        expected = expected + len(part) * torch.autograd.grad(size, net.fc.weight)[0].abs() / 5
    torch.testing.assert_close(found[0], expected)


def test_labels_do_not_matter_and_the_net_stays():
    net = OneLayer()
    before, found = states(net), []
    for labels in ([0, 1, 2, 0], [2, 2, 1, 1]):
        torch.manual_seed(0)
        found.append(load("lfssd").output_importances(net, Faces(labels, size=2)))
    assert torch.equal(found[0][0], found[1][0])
    assert equal(net.state_dict(), before)


def test_dampening_by_hand():
    """Ratios 2, 4 and 8 at alpha 3: the last two by 1/4 and 1/8, with the sign kept; no data is no reason."""
    net = nn.Module()
    net.theta = nn.Parameter(torch.tensor([1.0, -4.0, 8.0, 5.0]))
    importances = torch.tensor([2.0, 4.0, 8.0, 0.0]), torch.tensor([1.0, 1.0, 1.0, 0.0])
    load("lfssd", ALPHA=3.0).dampen(net, *([each] for each in importances))
    assert net.theta.tolist() == pytest.approx([1.0, -1.0, 1.0, 5.0])
