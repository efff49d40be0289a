"""The noise goes away from the forget pictures, lies in their range, and carries retain labels."""

import torch

from tests.helpers.entries import OneLayer, classes, given_net, load, loader


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
    entry.unlearning(given_net(3), loader(classes(12, 3), batch_size=4), None, None)
    assert len(seen) == 3
