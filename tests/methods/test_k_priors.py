"""For a linear model the loss is that of retraining, and the memory is what the original doubts."""

import pytest
import torch
from torch.nn import functional
from torch.utils.data import Subset

from tests.helpers.entries import Faces, OneLayer, load, small_faces, small_loader


def test_gradient_is_that_of_retraining_for_a_linear_model():
    """At any weights, once the original minimises the loss of all pictures: that is why the minimum is exact."""
    torch.manual_seed(0)
    entry, x, labels = load("k_priors", PRIOR=0.1), torch.randn(12, 4).double(), torch.arange(12) % 3
    start = torch.zeros(4, 3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([start], max_iter=100, tolerance_change=0, line_search_fn="strong_wolfe")

    def loss_of_training(weights, rows):
        return functional.cross_entropy(x[rows] @ weights, labels[rows], reduction="sum") / 12 + (
            0.05 * weights.square().sum()
        )

    def closure():
        optimizer.zero_grad()
        loss = loss_of_training(start, slice(None))
        loss.backward()
        return loss

    optimizer.step(closure)
    weights = torch.randn(4, 3).double().requires_grad_(True)
    retain, forget = slice(0, 9), slice(9, 12)
    answers = (x @ start).softmax(dim=1).detach()
    parts = [(x[rows] @ weights, answers[rows]) for rows in (retain, forget)]
    distance = (weights - start.detach()).square().sum()
    loss = entry.adapted_loss(*parts, labels[forget], (9 / 12, 3 / 12), distance)
    (found,) = torch.autograd.grad(loss, weights)
    (expected,) = torch.autograd.grad(loss_of_training(weights, retain), weights)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_memory_is_the_doubtful_pictures_of_each_class():
    """Sums of p (1 - p) grow from a sure answer to an even one; half of six pictures, two classes: two of each."""
    sure = torch.tensor([0.9, 0.6, 0.8, 0.5, 0.99, 0.7])
    answers, labels = torch.stack([sure, 1 - sure], dim=1), torch.tensor([0, 0, 0, 0, 1, 1])
    assert sorted(load("k_priors", MEMORY=2 / 3).least_sure(answers, labels).tolist()) == [1, 3, 4, 5]
    assert sorted(load("k_priors", MEMORY=1.0).least_sure(answers, labels).tolist()) == [1, 2, 3, 4, 5]


def test_adapting_raises_the_forget_loss_alone():
    """The original minimises the loss on all pictures nearly, so what it says of the retain pictures stays."""
    torch.manual_seed(0)
    net, faces = OneLayer(), small_faces(12)
    labels = torch.tensor(faces.labels)

    def losses():
        return functional.cross_entropy(net(faces.images), labels, reduction="none").split([9, 3])

    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        torch.cat(losses()).mean().backward()
        optimizer.step()
    before = [part.mean().item() for part in losses()]
    retain, forget = (Subset(faces, rows) for rows in (range(9), range(9, 12)))
    load("k_priors", MEMORY=1.0, LR=0.01, BATCH=9, EPOCHS=20, PRIOR=1e-3).adapt(net, retain, forget)
    after = [part.mean().item() for part in losses()]
    assert after[1] > 2 * before[1]
    assert after[0] == pytest.approx(before[0], abs=0.3 * (after[1] - before[1]))


def test_memory_keeps_pictures_with_the_originals_answers():
    faces, rows = small_faces(5), torch.tensor([3, 1])
    entry, net = load("k_priors"), OneLayer()
    answers, labels = entry.answers_of(net, faces)
    torch.testing.assert_close(answers, net(faces.images).softmax(dim=1).detach())
    images, *known = entry.remembered(faces, rows, answers, labels).tensors
    assert torch.equal(images, faces.images[rows])
    assert torch.equal(known[0], answers[rows])
    assert known[1].tolist() == [0, 1]


def test_what_a_step_is_given(monkeypatch):
    """Half of eight retain pictures, of class 0, and three forget pictures, of class 1, of eleven in all.

    In the first step the net still gives the answers that it is to keep. Adam then moves each of 39 weights by its
    rate, and the distance is to where they were before it.
    """
    entry, steps = load("k_priors", MEMORY=0.5, EPOCHS=2, BATCH=8, LR=0.01), []
    adapted_loss = entry.adapted_loss

    def loss(retain, forget, labels, shares, distance):
        gaps = [(logits.softmax(dim=1) - answers).abs().max().item() for logits, answers in (retain, forget)]
        steps.append((len(retain[0]), labels.tolist(), shares, gaps, distance.item()))
        return adapted_loss(retain, forget, labels, shares, distance)

    monkeypatch.setattr(entry, "adapted_loss", loss)
    entry.adapt(OneLayer(), Faces([0] * 8, size=2), Faces([1] * 3, size=2))
    assert [step[:3] for step in steps] == [(4, [1, 1, 1], [4 / 11, 3 / 11])] * 2
    assert steps[0][3] == pytest.approx([0, 0], abs=1e-6)
    assert [step[4] for step in steps] == pytest.approx([0, 39 * 0.01**2], rel=0.02)


def test_the_forget_set_is_what_leaves(monkeypatch):
    entry, net, calls = load("k_priors"), OneLayer(), []
    monkeypatch.setattr(entry, "adapt", lambda net, *sets: calls.append((*sets, net.training)))
    retain, forget = small_loader(8), small_loader(3)
    entry.unlearning(net.train(), retain, forget, small_loader(5))
    assert calls == [(retain.dataset, forget.dataset, False)]
