"""For a linear model the loss is that of retraining, and the memory is what the original doubts."""

import pytest
import torch
from torch.nn import functional

from tests.helpers.entries import OneLayer, load, small_faces


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
    retain, forget = (torch.utils.data.Subset(faces, rows) for rows in (range(9), range(9, 12)))
    load("k_priors", MEMORY=1.0, LR=0.01, BATCH=9, EPOCHS=20, PRIOR=1e-3).adapt(net, retain, forget)
    after = [part.mean().item() for part in losses()]
    assert after[1] > 2 * before[1]
    assert after[0] == pytest.approx(before[0], abs=0.3 * (after[1] - before[1]))
