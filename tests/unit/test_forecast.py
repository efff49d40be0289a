from dataclasses import replace

import numpy as np
import pytest

from local_scorer.metric.score import final_score
from local_scorer.statistics.forecast import expected_quality, fit, forecast
from studies.simulated import Case, ForgetSet, model_set


def evaluation(n_models, n_examples=30, seed=0, **case):
    generator = np.random.default_rng(seed)
    examples = ForgetSet.drawn(Case("a case", **case), n_examples, generator)
    return examples.evaluation(n_models, generator)


def sets(n_models, **options):
    generator = np.random.default_rng(1)
    return tuple(model_set(c, generator) for c in evaluation(n_models, **options))


def test_too_few_models_are_refused_and_enough_are_no_forecast():
    assert forecast(*sets(31)) is None
    assert forecast(*sets(64), n_models=64) is None
    assert forecast(*sets(32), n_models=64).from_models == 32


def test_forecast_is_deterministic_and_inside_its_interval():
    unlearned, retrained = sets(32)
    made = forecast(unlearned, retrained, n_models=64)
    assert forecast(unlearned, retrained, n_models=64) == made
    assert 0 <= made.quality_low < made.quality < made.quality_high
    ratio = final_score(unlearned, retrained).retain_ratio * final_score(unlearned, retrained).test_ratio
    assert made.score == pytest.approx(made.quality * ratio)


def test_luck_is_shrunk_away_and_a_shift_is_not():
    """Perfect unlearning of independent models: sample means differ by 0.35 sd at N=16, laws by far less."""
    generator = np.random.default_rng(0)
    unlearned, retrained = generator.normal(size=(2, 16, 300))
    perfect, shifted = fit(unlearned, retrained), fit(unlearned + 2, retrained)
    raw = (unlearned.mean(axis=0) - retrained.mean(axis=0)) / retrained.std(axis=0, ddof=1)
    believed = np.sqrt(np.mean(perfect.shift**2 + perfect.shift_error**2))
    assert np.sqrt(np.mean(raw**2)) > 0.3
    assert believed < 0.2
    assert shifted.shift.mean() == pytest.approx(2, abs=0.1)


def test_real_differences_between_examples_are_kept():
    generator = np.random.default_rng(0)
    unlearned, retrained = generator.normal(size=(2, 64, 200))
    shift, spread = generator.normal(size=200), np.exp(generator.normal(0, 0.7, 200))
    laws = fit(shift + spread * unlearned, retrained)
    assert np.mean(laws.shift**2 + laws.shift_error**2) == pytest.approx(np.mean(shift**2), rel=0.2)
    assert np.corrcoef(laws.shift, shift)[0, 1] > 0.95
    assert np.corrcoef(laws.log_spread, np.log(spread))[0, 1] > 0.9


def test_a_forecast_at_nearly_the_same_number_is_near_what_was_measured():
    unlearned, retrained = sets(64, n_examples=60, shift=1.0)
    made = forecast(unlearned, retrained, n_models=65)
    assert made.quality == pytest.approx(final_score(unlearned, retrained).forgetting_quality, rel=0.35)


def test_examples_without_a_law_earn_nothing():
    unlearned, retrained = evaluation(64, n_examples=20)
    unlearned[:, :10] = 1.0
    laws = fit(unlearned, retrained)
    assert laws.lost == 0.5
    assert len(laws.centre) == 10
    generator = np.random.default_rng
    all_kept = replace(laws, lost=0.0)
    half, whole = (expected_quality(each, 64, generator(0))[0] for each in (laws, all_kept))
    assert half == pytest.approx(whole / 2)
    assert expected_quality(fit(np.full((8, 3), np.nan), np.ones((8, 3))), 64, generator(0)) == (0.0, 0.0)


def test_one_forget_example_has_a_forecast_with_ends():
    made = forecast(*sets(32, n_examples=1), n_models=64)
    assert np.isfinite([made.score, made.score_low, made.score_high]).all()


def test_errors_are_sentences():
    with pytest.raises(ValueError, match=r"^Laws are fitted to confidences .* at least 4 models; found"):
        fit(np.ones((3, 2)), np.ones((3, 2)))
