"""Every kernel is transposed, and nothing else changes before training."""

import copy
import math

import pytest
import torch
from torch import nn

from tests.helpers.entries import (
    OneLayer,
    classes,
    equal,
    given_net,
    load,
    loader,
    loss_of,
    rates_of_steps,
    small_faces,
    small_loader,
    states,
)


def test_transposing_swaps_height_and_width_of_every_kernel():
    net = given_net(3)
    before = states(net)
    entry = load("transposed_weights")
    entry.transpose(net)
    for name, tensor in net.state_dict().items():
        expected = before[name].transpose(2, 3) if tensor.dim() == 4 else before[name]
        assert torch.equal(tensor, expected), name
    entry.transpose(net)
    assert equal(net.state_dict(), before)


def test_a_net_with_transposed_kernels_answers_transposed_pictures_alike():
    net = given_net(3)
    images = torch.rand(2, 3, 32, 32) * 255
    with torch.no_grad():
        before = net(images)
        load("transposed_weights").transpose(net)
        torch.testing.assert_close(net(images.transpose(2, 3)), before, rtol=1e-3, atol=1e-4)
        assert not torch.allclose(net(images), before, atol=1e-2)


def test_kernels_that_are_not_square_are_left_alone():
    net = nn.Conv2d(2, 3, (1, 3))
    before = states(net)
    load("transposed_weights").transpose(net)
    assert equal(net.state_dict(), before)


def test_transposed_first_and_then_trained_on_the_retain_set(monkeypatch):
    entry, net, retain, seen = load("transposed_weights"), given_net(3), loader(classes(9, 3)), []
    expected = copy.deepcopy(net)
    entry.transpose(expected)
    monkeypatch.setattr(entry, "finetune", lambda net, loader: seen.append((states(net), loader)))
    entry.unlearning(net, retain, loader([1]), loader([1]))
    ((found, given),) = seen
    assert given is retain
    assert equal(found, expected.state_dict())
    assert equal(states(net), found)


def test_rate_falls_to_zero_by_cosine(monkeypatch):
    entry = load("transposed_weights", EPOCHS=2)
    rates = rates_of_steps(entry, monkeypatch)
    entry.finetune(OneLayer(), small_loader(8))
    assert rates == pytest.approx([entry.LR * (1 + math.cos(math.pi * k / 4)) / 2 for k in range(4)])


def test_training_goes_down():
    entry, net, faces = load("transposed_weights", EPOCHS=20), OneLayer(), small_faces(4)
    before = loss_of(net, faces).item()
    entry.finetune(net, small_loader(4))
    assert loss_of(net, faces).item() < before
