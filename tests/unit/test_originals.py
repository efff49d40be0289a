"""The mean over originals: by hand, by invariances, and by how often its interval holds the truth."""

import doctest

import numpy as np
import pytest

from local_scorer.statistics import originals
from local_scorer.statistics.originals import mean_over_originals, told_apart


def test_doctests():
    assert doctest.testmod(originals).failed == 0


def test_by_hand():
    """Two scores: standard error 0.01, t of one degree of freedom 12.706: the factor is exp(1.1 x 12.706 / 5)."""
    found = mean_over_originals([0.04, 0.06], 50)
    assert found.mean == pytest.approx(0.05)
    assert found.high == pytest.approx(0.05 * np.exp(1.1 * 12.7062 * 0.2), rel=1e-4)
    assert found.low == pytest.approx(0.05 / np.exp(1.1 * 12.7062 * 0.2), rel=1e-4)


def test_a_factor_on_all_scores_moves_the_ends_by_it():
    one, ten = (mean_over_originals(scores, 50) for scores in ([0.01, 0.02, 0.03], [0.1, 0.2, 0.3]))
    assert (10 * one.low, 10 * one.high) == pytest.approx((ten.low, ten.high))


def test_where_no_original_scores_the_upper_end_is_by_hand():
    """Two originals: 1 - 0.025^(1/2) = 0.84189 of all may score, a point on one of 10 pictures each."""
    found = mean_over_originals([0.0, 0.0], 10)
    assert (found.mean, found.low, found.high) == (0.0, 0.0, pytest.approx(0.084189, abs=1e-6))


@pytest.mark.parametrize("scores", [[0.1], [0.1, np.nan], [0.1, -0.1]])
def test_refuses(scores):
    with pytest.raises(ValueError, match=r"original|score"):
        mean_over_originals(scores, 50)


@pytest.mark.parametrize("n_originals", [4, 8])
@pytest.mark.parametrize(("scoring", "most"), [(1.0, 0.98), (0.6, 0.99), (0.25, 1.0)])
def test_intervals_hold_the_mean_over_originals(n_originals, scoring, most):
    """Scores of a gamma law with a coefficient of variation of 0.6, from that share of the originals."""
    random = np.random.default_rng(0)
    shape = 1 / 0.6**2
    held = 0
    for _ in range(1000):
        scores = random.gamma(shape, 0.01 / shape, n_originals) * (random.random(n_originals) < scoring)
        found = mean_over_originals(scores, 50)
        held += found.low <= 0.01 * scoring <= found.high
    assert 0.925 < held / 1000 < most


def test_pairing_tells_apart_what_moves_together():
    luck = np.array([0.0, 0.02, -0.01, 0.03])
    assert told_apart(0.06 + luck, 0.05 + luck + [0.001, -0.001, 0.001, -0.001])
    assert not told_apart(0.06 + luck, 0.05 - luck)
