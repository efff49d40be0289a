"""Shift, spread and KLoM by hand."""

import doctest
import math
from dataclasses import replace

import numpy as np
import pytest

from local_scorer.statistics import klom, shift
from local_scorer.statistics.klom import klom_of
from local_scorer.statistics.shift import shift_and_spread, something_to_forget
from tests.helpers.runs import model_set


@pytest.mark.parametrize("each", [shift, klom])
def test_doctests(each):
    found = doctest.testmod(each)
    assert found.attempted >= 2
    assert found.failed == 0


def test_shift_and_spread_by_hand():
    retrained = np.array([[0.0, 1.0, 0.0], [2.0, 1.0, 1.0]])  # sd sqrt(2), 0, sqrt(1/2)
    unlearned = np.array([[3.0, 1.0, np.nan], [3.0, 2.0, 1.0]])
    shift, ratio = shift_and_spread(unlearned, retrained)
    assert shift[0] == pytest.approx(2 / np.sqrt(2))
    assert ratio[0] == 0
    assert np.isnan(shift[1:]).all()
    assert np.isnan(ratio[1:]).all()


def test_something_to_forget_by_hand():
    """First example: mean 1, sd 1, original 3: 2. Second: mean 4, sd 2, original 12: 4. Their median is 3."""
    retrained = model_set([[0.0, 2.0], [1.0, 4.0], [2.0, 6.0]])
    original = model_set([[3.0, 12.0]])
    assert something_to_forget(original, retrained) == pytest.approx(3.0, rel=1e-5)


def test_an_original_like_the_retrained_models_has_nothing_to_forget():
    retrained = model_set([[0.0, 2.0], [1.0, 4.0], [2.0, 6.0]])
    assert something_to_forget(model_set([[1.0, 4.0]]), retrained) == pytest.approx(0, abs=1e-5)


def test_something_to_forget_leaves_out_examples_without_spread():
    """All models agree on the first example, 0 / 0: the second one alone counts."""
    retrained = model_set([[1.0, 2.0], [1.0, 4.0], [1.0, 6.0]])
    assert something_to_forget(model_set([[1.0, 12.0]]), retrained) == pytest.approx(4.0, rel=1e-5)


def test_something_to_forget_is_undefined_if_all_models_are_equal():
    retrained = model_set([[1.0, 2.0]]).repeated(3)
    assert math.isnan(something_to_forget(model_set([[1.0, 2.0]]), retrained))


def test_klom_by_hand():
    """Margins 0 and 10: the first and the last bin. p = 3/4, 1/4 and q = 1/2, 1/2."""
    unlearned, retrained = np.array([[0.0], [0.0], [0.0], [10.0]]), np.array([[0.0], [10.0]])
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert klom.klom(unlearned, retrained).tolist() == pytest.approx([expected])


def test_klom_of_an_empty_bin_is_bounded():
    """All unlearned margins where no retrained one is: ln(1 / 1e-5)."""
    assert klom.klom(np.full((3, 1), 5.0), np.zeros((3, 1))).tolist() == pytest.approx([math.log(1e5)])


def test_klom_clips_margins_at_100():
    assert klom.klom(np.full((2, 1), 103.0), np.full((2, 1), 101.0)).tolist() == [0.0]


def test_klom_does_not_depend_on_the_other_pictures_or_on_the_order_of_models():
    generator = np.random.default_rng(0)
    unlearned, retrained = generator.normal(size=(2, 16, 5))
    together = klom.klom(unlearned, retrained)
    assert together.tolist() == [klom.klom(unlearned[:, [n]], retrained[:, [n]])[0] for n in range(5)]
    np.testing.assert_array_equal(klom.klom(unlearned[::-1], retrained), together)
    assert (together >= 0).all()


def test_klom_of_a_set_has_mean_and_tail_of_each_split():
    retrained = replace(model_set([[0.0, 0.0], [1.0, 1.0]]), retain_confidence=np.array([[0.0, 0.0], [1.0, 1.0]]))
    unlearned = replace(retrained, retain_confidence=np.array([[0.0, 0.0], [1.0, 0.0]]))
    found = klom_of(unlearned, retrained)
    assert (found.forget, found.forget_95, found.n_models) == (0.0, 0.0, 2)
    assert (found.retain, found.retain_95) == pytest.approx((math.log(2) / 2, 0.95 * math.log(2)))
    assert (found.validation, found.validation_95) == (None, None)


def test_klom_leaves_out_pictures_that_are_not_finite():
    retrained = model_set([[0.0, 0.0], [1.0, 1.0]])
    broken = model_set([[0.0, math.nan], [1.0, 0.0]])
    assert klom_of(broken, retrained).forget == 0.0
    assert klom_of(model_set([[math.nan] * 2] * 2), retrained).forget is None
