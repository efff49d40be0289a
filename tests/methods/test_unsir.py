"""The noise goes away from the forget pictures, lies in their range, and carries retain labels."""

import copy

import torch
from torch.nn import functional

from tests.helpers.entries import OneLayer, given_net, load, loader, small_faces, small_loader


def test_noise_goes_away_from_the_pictures_and_stays_in_range():
    net, images = OneLayer(), 255 * torch.rand(4, 3, 2, 2)
    weights = net.fc.weight.clone()

    def distance(steps):
        torch.manual_seed(0)
        noise = load("unsir", NOISE_STEPS=steps).distant_noise(net, images)
        assert noise.min() >= 0 and noise.max() <= 255
        assert not noise.requires_grad
        return (net(noise) - net(images)).square().mean().item()

    assert distance(20) > distance(5) > distance(0)
    assert torch.equal(net.fc.weight, weights)
    assert net.fc.weight.grad is None


def test_noise_has_retain_labels_and_ends_with_the_forget_set(monkeypatch):
    """Three retain batches of four and two forget batches of three: two steps, with three labels for the noise."""
    entry, labels = load("unsir"), []

    def cross_entropy(logits, wanted):
        labels.append(wanted.tolist())
        return logits.sum()

    monkeypatch.setattr(entry.functional, "cross_entropy", cross_entropy)
    retain, forget = loader([1] * 12, batch_size=4), loader([0] * 6, batch_size=3)
    monkeypatch.setattr(entry, "descend", lambda optimizer, loss: None)
    entry.impair(given_net(3), retain, forget, None)
    assert labels == [[1, 1, 1], [1, 1, 1, 1]] * 2


def test_repair_reads_the_retain_set_alone(monkeypatch):
    entry, seen = load("unsir", EPOCHS=1), []
    monkeypatch.setattr(entry, "impair", lambda *rest: None)
    monkeypatch.setattr(entry, "descend", lambda optimizer, loss: seen.append(loss))
    entry.unlearning(OneLayer(), small_loader(12), None, None)
    assert len(seen) == 3


def test_one_step_of_each_stage_by_hand(monkeypatch):
    """Noise, here the negatives of the three forget pictures, takes the first three of the four retain labels."""
    retain, forget, nets = small_faces(4), small_faces(3), []
    labels = torch.tensor(retain.labels)

    def loss_of_noise(net):
        return functional.cross_entropy(net(255 - forget.images), labels[:3])

    def loss_of_retain(net):
        return functional.cross_entropy(net(retain.images), labels)

    stages = {"repair": lambda net: loss_of_noise(net) + loss_of_retain(net), "impair": loss_of_retain}
    for left_out, loss in stages.items():
        entry, net = load("unsir", EPOCHS=1, LR=0.5, WEIGHT_DECAY=0.0), OneLayer()
        start = copy.deepcopy(net)
        (gradient,) = torch.autograd.grad(loss(start), start.fc.weight)
        monkeypatch.setattr(entry, "distant_noise", lambda net, images: 255 - images)
        monkeypatch.setattr(entry, left_out, lambda *given: nets.append(given[0]))
        entry.unlearning(net, small_loader(4), small_loader(3), None)
        torch.testing.assert_close(net.fc.weight, start.fc.weight - 0.5 * gradient)
    assert len(nets) == 2


def test_stages_and_their_sets(monkeypatch):
    entry, stages = load("unsir"), []
    monkeypatch.setattr(entry, "impair", lambda net, *given: stages.append(given[:-1]))
    monkeypatch.setattr(entry, "repair", lambda net, *given: stages.append(given[:-1]))
    entry.unlearning(OneLayer(), "retain", "forget", "validation")
    assert stages == [("retain", "forget"), ("retain",)]
