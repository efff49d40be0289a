"""Steps are those of projected gradient descent, and the noise is that of theorem 3.1."""

import pytest
import torch
from torch import nn

from tests.helpers.entries import OneLayer, load, loss_of, small_faces, small_loader


def test_noise_by_the_sources_constants():
    """Its script, 1000 pictures, 25 steps: 0.2167. Only ratios of the constants matter."""
    script = {"SMOOTH": 3.95, "STRONG": 0.05, "LIPSCHITZ": 1.05, "EPSILON": 5.0, "STEPS": 25}
    assert load("descent_to_delete", **script).noise_scale(1000) == pytest.approx(0.2167, abs=5e-5)
    tenfold = {"SMOOTH": 39.5, "STRONG": 0.5, "LIPSCHITZ": 10.5, "EPSILON": 5.0, "STEPS": 25}
    assert load("descent_to_delete", **tenfold).noise_scale(1000) == pytest.approx(0.2167, abs=5e-5)
    assert load("descent_to_delete", **{**script, "STEPS": 250}).noise_scale(1000) < 1e-3


def test_one_step_by_hand():
    """Over four pictures in batches of two, at a rate of 2 / (SMOOTH + STRONG) = 0.25."""
    net, faces = OneLayer(), small_faces(4)
    weight = net.fc.weight.detach().clone()
    loss = loss_of(net, faces)
    (gradient,) = torch.autograd.grad(loss, [net.fc.weight])
    settings = {"STEPS": 1, "EPOCHS": 1, "SMOOTH": 7.0, "STRONG": 1.0, "RADIUS": 1e6, "WEIGHT_DECAY": 0.1}
    load("descent_to_delete", **settings).descend_in_ball(net, small_loader(4, batch_size=2))
    torch.testing.assert_close(net.fc.weight.detach(), weight - 0.25 * (gradient + 0.1 * weight))


def test_projection_by_hand():
    """A start of length 5 and a share of a tenth: the ball has the radius one half."""
    entry, start = load("descent_to_delete", RADIUS=0.1), [torch.tensor([3.0]), torch.tensor([4.0])]
    inside, outside = [torch.tensor([3.0]), torch.tensor([4.4])], [torch.tensor([6.0]), torch.tensor([8.0])]
    entry.project(inside, start)
    entry.project(outside, start)
    assert torch.cat(inside).tolist() == pytest.approx([3.0, 4.4])
    assert torch.cat(outside).tolist() == pytest.approx([3.3, 4.4])


def test_noise_is_in_units_of_each_tensor():
    torch.manual_seed(0)
    net = nn.Linear(100, 100)
    net.weight.data.mul_(7)
    nn.init.constant_(net.bias, 2.0)
    before, spread = net.weight.detach().clone(), net.weight.std().item()
    load("descent_to_delete").publish(net, 0.1)
    assert (net.weight - before).std().item() == pytest.approx(0.1 * spread, rel=0.05)
    assert net.bias.tolist() == [2.0] * 100


def test_all_steps_stay_in_the_ball_around_the_start():
    """Steps far too long end on its surface, however many they are."""
    net = OneLayer()
    start = nn.utils.parameters_to_vector(net.parameters()).detach()
    settings = {"STEPS": 3, "EPOCHS": 1, "SMOOTH": 0.01, "STRONG": 0.01, "RADIUS": 0.1}
    load("descent_to_delete", **settings).descend_in_ball(net, small_loader(6, batch_size=2))
    away = nn.utils.parameters_to_vector(net.parameters()).detach() - start
    assert away.norm().item() == pytest.approx(0.1 * start.norm().item(), rel=1e-4)


def test_steps_share_the_passes(monkeypatch):
    """Four batches of the labels 0 1, 2 0, 1 2 and 0 1, in three steps."""
    entry, parts = load("descent_to_delete", STEPS=3, EPOCHS=1), []
    monkeypatch.setattr(entry, "accumulate", lambda net, part: parts.append([b[1].tolist() for b in part]))
    entry.descend_in_ball(OneLayer(), small_loader(8, batch_size=2))
    assert parts == [[[0, 1]], [[2, 0]], [[1, 2], [0, 1]]]


def test_steps_on_the_retain_set_and_then_the_noise_of_its_size(monkeypatch):
    entry, net, calls = load("descent_to_delete"), OneLayer().eval(), []
    monkeypatch.setattr(entry, "descend_in_ball", lambda net, loader: calls.append((loader, net.training)))
    monkeypatch.setattr(entry, "publish", lambda net, scale: calls.append(scale))
    entry.unlearning(net, retain := small_loader(8), small_loader(6), small_loader(7))
    assert calls == [(retain, True), entry.noise_scale(8)]
