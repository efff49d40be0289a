"""Global pruning with a new start, the entropy term, and a teacher that stays where it is."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from tests.helpers.entries import (
    Faces,
    OneLayer,
    classes,
    equal,
    given_net,
    load,
    loader,
    loss_of,
    small_faces,
    small_loader,
    states,
)


def test_pruning_ranks_weights_and_biases_of_all_layers_together():
    """The largest tenth of 120 is 11 weights of the first layer and one bias of the second."""
    net = nn.Sequential(nn.Conv2d(1, 11, 3), nn.BatchNorm2d(11), nn.Linear(1, 5))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(0.01)
        net[0].weight[:, 0, 0, 0] = -5.0
        net[2].bias[3] = 6.0
    load("prune_entropy", PRUNED=0.9).prune_and_draw(net)
    assert (net[0].weight[:, 0, 0, 0] == -5.0).all()
    drawn = net[0].weight.flatten(1)[:, 1:]
    assert drawn.abs().max() <= 1 / 3
    assert drawn.std().item() == pytest.approx(1 / 3 / math.sqrt(3), rel=0.25)  # uniform up to 1 / sqrt(9)
    assert (net[0].bias == 0).all()
    assert net[2].bias.tolist() == [0, 0, 0, 6, 0]
    assert net[2].weight.unique().numel() == 5
    assert (net[1].weight == 0.01).all()


def test_loss_by_hand():
    """Entropies ln 2 and 0: cross-entropy ln 2, and the squared difference (ln 2)^2."""
    entry = load("prune_entropy", ENTROPY=1.0)
    student, teacher = torch.zeros(1, 2), torch.tensor([[50.0, -50.0]])
    assert entry.entropy(student).item() == pytest.approx(math.log(2))
    assert entry.entropy(teacher).item() == pytest.approx(0, abs=1e-6)
    found = entry.pruned_loss(student, teacher, torch.tensor([1]), torch.ones(2))
    assert found.item() == pytest.approx(math.log(2) + math.log(2) ** 2)


def test_classes_are_weighted_by_their_number_to_a_power():
    entry, student = load("prune_entropy", ENTROPY=0.0), torch.randn(2, 2)
    weights = torch.tensor([1.0, 3.0])
    losses = functional.cross_entropy(student, torch.tensor([0, 1]), reduction="none")
    found = entry.pruned_loss(student, student, torch.tensor([0, 1]), weights)
    assert found.item() == pytest.approx(((losses[0] + 3 * losses[1]) / 4).item())


def test_frequent_classes_weigh_less(monkeypatch):
    """Four pictures and one, to the power of -1/2: weights 1/2 and 1; a class without pictures has 1."""
    entry, found = load("prune_entropy", CLASS_POWER=-0.5), []
    monkeypatch.setattr(entry, "finetune", lambda net, teacher, loader, weights: found.append(weights.tolist()))
    entry.unlearning(given_net(3), loader([0, 0, 1, 0, 0]), None, None)
    assert found == [pytest.approx([0.5, 1.0, 1.0])]


def test_student_moves_and_teacher_does_not():
    entry, net = load("prune_entropy"), given_net(3)
    teacher = copy.deepcopy(net)
    before = states(net)
    entry.finetune(net, teacher, loader(classes(20, 3)), None)
    assert equal(teacher.state_dict(), before)
    assert not equal(net.state_dict(), before)


def test_weights_end_in_half_precision():
    net = nn.Linear(2, 1)
    net.weight.data = torch.tensor([[0.1, 1e6]])
    load("prune_entropy").round_to_half(net)
    assert net.weight[0, 0].item() == torch.tensor(0.1).half().item()
    assert net.weight[0, 1].item() == 1e6


def test_the_original_teaches_on_the_retain_set_and_only_the_student_learns(monkeypatch):
    """The original answers in eval mode, to the last batch as it did before pruning."""
    entry, net, seen = load("prune_entropy", EPOCHS=2), given_net(3), []
    original, faces, loss = copy.deepcopy(net), Faces([0, 0, 2, 1, 0, 0, 1, 2]), entry.pruned_loss
    monkeypatch.setattr(entry, "pruned_loss", lambda *given: (seen.append(given), loss(*given))[1])
    entry.unlearning(net, DataLoader(faces, batch_size=4), loader([1]), loader([1]))
    assert len(seen) == 4
    for start, (student, teacher, labels, weights) in zip((0, 4, 0, 4), seen, strict=True):
        with torch.no_grad():
            torch.testing.assert_close(teacher, original(faces.images[start : start + 4]), rtol=1e-3, atol=1e-4)
        assert student.requires_grad
        assert labels.tolist() == faces.labels[start : start + 4]
        assert weights.tolist() == pytest.approx([4**-0.1, 2**-0.1, 2**-0.1])


def test_pruned_then_trained_then_rounded(monkeypatch):
    entry, order = load("prune_entropy"), []
    for name in ("prune_and_draw", "finetune", "round_to_half"):
        monkeypatch.setattr(entry, name, lambda *given, name=name: order.append(name))
    entry.unlearning(given_net(3), loader([0, 1, 2]), None, None)
    assert order == ["prune_and_draw", "finetune", "round_to_half"]


def test_training_goes_down(monkeypatch):
    entry, net = load("prune_entropy", EPOCHS=20, LR=0.1), OneLayer()
    teacher, faces = copy.deepcopy(net), small_faces(4)
    before = loss_of(net, faces).item()
    entry.finetune(net, teacher, small_loader(4), None)
    assert loss_of(net, faces).item() < before
