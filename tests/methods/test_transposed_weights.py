"""Every kernel is transposed, and nothing else changes before training."""

import torch
from torch import nn

from tests.helpers.entries import equal, given_net, load, states


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
