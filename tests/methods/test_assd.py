"""The share of dampened weights follows from the size of the forget set alone."""

import pytest
import torch
from torch import nn

from tests.helpers.entries import OneLayer, load, small_loader


def test_share_by_hand():
    """200 of 10,025 pictures: the percentile 98.90; 15 percent: 97.2."""
    entry = load("assd")
    assert 100 - 100 * entry.dampened_share(200, 10_025) == pytest.approx(98.90, abs=0.005)
    assert 100 - 100 * entry.dampened_share(15, 100) == pytest.approx(97.2, abs=0.05)


def test_that_share_of_the_largest_ratios_is_dampened():
    """A fifth to forget: ln(21) = 3.04 percent, so 31 of 1000 weights, those with the largest I_f / I_D."""
    net = nn.Module()
    net.theta = nn.Parameter(torch.ones(1000))
    forget, retain = 0.5 + torch.arange(1000) / 1000, torch.ones(1000)
    load("assd").dampen(net, [forget], [retain], 20, 80)
    ratio = forget / (0.2 * forget + 0.8 * retain)
    assert (net.theta[:969] == 1).all()
    torch.testing.assert_close(net.theta.detach()[969:], 1 / ratio[969:])


def test_weights_without_a_finite_ratio_are_left_alone():
    net = nn.Module()
    net.theta = nn.Parameter(torch.tensor([1.0, 2.0]))
    load("assd").dampen(net, [torch.zeros(2)], [torch.zeros(2)], 1, 1)
    assert net.theta.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(("forget", "strength", "left"), [(2.0, 1.0, 0.625), (2.0, 0.5, 0.3125), (0.5, 1.0, 1.0)])
def test_dampening_by_hand(forget, strength, left):
    """One picture against three: I_D = (I_f + 3 I_r) / 4, here 1.25 and 0.875, and nothing is amplified."""
    net = nn.Module()
    net.theta = nn.Parameter(torch.tensor([-1.0]))
    load("assd", LAMBDA=strength).dampen(net, [torch.tensor([forget])], [torch.ones(1)], 1, 3)
    assert net.theta.tolist() == pytest.approx([-left])


def test_importances_of_the_forget_set_are_held_against_those_of_a_retain_sample(monkeypatch):
    entry, steps = load("assd", RETAIN_SAMPLE=7), []
    net, retain, forget = OneLayer(), small_loader(12), small_loader(3)
    monkeypatch.setattr(entry, "importances", lambda net, dataset, n=None: (dataset, n))
    monkeypatch.setattr(entry, "dampen", lambda *given: steps.append(given))
    monkeypatch.setattr(entry, "finetune", lambda net, tail, criterion: steps.append(tail))
    entry.unlearning(net, retain, forget, None)
    assert steps == [(net, (forget.dataset, None), (retain.dataset, 7), 3, 12), retain]
