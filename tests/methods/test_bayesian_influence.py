"""The series of Hessian-vector products inverts the curvature, and Langevin steps sample around the weights."""

from itertools import repeat

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from tests.helpers.entries import Faces, OneLayer, equal, load, small_faces, small_loader, states


def weights(layer):
    return nn.utils.parameters_to_vector(layer.parameters()).detach()


def test_series_on_a_quadratic_loss_is_deletion_from_ridge_regression():
    random = torch.Generator().manual_seed(0)
    x, y = torch.randn(30, 4, generator=random).double(), torch.randn(30, generator=random).double()
    kept = x[5:].T @ x[5:] + torch.eye(4)
    fitted = torch.linalg.solve(x.T @ x + torch.eye(4), x.T @ y)
    gradient = x[:5].T @ (x[:5] @ fitted - y[:5])  # of the five rows that go
    step = load("bayesian_influence", TERMS=400).neumann(lambda v: kept @ v, gradient, 1 / 60)
    torch.testing.assert_close(fitted + step, torch.linalg.solve(kept, x[5:].T @ y[5:]))


def test_series_by_hand():
    """Terms 1, 1 - s a and (1 - s a)^2 of a = 2 and s = 1/4, in all 7/4."""
    found = load("bayesian_influence", TERMS=2).neumann(lambda v: 2 * v, torch.tensor([8.0]), 0.25)
    assert found.tolist() == pytest.approx([8 * 0.25 * 7 / 4])


def test_products_are_those_of_the_damped_curvature():
    torch.manual_seed(0)
    net, faces = OneLayer(), small_faces(5)
    batch = faces.images, torch.tensor(faces.labels)

    def loss(weight, bias):
        logits = functional.linear(batch[0].flatten(1) / 255, weight, bias)
        return functional.cross_entropy(logits, batch[1]) + 0.1 * (weight.square().sum() + bias.square().sum())

    blocks = torch.autograd.functional.hessian(loss, (net.fc.weight.detach(), net.fc.bias.detach()))
    rows = [torch.cat([block.reshape(n, -1) for block in row], 1) for n, row in zip((36, 3), blocks, strict=True)]
    dense = torch.cat(rows)
    entry, vector = load("bayesian_influence", RESAMPLE=False, DAMPING=0.3, PRIOR=0.2), torch.randn(39)
    before = states(net)
    times = entry.curvature(net, repeat(batch), 5)
    torch.testing.assert_close(times(vector), dense @ vector + 0.3 * vector)
    assert equal(net.state_dict(), before)  # BIF stays where it is
    largest = torch.linalg.eigvalsh(dense).max().item() + 0.3
    entry.POWER_STEPS = 50
    assert entry.largest_eigenvalue(times, vector) == pytest.approx(largest, rel=1e-3)


def test_forget_gradient_is_that_of_the_sum_over_pictures():
    net, faces = OneLayer(), small_faces(7)
    loss = functional.cross_entropy(net(faces.images), torch.tensor(faces.labels), reduction="sum")
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))])
    torch.testing.assert_close(load("bayesian_influence").forget_gradient(net, small_loader(7)), expected)


def test_langevin_steps_draw_from_the_posterior():
    """F = n theta^2 / 2 has the posterior N(0, 1/n): its variance over ten thousand chains, from far off."""
    torch.manual_seed(0)
    entry, chains, n = load("bayesian_influence", RATE=0.1), nn.Parameter(torch.full((10000,), 3.0)), 25
    for _ in range(200):
        entry.langevin_step([chains], chains.detach().clone(), n)
    assert chains.mean().item() == pytest.approx(0, abs=0.01)
    assert chains.var().item() == pytest.approx(1 / n, rel=0.1)


def test_step_takes_the_forget_set_out():
    """With the step alone, the forget loss rises; with samples, runs differ."""
    entry, ends = load("bayesian_influence", STEP=0.05, BATCH=4), []
    forget, retain = small_loader(3), small_loader(12)
    for sampled in (False, True, True):
        torch.manual_seed(len(ends))
        entry.RESAMPLE, net = sampled, OneLayer()
        net.load_state_dict(ends[0] if ends else net.state_dict())
        ends = ends or [states(net)]
        entry.unlearning(net, retain, forget, None)
        ends.append(states(net))
    start, bif, *samples = ends

    def loss(state):
        net = OneLayer()
        net.load_state_dict(state)
        return sum(functional.cross_entropy(net(b["image"]), b["age_group"]).item() for b in forget)

    assert loss(bif) > loss(start)
    assert not equal(*samples)


def given_sets():
    """Return a net, a loader with one retain picture twelve times, the loss of that, and a forget loader."""
    torch.manual_seed(0)
    net, faces = OneLayer(), Faces([2] * 12, size=2)
    faces.images[:] = faces.images[0]

    def loss(weight, bias):
        logits = functional.linear(faces.images[:1].flatten(1) / 255, weight, bias)
        return functional.cross_entropy(logits, torch.tensor([2]))

    return net, DataLoader(faces, 4), loss, small_loader(3)


def test_the_net_ends_where_the_dense_inverse_of_the_retain_curvature_leads():
    """The retain set is one picture twelve times, so that each batch has the same curvature."""
    net, retain, loss, forget = given_sets()
    entry = load("bayesian_influence", RESAMPLE=False, STEP=0.5, TERMS=100, DAMPING=0.75, PRIOR=0.25)
    weight, bias = (parameter.detach().clone() for parameter in net.parameters())
    (first, second), (third, fourth) = torch.autograd.functional.hessian(loss, (weight, bias))
    top = torch.cat([first.reshape(36, 36), second.reshape(36, 3)], dim=1)
    dense = torch.cat([top, torch.cat([third.reshape(3, 36), fourth], dim=1)])
    direction = torch.linalg.solve(dense + torch.eye(39), entry.forget_gradient(net, forget))
    start = weights(net)
    entry.unlearning(net, retain, forget, None)
    expected = start + 0.5 * start.norm() * direction / direction.norm()
    torch.testing.assert_close(weights(net), expected, rtol=0, atol=1e-5)


def test_each_sample_descends_the_loss_of_the_retain_set_and_the_prior(monkeypatch):
    net, retain, loss, forget = given_sets()
    entry, steps = load("bayesian_influence", POWER_STEPS=2, TERMS=3, PRIOR=0.25), []
    slopes = torch.autograd.grad(loss(*net.parameters()), list(net.parameters()))
    expected = torch.cat([slope.flatten() for slope in slopes]) + 0.25 * weights(net)
    monkeypatch.setattr(entry, "langevin_step", lambda _, *given: steps.append((*given, net.training)))
    monkeypatch.setattr(entry, "finetune", lambda net, tail, criterion: steps.append(tail))
    entry.unlearning(net, retain, forget, None)
    assert steps.pop() is retain
    assert [rest for _, *rest in steps] == 5 * [[12, False]]
    for gradient, *_ in steps:
        torch.testing.assert_close(gradient, expected)
