"""Importances without labels, and dampening by their ratio."""

import pytest
import torch
from torch import nn

from tests.helpers.entries import Faces, OneLayer, equal, given_net, load, small_faces, small_loader, states


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
    net = given_net(3).train()
    before, found = states(net), []
    for labels in ([0, 1, 2, 0], [2, 2, 1, 1]):
        torch.manual_seed(0)
        found.append(load("lfssd").output_importances(net, Faces(labels)))
    assert torch.equal(found[0][0], found[1][0])
    assert equal(net.state_dict(), before)


def test_dampening_by_hand():
    """Ratios 2, 4 and 8 at alpha 3: the last two by 1/4 and 1/8, with the sign kept; no data is no reason."""
    importances = torch.tensor([2.0, 4.0, 8.0, 0.0]), torch.tensor([1.0, 1.0, 1.0, 0.0])
    for strength, left in ((1.0, [1.0, -1.0, 1.0, 5.0]), (5.0, [1.0, -4.0, 5.0, 5.0])):
        net = nn.Module()
        net.theta = nn.Parameter(torch.tensor([1.0, -4.0, 8.0, 5.0]))
        load("lfssd", ALPHA=3.0, LAMBDA=strength).dampen(net, *([each] for each in importances))
        assert net.theta.tolist() == pytest.approx(left)


def test_importances_of_the_forget_set_are_held_against_those_of_a_retain_sample(monkeypatch):
    entry, steps = load("lfssd", RETAIN_SAMPLE=7), []
    net, retain, forget = OneLayer(), small_loader(12), small_loader(3)
    monkeypatch.setattr(entry, "output_importances", lambda net, dataset, n=None: (dataset, n))
    monkeypatch.setattr(entry, "dampen", lambda *given: steps.append(given))
    monkeypatch.setattr(entry, "finetune", lambda net, tail, criterion: steps.append(tail))
    entry.unlearning(net, retain, forget, None)
    assert steps == [(net, (forget.dataset, None), (retain.dataset, 7)), retain]
