"""The mean over originals: by hand, by invariances, and by how often its interval holds the truth."""

import doctest

import numpy as np
import pytest

from local_scorer.statistics import originals
from local_scorer.statistics.originals import mean_over_originals, moves_with_retrained, told_apart
from tests.helpers.runs import model_set


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


def test_the_draw_of_retrained_models_by_hand():
    """Two groups, one a tenth above their mean, one below: r^2 = 1/2 x 2 x 0.01, beside no spread of originals."""
    found = mean_over_originals([0.05, 0.05], 50, moves=[0.1, -0.1])
    assert (found.low, found.high) == pytest.approx((0.05 / np.exp(0.196), 0.05 * np.exp(0.196)), rel=1e-4)


def test_what_moves_two_entries_alike_does_not_hide_their_order():
    first, second = np.array([0.06, 0.061, 0.059]), np.array([0.03, 0.031, 0.029])
    moves = np.array([0.3, -0.3])
    assert told_apart(first, second, moves=(moves, moves))
    assert not told_apart(first, second, moves=(moves, -moves))


def test_moves_are_shares_of_the_scores_without_each_group():
    """Of 16 retrained models in groups of two, the first two are alone in being like the unlearned ones."""
    random = np.random.default_rng(0)
    near, far = random.normal(0, 1, (2, 2)), random.normal(3, 1, (14, 2))
    unlearned, retrained = (model_set(values) for values in (random.normal(0, 1, (8, 2)), np.vstack([near, far])))
    moves = moves_with_retrained([unlearned], retrained)
    assert len(moves) == 8
    assert moves.mean() == pytest.approx(0)
    assert moves.argmin() == 0
    assert (moves_with_retrained([unlearned], retrained.part(0, 1)) == 0).all()
