"""The loss is a slope, its noised side is constant, and only forget pictures are read."""

import pytest
import torch
from torch.utils.data import DataLoader

from tests.helpers.entries import Faces, OneLayer, classes, given_net, load


def test_roughness_of_a_linear_net_by_hand():
    """|50 W n| / |n| for every picture, whatever the picture is, for noise in units of 50."""
    net, images, noise = OneLayer(), torch.rand(4, 3, 2, 2), torch.randn(4, 3, 2, 2)
    flat = noise.flatten(1)
    expected = ((50 * flat / 255) @ net.fc.weight.T).norm(dim=1) / flat.norm(dim=1)
    found = load("jit").roughness(net, images, noise, 50)
    assert found.item() == pytest.approx(expected.sum().item(), rel=1e-3)


def test_gradient_goes_through_the_clean_picture_alone():
    """The sum of d / |d| / |n| for d = -W n: nothing by both sides, the opposite by the other."""
    net, noise = OneLayer(), 10 * torch.randn(4, 3, 2, 2)
    loss = load("jit").roughness(net, 255 * torch.rand(4, 3, 2, 2), noise, 1)
    (found,) = torch.autograd.grad(loss, net.fc.bias)
    flat = noise.flatten(1)
    moved = -(flat / 255) @ net.fc.weight.detach().T
    expected = (moved / moved.norm(dim=1, keepdim=True) / flat.norm(dim=1, keepdim=True)).sum(dim=0)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)


def test_forget_pictures_become_smoother_and_no_other_is_read():
    entry, net, faces = load("jit", FLATTEN_LR=3e-5, PASSES=5, COPIES=4), given_net(3), Faces(classes(6, 3))
    noises, unit = 0.1 * torch.randn(10, *faces.images.shape), faces.images.std()

    @torch.no_grad()
    def rough():
        return sum(entry.roughness(net, faces.images, noise, unit).item() for noise in noises)

    before = rough()
    entry.unlearning(net, None, DataLoader(faces, batch_size=6), None)
    assert rough() < before


def test_noise_is_measured_by_the_pictures_own_spread(monkeypatch):
    entry, seen = load("jit", COPIES=2), []

    def roughness(net, images, noise, unit):
        seen.append((noise, unit))
        return net.fc.bias.sum()

    monkeypatch.setattr(entry, "roughness", roughness)
    faces = Faces(classes(6, 3))
    entry.unlearning(given_net(3), None, DataLoader(faces, batch_size=6), None)
    assert [unit.item() for _, unit in seen] == [faces.images.std().item()] * 2
    assert all(0.09 < noise.std() < 0.11 for noise, _ in seen)


def test_pictures_of_one_colour_are_noised_too():
    entry, net, faces = load("jit"), given_net(3), Faces(classes(4, 3))
    faces.images[:] = 100.0
    entry.unlearning(net, None, DataLoader(faces, batch_size=4), None)
    assert all(tensor.isfinite().all() for tensor in net.state_dict().values())
