import doctest
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from local_scorer.statistics import audits
from local_scorer.statistics.audits import Behaviour, behaviour, distance, rate_upper, supported_epsilon
from tests.helpers.runs import logits_of, model_set


def models_of(*pairs):
    """Return models whose two-class logits give the true class, 0, these leads in forget and test pictures."""
    forget, test = (np.stack([np.asarray(pair[side], float) for pair in pairs]) for side in (0, 1))
    labels = [np.zeros(side.shape[1], dtype=np.int64) for side in (forget, test)]
    return replace(model_set(forget, labels[0]), test_logits=logits_of(test, labels[1]), test_labels=labels[1])


def test_doctests():
    result = doctest.testmod(audits)
    assert result.attempted >= 2
    assert result.failed == 0


def test_an_attack_that_always_finds_forget_pictures():
    """Forget pictures all known (loss 0), test pictures all wrong: NoMUS = (0 + 1 - 2 x 1/2) / 2 = 0."""
    model = models_of((np.full(20, 9.0), np.full(40, -9.0)))
    assert behaviour(model) == Behaviour(forget_accuracy=1.0, attack_accuracy=1.0, nomus=0.0, n_models=1)


def test_an_attack_that_finds_nothing_in_equal_losses():
    """All alike: one answer for all is right for half; NoMUS = (1 + 1 - 0) / 2 = 1."""
    model = models_of((np.full(20, 9.0), np.full(20, 9.0)))
    assert behaviour(model) == Behaviour(1.0, 0.5, 1.0, 1)


def test_the_attack_needs_no_particular_direction():
    lead = np.linspace(-2, 2, 30)
    forgotten = behaviour(models_of((lead - 9, lead)))
    remembered = behaviour(models_of((lead + 9, lead)))
    assert forgotten.attack_accuracy >= 0.9
    assert remembered.attack_accuracy >= 0.9


def test_mean_over_models_and_their_limit():
    models = models_of((np.full(20, 9.0), np.full(20, 9.0)), (np.full(20, -9.0), np.full(20, 9.0)))
    assert behaviour(models).forget_accuracy == 0.5
    assert behaviour(models).n_models == 2
    assert behaviour(models, most_models=1).forget_accuracy == 1.0


def test_losses_that_are_not_finite_count_as_large():
    assert np.isfinite(behaviour(models_of(([np.nan] * 10 + [np.inf] * 10, np.zeros(20)))).attack_accuracy)


@pytest.mark.parametrize("gap", [0.0, 0.5, 5.0])
def test_logistic_regression_equals_that_of_scikit_learn(gap):
    generator = np.random.default_rng(0)
    labels = np.repeat((0.0, 1.0), 50)
    values = generator.exponential(2, 100) + gap * labels
    slope, intercept = audits._logistic_regressions(values[None], labels[None])
    expected = LogisticRegression(tol=1e-8).fit(values[:, None], labels)
    assert slope[0] == pytest.approx(expected.coef_[0, 0], abs=1e-3)
    assert intercept[0] == pytest.approx(expected.intercept_[0], abs=1e-3)


def test_distance_by_hand():
    """Retrained 0, 1, 2: sd 1. Unlearned 2, 4, 6: mean 3 higher, sd 2."""
    found = distance(np.array([[2.0], [4.0], [6.0]]), np.array([[0.0], [1.0], [2.0]]))
    assert (found.median_shift, found.mean_absolute_shift, found.median_spread) == (3.0, 3.0, 2.0)
    assert (found.n_models, found.n_examples) == (3, 1)
    assert found.largest_supported_epsilon == pytest.approx(0.0)  # 1 - 0.05 ** (1 / 3) is above one half


def test_shifts_of_both_signs_cancel_in_one_number_only():
    retrained = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])
    found = distance(retrained + np.array([1, -1]), retrained)
    assert found.median_shift == pytest.approx(0)
    assert found.mean_absolute_shift == pytest.approx(1)


def test_distance_does_not_depend_on_the_scale_of_an_example():
    generator = np.random.default_rng(0)
    unlearned, retrained = generator.normal(size=(2, 8, 5))
    scale = np.array([1, 2, 4, 1, 1])
    one, other = distance(unlearned, retrained), distance(unlearned * scale, retrained * scale)
    assert (one.median_shift, one.median_spread) == pytest.approx((other.median_shift, other.median_spread))


def test_examples_that_are_not_finite_are_left_out_and_counted():
    retrained = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])
    broken = retrained.copy()
    broken[0, 1] = np.nan
    assert distance(broken, retrained).n_examples == 1
    with pytest.raises(ValueError, match=r"^No forget example has finite confidences"):
        distance(np.full((3, 2), np.inf), retrained)


def test_where_the_rules_name_no_attack_the_narrower_range_is_one():
    """Copies of one model, at 1: one of three others lies there too. Disjoint samples: an attack without error."""
    found = distance(np.ones((64, 1)), np.arange(64.0)[:, None])
    assert found.median_spread == 0
    assert found.supported_epsilon == supported_epsilon(1, 64, 0, 64) > 2
    found = distance(np.ones((64, 1)), np.full((64, 1), 5.0))
    assert found.supported_epsilon == found.largest_supported_epsilon


@pytest.mark.parametrize(
    ("errors", "n", "expected"),
    [(0, 512, 1 - 0.05 ** (1 / 512)), (9, 10, 0.95 ** (1 / 10)), (10, 10, 1.0), (1, 10, 0.39416)],
)
def test_rate_upper_by_hand(errors, n, expected):
    """None of n: 1 - 0.05^(1/n). n - 1 of n: 1 - p^n = 0.05. 1 of 10: Clopper and Pearson's table."""
    assert rate_upper(errors, n) == pytest.approx(expected, abs=1e-5)


def test_a_bound_holds_in_95_percent_of_samples():
    errors = np.random.default_rng(0).binomial(20, 0.2, size=4000)
    bounds = np.array([rate_upper(k, 20) for k in range(21)])
    assert 0.95 <= np.mean(bounds[errors] >= 0.2) < 0.99


def test_errors_support_less_than_none():
    assert supported_epsilon(0, 64, 0, 64) > supported_epsilon(1, 64, 0, 64) > supported_epsilon(1, 64, 30, 64)
    assert supported_epsilon(10, 10, 10, 10) == 0.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rate_upper(3, 2), r"^Of n errors among at least 1 try, 0 to n can be wrong; found 3 of 2.$"),
        (lambda: behaviour(model_set(np.empty((0, 2)))), r"^An audit needs at least one model; found none.$"),
        (lambda: behaviour(models_of(([1.0] * 9, [1.0] * 20))), r"^The membership attack needs 10 .*; found 9.$"),
        (lambda: distance(np.ones((1, 2)), np.ones((1, 2))), r"^Confidences must be .* at least 2 models"),
    ],
)
def test_errors_are_sentences(call, message):
    with pytest.raises(ValueError, match=message):
        call()
