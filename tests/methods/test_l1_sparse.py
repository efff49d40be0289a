"""The penalty is the sum of absolute values, falls linearly and ends."""

import copy

import pytest
import torch
from torch.nn import functional

from tests.helpers.entries import OneLayer, classes, given_net, load, loader, small_faces, small_loader


def test_loss_by_hand():
    parameters = [torch.tensor([3.0, -4.0], requires_grad=True), torch.tensor([-1.0], requires_grad=True)]
    logits, labels = torch.randn(2, 3), torch.tensor([0, 1])
    loss = load("l1_sparse").sparse_loss(logits, labels, parameters, 0.1)
    assert loss.item() == pytest.approx(functional.cross_entropy(logits, labels).item() + 0.8)
    gradients = torch.autograd.grad(loss, parameters)
    assert torch.cat(gradients).tolist() == pytest.approx([0.1, -0.1, -0.1])


def test_strength_falls_linearly_to_nothing():
    entry = load("l1_sparse", ALPHA=1.0, FADED=0.8)
    assert [entry.strength(share) for share in (0, 0.2, 0.4, 0.8, 0.9)] == pytest.approx([1, 0.75, 0.5, 0, 0])


def test_batch_normalisation_can_be_spared():
    net = given_net(3)
    assert len(load("l1_sparse").penalised(net)) == 62
    spared = load("l1_sparse", BATCH_NORM=False).penalised(net)
    assert {parameter.dim() for parameter in spared[:-2]} == {4}
    assert len(spared) == 22


def test_penalty_makes_weights_small():
    """Beside the same training without it."""
    sizes = []
    for alpha in (0.0, 0.3):
        net = given_net(3)
        torch.manual_seed(0)
        load("l1_sparse", ALPHA=alpha, EPOCHS=4).finetune(net, loader(classes(20, 3)))
        sizes.append(sum(parameter.abs().sum().item() for parameter in net.parameters()))
    assert sizes[1] < 0.95 * sizes[0]


def test_first_step_by_hand():
    """On the retain set alone, down its loss and to zero, with the whole penalty."""
    net, faces = OneLayer(), small_faces(4)
    start = copy.deepcopy(net)
    loss = functional.cross_entropy(start(faces.images), torch.tensor(faces.labels))
    (gradient,) = torch.autograd.grad(loss, start.fc.weight)
    entry = load("l1_sparse", ALPHA=0.1, EPOCHS=1, LR=0.5, WEIGHT_DECAY=0.0)
    entry.unlearning(net, small_loader(4), None, None)
    torch.testing.assert_close(net.fc.weight, start.fc.weight - 0.5 * (gradient + 0.1 * start.fc.weight.sign()))


def test_penalty_fades_over_the_steps_of_all_passes(monkeypatch):
    """Five batches in two passes make ten steps."""
    entry, seen = load("l1_sparse", ALPHA=1.0, FADED=0.8, EPOCHS=2), []
    monkeypatch.setattr(entry, "penalised", lambda net: "penalised")
    monkeypatch.setattr(entry, "sparse_loss", lambda logits, labels, *given: seen.append(given) or logits.sum())
    entry.finetune(OneLayer(), small_loader(10, batch_size=2))
    assert {given[0] for given in seen} == {"penalised"}
    assert [given[1] for given in seen] == pytest.approx([1 - step / 8 for step in range(9)] + [0])
