import doctest
from dataclasses import replace

import numpy as np
import pytest

from local_scorer.metric.score import final_score
from local_scorer.statistics import intervals
from local_scorer.statistics.intervals import intervals_of, redraw, score_intervals
from studies.coverage import Plan, measured
from studies.simulated import CASES, Case, ForgetSet, model_set


def evaluation(n_models=10, n_examples=20, seed=0, **case):
    generator = np.random.default_rng(seed)
    examples = ForgetSet.drawn(Case("a case", **case), n_examples, generator)
    return tuple(model_set(c, generator) for c in examples.evaluation(n_models, generator))


def test_doctests():
    result = doctest.testmod(intervals)
    assert result.attempted >= 1
    assert result.failed == 0


def test_equal_seeds_give_equal_intervals_and_global_seeds_do_not_matter():
    unlearned, retrained = evaluation()
    np.random.seed(0)
    first = score_intervals(unlearned, retrained, seed=3)
    np.random.seed(1)
    assert score_intervals(unlearned, retrained, seed=3) == first
    assert score_intervals(unlearned, retrained, seed=4) != first


def test_intervals_lie_around_what_was_measured():
    unlearned, retrained = evaluation()
    result = final_score(unlearned, retrained)
    found = score_intervals(unlearned, retrained)
    for interval in (found.models, found.examples, found.both):
        assert 0 < interval.quality_low < result.forgetting_quality < interval.quality_high
        assert 0 < interval.score_low < result.score < interval.score_high
        assert interval.score_low * interval.score_high == pytest.approx(result.score**2)
    assert (found.n_models, found.n_examples, found.n_resamples) == (10, 20, 200)


def test_redraws_are_centred_on_what_was_measured():
    redraws = redraw(*evaluation(), resamples=40)
    assert redraws.quality_models.mean() == pytest.approx(redraws.quality)


def test_interval_by_hand():
    """Factor = exp(1.1 t sd / centre): Student's t is 4.3027 at 2 degrees, the sd of 0.1, 0.2, 0.3 is 0.1."""
    spread, none = np.array([0.1, 0.2, 0.3]), np.zeros(3)
    redraws = replace(
        redraw(*evaluation(3), resamples=3), score=0.5, quality=0.2,
        score_models=spread, score_examples=none, score_both=spread,
        quality_models=spread, quality_examples=none, quality_both=spread,
    )  # fmt: skip
    found = intervals_of(redraws)
    assert found.models.score_low == pytest.approx(0.5 / np.exp(0.94658), abs=1e-5)
    assert found.models.score_high == pytest.approx(0.5 * np.exp(0.94658), abs=1e-5)
    assert found.models.quality_low == pytest.approx(0.2 / np.exp(2.36646), abs=1e-5)
    assert (found.examples.score_low, found.examples.score_high) == (0.5, 0.5)


def test_examples_redrawn_spread_as_a_mean_does():
    """Standard deviation of the points over the square root of n; 300 redraws have an error of 4 %."""
    unlearned, retrained = evaluation(n_examples=30)
    points = intervals._points(unlearned.logits[..., 0], retrained.logits[..., 0], "official")
    redraws = redraw(unlearned, retrained, resamples=300)
    assert redraws.quality_examples.std() == pytest.approx(points.std() / np.sqrt(30), rel=0.15)


def test_copies_of_one_model_score_zero_and_would_again():
    unlearned, retrained = evaluation()
    copies = replace(unlearned, logits=np.repeat(unlearned.logits[:1], 10, axis=0))
    found = score_intervals(copies, retrained)
    assert (found.both.score_low, found.both.score_high) == (0.0, 0.0)


def test_confidences_that_are_not_finite_do_not_spread_to_other_examples():
    unlearned, retrained = evaluation()
    broken = unlearned.logits.copy()
    broken[0, 0, 0] = np.nan
    whole, part = redraw(unlearned, retrained), redraw(replace(unlearned, logits=broken), retrained)
    assert 0 < part.quality <= whole.quality
    assert np.isfinite(part.score_both).all()
    assert part.quality_models.std() > 0


def test_accuracies_widen_the_score_and_not_f():
    unlearned, retrained = evaluation()
    noisy = replace(unlearned, test_accuracy=np.linspace(0.05, 0.85, 10))
    still = replace(unlearned, test_accuracy=np.full(10, 0.45))
    wide, narrow = score_intervals(noisy, retrained), score_intervals(still, retrained)
    assert wide.models.quality_low == narrow.models.quality_low
    assert wide.models.score_high - wide.models.score_low > 2 * (
        narrow.models.score_high - narrow.models.score_low
    )


def test_one_forget_example_says_nothing_of_others():
    evaluated = evaluation(n_examples=1)
    found, result = score_intervals(*evaluated), final_score(*evaluated)
    assert found.models.score_high > 0
    for interval in (found.examples, found.both):
        assert (interval.quality_low, interval.quality_high) == (0.0, 1.0)
        assert interval.score_low == 0.0
        assert interval.score_high == pytest.approx(result.retain_ratio * result.test_ratio)


def test_notebook_rules_have_intervals():
    found = score_intervals(*evaluation(n_models=6, n_examples=2), rules="notebook", resamples=3)
    assert found.models.quality_high > found.models.quality_low


def test_a_mixing_keeps_mean_and_covariance_on_average():
    values = np.random.default_rng(0).normal(3, 2, size=(10, 1))
    new = np.concatenate(
        [intervals._mixed(intervals._mixing(10, np.random.default_rng(i)), values) for i in range(2000)]
    )
    assert new.mean() == pytest.approx(values.mean(), abs=0.05)
    of_chosen, of_noise, bandwidth = values.var(), values.var(ddof=1), (4 / 30) ** 0.2
    assert new.var() == pytest.approx((of_chosen + bandwidth**2 * of_noise) / (1 + bandwidth**2), rel=0.05)


def test_a_variance_is_split_into_what_examples_do_alone_and_together():
    """Points a + b: a common to the two examples, b of opposite sign; a has variance 4, b has 1."""
    together, alone = np.array([2.0, 2, -2, -2]), np.array([1.0, -1, 1, -1])
    noise, common = intervals._variances(np.stack([together + alone, together - alone], axis=1), None)
    assert noise == pytest.approx(20 / 3)  # (4 + 1) x 4 / 3
    assert common == pytest.approx(16 / 3 - 20 / 6)


def test_errors_are_sentences():
    unlearned, retrained = evaluation()
    with pytest.raises(ValueError, match=r"^A spread needs at least 2 resamples, found 1.$"):
        redraw(unlearned, retrained, resamples=1)
    with pytest.raises(ValueError, match=r"^The level of an interval lies between 0 and 1, found 95.$"):
        intervals_of(redraw(unlearned, retrained, resamples=2), level=95)


def test_coverage_is_near_nominal():
    """A small version of studies/coverage.py: 30 evaluations, so 95 % has an error of 4 points."""
    cell = measured(CASES[0], Plan(10, 20, 30, 1, 8, 20))
    assert cell.models_quality >= 0.83
    assert cell.both_quality >= 0.83
    assert 0.7 < cell.models_width < 1.6
