"""The share of dampened weights follows from the size of the forget set alone."""

import pytest
import torch
from torch import nn

from tests.helpers.entries import load


def test_share_by_hand():
    """200 of 10,025 pictures: the percentile 98.90; 15 percent: 97.2."""
    entry = load("assd")
    assert 100 - 100 * entry.dampened_share(200, 10_025) == pytest.approx(98.90, abs=0.005)
    assert 100 - 100 * entry.dampened_share(15, 100) == pytest.approx(97.2, abs=0.05)


def test_that_share_of_the_largest_ratios_is_dampened():
    """Half to forget: ln(51) = 3.93 percent, so 40 of 1000 weights, those with the largest I_f / I_D."""
    net = nn.Module()
    net.theta = nn.Parameter(torch.ones(1000))
    forget, retain = 0.5 + torch.arange(1000) / 1000, torch.ones(1000)
    load("assd").dampen(net, [forget], [retain], 50, 50)
    ratio = forget / ((forget + retain) / 2)
    assert (net.theta[:960] == 1).all()
    torch.testing.assert_close(net.theta.detach()[960:], 1 / ratio[960:])


def test_weights_without_a_finite_ratio_are_left_alone():
    net = nn.Module()
    net.theta = nn.Parameter(torch.tensor([1.0, 2.0]))
    load("assd").dampen(net, [torch.zeros(2)], [torch.zeros(2)], 1, 1)
    assert net.theta.tolist() == [1.0, 2.0]
