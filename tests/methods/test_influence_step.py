"""Woodbury's formula is an inverse, and the step raises the forget loss more than it moves the retain loss."""

import pytest
import torch
from torch import nn

from tests.helpers.entries import OneLayer, load, loss_of, small_faces, small_loader


def test_inverse_by_hand():
    """Against the dense inverse of DAMPING I + mean of g g^T."""
    torch.manual_seed(0)
    gradients, vector = torch.randn(4, 9, dtype=torch.float64), torch.randn(9, dtype=torch.float64)
    dense = 0.1 * torch.eye(9, dtype=torch.float64) + gradients.T @ gradients / 4
    found = load("influence_step", DAMPING=0.1).inverse_times(gradients, vector)
    torch.testing.assert_close(found, torch.linalg.solve(dense, vector))


def test_step_has_its_length_and_direction():
    net = nn.Linear(2, 1, bias=False)
    net.weight.data = torch.tensor([[3.0, 4.0]])
    load("influence_step", STEP=0.1).step_along(net, torch.tensor([0.0, -7.0]))
    assert net.weight.tolist()[0] == pytest.approx([3.0, 3.5])


def test_gradients_of_batches_of_single_pictures_make_up_that_of_the_whole():
    net, faces = OneLayer(), small_faces(5)
    entry = load("influence_step", BATCH=2)
    each, sizes = entry.gradients_of(net, faces, range(5))
    assert sizes == [2, 2, 1]
    whole = entry.flat_gradient(net, faces.images, torch.tensor(faces.labels))
    torch.testing.assert_close(torch.tensor(sizes, dtype=each.dtype) @ each / 5, whole)


def test_step_goes_up_the_forget_loss_and_not_up_the_retain_loss():
    net, faces, entry = OneLayer(), small_faces(12), load("influence_step", BATCH=2, STEP=0.01)
    forget, retain = range(2), range(2, 12)

    def loss(rows):
        images, labels = faces.images[list(rows)], torch.tensor(faces.labels)[list(rows)]
        return nn.functional.cross_entropy(net(images), labels).item()

    curvature, _ = entry.gradients_of(net, faces, retain)
    (gradient,), _ = entry.gradients_of(net, faces, forget)
    before = loss(forget), loss(retain)
    entry.step_along(net, entry.inverse_times(curvature, gradient - curvature.mean(dim=0)))
    assert loss(forget) - before[0] > abs(loss(retain) - before[1])


def test_the_whole_step_by_hand(monkeypatch):
    """From the given weights along F^-1 (forget gradient - retain gradient), F from the one retain batch."""
    net, tails = OneLayer(), []
    start = torch.nn.utils.parameters_to_vector(net.parameters()).detach()

    def gradient(faces):
        loss = loss_of(net, faces)
        return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(net.parameters()))])

    of_forget, of_retain = gradient(small_faces(6)), gradient(small_faces(4))
    curvature = 0.1 * torch.eye(len(start)) + torch.outer(of_retain, of_retain)
    way = torch.linalg.solve(curvature, of_forget - of_retain)
    entry = load("influence_step", BATCH=4, GRADIENTS=1, DAMPING=0.1, STEP=0.5)
    monkeypatch.setattr(entry, "finetune", lambda net, loader, criterion: tails.append(loader))
    entry.unlearning(net, retain := small_loader(4), small_loader(6), small_loader(5))
    found = torch.nn.utils.parameters_to_vector(net.parameters()).detach() - start
    torch.testing.assert_close(found, 0.5 * start.norm() * way / way.norm())
    assert tails == [retain]
