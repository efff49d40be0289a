"""Noise in the first convolution, and a loss scaled by the batch's share of the forget set's classes."""

import math

import pytest
import torch
from torch.nn import functional
from torch.utils.data import DataLoader

from tests.helpers.entries import (
    Faces,
    OneLayer,
    classes,
    given_net,
    load,
    loader,
    loss_of,
    rates_of_steps,
    small_faces,
    small_loader,
    states,
)


@pytest.mark.parametrize("noised", ["first", "all"])
def test_noise_goes_where_it_is_said_to_go(noised):
    net = given_net(3)
    before = states(net)
    load("vision_confuser", NOISED=noised).add_noise(net, 0.6)
    changed = {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])}
    convolutions = {name for name, parameter in net.named_parameters() if parameter.dim() == 4}
    assert changed == ({"conv1.weight"} if noised == "first" else convolutions)
    assert (net.conv1.weight - before["conv1.weight"]).std().item() == pytest.approx(0.6, rel=0.1)


def test_a_misspelt_setting_is_no_other_setting():
    with pytest.raises(KeyError, match="misspelt"):
        load("vision_confuser", NOISED="misspelt").add_noise(given_net(3), 0.6)


def test_loss_is_the_mean_times_the_mean_weight_and_no_weighted_mean():
    """Forget labels 0 0 0 0 1: weights 1, 0.05 + 0.95 / 4 and 0.05."""
    entry = load("vision_confuser")
    weights = entry.weights_of_classes(torch.tensor([0, 0, 0, 0, 1]), 3)
    assert weights.tolist() == pytest.approx([1.0, 0.2875, 0.05])
    logits, labels = torch.randn(2, 3), torch.tensor([0, 2])
    mean = functional.cross_entropy(logits, labels).item()
    assert entry.confused_loss(logits, labels, weights).item() == pytest.approx(mean * (1 + 0.05) / 2)


def test_late_noise_comes_once_before_the_last_quarter(monkeypatch):
    entry = load("vision_confuser", EPOCHS=2)
    events = rates_of_steps(entry, monkeypatch)
    monkeypatch.setattr(entry, "add_noise", lambda net, scale: events.append(f"noise {scale}"))
    entry.unlearning(given_net(3), loader(classes(16, 3), batch_size=4), loader([0]), None)
    assert [index for index, event in enumerate(events) if isinstance(event, str)] == [0, 7]
    assert (events[0], events[7]) == ("noise 0.6", "noise 0.005")
    rates = [event for event in events if not isinstance(event, str)]
    assert rates == pytest.approx([entry.LR * (1 + math.cos(math.pi * k / 8)) / 2 for k in range(8)])


def test_the_retain_set_is_trained_with_weights_from_the_labels_of_the_forget_set(monkeypatch):
    entry, net, seen = load("vision_confuser", EPOCHS=1), given_net(3), []
    loss, faces = entry.confused_loss, Faces([0, 0, 1, 1, 0, 1])
    monkeypatch.setattr(entry, "confused_loss", lambda *given: (seen.append(given), loss(*given))[1])
    entry.unlearning(net, DataLoader(faces, batch_size=3), loader([2, 2, 2, 2, 1]), loader([0]))
    for start, (logits, labels, weights) in zip((0, 3), seen, strict=True):
        assert logits.requires_grad
        assert labels.tolist() == faces.labels[start : start + 3]
        assert weights.tolist() == pytest.approx([0.05, 0.2875, 1.0])


def test_noise_is_added_to_the_weights():
    entry, net = load("vision_confuser"), given_net(3)
    torch.nn.init.constant_(net.conv1.weight, 7.0)
    entry.add_noise(net, 0.1)
    assert net.conv1.weight.mean().item() == pytest.approx(7, abs=0.05)


def test_training_goes_down():
    entry, net, faces = load("vision_confuser", EPOCHS=20, LATE_NOISE=0.0), OneLayer(), small_faces(4)
    before = loss_of(net, faces).item()
    entry.finetune(net, small_loader(4), torch.ones(3))
    assert loss_of(net, faces).item() < before
