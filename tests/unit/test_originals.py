"""The mean over originals: by hand, by invariances, and by how often its interval holds the truth."""

import doctest

import numpy as np
import pytest

from local_scorer.statistics import originals
from local_scorer.statistics.originals import mean_over_originals, told_apart


def test_doctests():
    assert doctest.testmod(originals).failed == 0


def test_by_hand():
    """Two scores: standard error 0.01, t of one degree of freedom 12.706, so the factor is exp(12.706 x 0.2)."""
    found = mean_over_originals([0.04, 0.06])
    assert found.mean == pytest.approx(0.05)
    assert found.high == pytest.approx(0.05 * np.exp(12.7062 * 0.2), rel=1e-4)
    assert found.low == pytest.approx(0.05 / np.exp(12.7062 * 0.2), rel=1e-4)


def test_a_factor_on_all_scores_moves_the_ends_by_it():
    one, ten = mean_over_originals([1.0, 2.0, 3.0]), mean_over_originals([10.0, 20.0, 30.0])
    assert (10 * one.low, 10 * one.high) == pytest.approx((ten.low, ten.high))


def test_scores_that_agree_by_chance_are_not_sure_beyond_their_runs():
    assert mean_over_originals([0.05, 0.05, 0.05]).high == pytest.approx(0.05)
    assert mean_over_originals([0.05, 0.05, 0.05], within=[1e-4] * 3).high > 0.055


def test_no_points_at_all():
    assert mean_over_originals([0.0, 0.0]) == originals.Mean(0.0, 0.0, 0.0, 2)


@pytest.mark.parametrize("scores", [[0.1], [0.1, np.nan], [0.1, -0.1]])
def test_refuses(scores):
    with pytest.raises(ValueError, match=r"original|score"):
        mean_over_originals(scores)


@pytest.mark.parametrize("n_originals", [4, 8])
def test_intervals_hold_the_mean_over_originals(n_originals):
    """Scores with the spread of the seeds' experiment: a coefficient of variation of a third."""
    random = np.random.default_rng(0)
    shape = 9.0  # of a gamma law, whose coefficient of variation is 1 / sqrt(shape)
    held = 0
    for _ in range(1000):
        found = mean_over_originals(random.gamma(shape, 0.05 / shape, size=n_originals))
        held += found.low <= 0.05 <= found.high
    assert 0.93 < held / 1000 < 0.98


def test_pairing_tells_apart_what_moves_together():
    luck = np.array([0.0, 0.02, -0.01, 0.03])
    assert told_apart(0.06 + luck, 0.05 + luck + [0.001, -0.001, 0.001, -0.001])
    assert not told_apart(0.06 + luck, 0.05 - luck)
