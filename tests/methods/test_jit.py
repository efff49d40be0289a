"""The loss is a slope, its noised side is constant, and only forget pictures are read."""

import pytest
import torch
from torch.utils.data import DataLoader

from tests.helpers.entries import Faces, OneLayer, classes, given_net, load


def test_roughness_of_a_linear_net_by_hand():
    """|W n| / |n| for every picture, whatever the picture is."""
    net, images, noise = OneLayer(), torch.rand(4, 3, 2, 2), torch.randn(4, 3, 2, 2)
    flat = noise.flatten(1)
    expected = ((flat / 255) @ net.fc.weight.T).norm(dim=1) / flat.norm(dim=1)
    found = load("jit").roughness(net, images, noise)
    assert found.item() == pytest.approx(expected.mean().item(), rel=1e-3)


def test_gradient_goes_through_the_clean_picture_alone():
    """The mean of d / |d| / |n| for d = -W n: nothing by both sides, the opposite by the other."""
    net, noise = OneLayer(), 10 * torch.randn(4, 3, 2, 2)
    loss = load("jit").roughness(net, 255 * torch.rand(4, 3, 2, 2), noise)
    (found,) = torch.autograd.grad(loss, net.fc.bias)
    flat = noise.flatten(1)
    moved = -(flat / 255) @ net.fc.weight.detach().T
    expected = (moved / moved.norm(dim=1, keepdim=True) / flat.norm(dim=1, keepdim=True)).mean(dim=0)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)


def test_forget_pictures_become_smoother_and_no_other_is_read():
    entry, net, faces = load("jit", FLATTEN_LR=1e-2, PASSES=5), given_net(3), Faces(classes(6, 3))
    noise = 6 * torch.randn_like(faces.images)
    before = entry.roughness(net, faces.images, noise).item()
    entry.unlearning(net, None, DataLoader(faces, batch_size=6), None)
    assert entry.roughness(net, faces.images, noise).item() < before
