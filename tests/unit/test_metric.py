"""The metric: golden cases, a slow transcription, values worked out by hand, invariances, error texts."""

from __future__ import annotations

import doctest
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from local_scorer import metric
from local_scorer.metric import (
    epsilons,
    forgetting_quality,
    logit_scaled_confidence,
    own_prediction_loss,
    points,
    strongest_attack,
)
from tests.oracles import slow_metric

GOLDEN = Path(__file__).parents[1] / "golden" / "official_metric.npz"
KINDS = ("same", "shift", "scale", "heavy", "bimodal", "separated", "rounded", "float32")
CASES = [f"{kind}_{n}" for n in (10, 32, 64) for kind in KINDS]


def column(*values: float) -> np.ndarray:
    """One example's confidences, ``[n_models, 1]``."""
    return np.array(values, dtype=np.float64)[:, None]


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


class TestAgainstTheReleasedScorer:
    @pytest.mark.parametrize("case", CASES)
    def test_golden(self, case: str):
        with np.load(GOLDEN) as golden:
            unlearned, retrained = golden[f"{case}_unlearned"], golden[f"{case}_retrained"]
            eps = epsilons(unlearned, retrained)
            np.testing.assert_allclose(eps, golden[f"{case}_epsilon"], rtol=0, atol=1e-6)
            assert abs(forgetting_quality(eps, n_models=len(unlearned)) - golden[f"{case}_score"]) <= 1e-9

    @pytest.mark.parametrize("n_models", [3, 4, 9, 30])
    @pytest.mark.parametrize("decimals", [1, 2, 15])
    def test_equals_transcription(self, n_models: int, decimals: int):
        generator = np.random.default_rng([n_models, decimals])
        scale = np.array([0.02, 0.3, 1.0, 5.0])  # below, near and above the step of the grid
        unlearned = (generator.normal(size=(n_models, 4)) * scale + generator.choice([0, 0.5, 90], 4)).round(
            decimals
        )
        retrained = (generator.normal(size=(n_models, 4)) * scale * 0.7 + unlearned[0]).round(decimals)
        eps, slow = epsilons(unlearned, retrained), slow_metric.official_epsilons(unlearned, retrained)
        counted = ~np.isnan(slow)
        assert counted.any()
        np.testing.assert_array_equal(eps[counted], slow[counted])

    def test_unequal_numbers_of_models_equal_transcription(self):
        unlearned, retrained = normal(7, 3), normal(12, 3, seed=1)
        np.testing.assert_array_equal(
            epsilons(unlearned, retrained), slow_metric.official_epsilons(unlearned, retrained)
        )

    def test_forgetting_quality_equals_transcription(self):
        eps = np.append(np.linspace(0, 8, 33), 50.0)
        for n_models in (2, 3, 10, 64, 512, 2048):
            assert forgetting_quality(eps, n_models) == slow_metric.official_forgetting_quality(eps, n_models)

    @pytest.mark.parametrize(
        ("unlearned", "retrained"),
        [
            ([-1.357, -0.827, 0.225, 0.427, 1.871], [-0.599, 0.43, 1.028, 1.427, 2.118]),
            ([-5.623, -3.399, -3.26, 0.852, 4.516], [-5.922, -3.975, -3.406, -2.756, 6.379]),
        ],
    )
    def test_the_401st_right_end(self, unlearned: list[float], retrained: list[float]):
        # Rounding makes 401 right ends of these; with 400 the strongest attack would be missed: 1.0986.
        eps = epsilons(column(*unlearned), column(*retrained))
        assert eps[0] == slow_metric.official_epsilon(np.array(unlearned), np.array(retrained))
        assert eps[0] == pytest.approx(math.log(4 - 5e-5), abs=1e-6)

    def test_threshold_grid_is_that_of_torch(self):
        low, high = -3.21, 4.56
        grid = slow_metric.linspace32(low, high, 777)
        expected = torch.linspace(low, high, 777)
        # Whether torch fuses the multiplication and the addition depends on the processor: one rounding.
        np.testing.assert_allclose(grid, expected.numpy(), rtol=0, atol=5e-7)
        assert grid[0] == expected[0]
        assert grid[-1] == expected[-1]


class TestByHand:
    def test_threshold_with_three_models(self):
        # Retrained has the higher median. For t in (1.5, 2] one of three unlearned values is at or above t,
        # and one of three retrained values below it: fpr = fnr = 1/3, epsilon = ln((2/3 - delta) / (1/3)).
        # No attack can do better: every other kept pair of rates has a larger one.
        eps = epsilons(column(0, 1, 2), column(1.5, 2.5, 3.5))
        assert eps[0] == pytest.approx(math.log(2 - 3e-5), abs=1e-6)
        assert points(eps, n_models=3)[0] == 0.5

    def test_threshold_with_four_models(self):
        # t in (2.5, 3]: fpr = 1/4 (the 3), fnr = 1/4 (the 2.5): the largest finite epsilon with four models.
        eps = epsilons(column(0, 1, 2, 3), column(2.5, 10, 11, 12))
        assert eps[0] == pytest.approx(math.log(3 - 4e-5), abs=1e-6)
        assert points(eps, n_models=4)[0] == 0.25  # [1.0, 1.5), and the steps end at ceil(ln 3) = 2

    def test_interval_beats_thresholds(self):
        # Unlearned is narrower. [l, r] with 0.5 < l <= 4.8 and 9.5 <= r < 9.6 holds three of its four values
        # and one of four retrained ones: ln 3. Thresholds reach ln 2: fnr = 1/4, fpr = 1/2 for t in (4.8, 5].
        unlearned, retrained = np.array([4.8, 5.0, 5.2, 9.6]), np.array([0.0, 0.5, 9.5, 10.0])
        attack = strongest_attack(unlearned, retrained)
        assert (attack.kind, attack.positive, attack.fpr, attack.fnr) == ("interval", "unlearned", 0.25, 0.25)
        assert attack.epsilon == pytest.approx(math.log(3 - 4e-5), abs=1e-6)
        assert 0.5 < attack.low <= 4.8
        assert 9.5 <= attack.high < 9.6

    def test_interval_separates_what_no_threshold_does(self):
        attack = strongest_attack(np.array([4.9, 5.0, 5.1]), np.array([0.0, 0.1, 9.9]))
        assert (attack.epsilon, attack.kind, attack.fpr, attack.fnr) == (50.0, "interval", 0.0, 0.0)

    def test_threshold_beats_intervals(self):
        # Retrained has the higher median; t in (4, 5]: fpr = 1/4 (the 9), fnr = 1/4 (the 4). An interval with
        # these rates would have to end between 4 and 5, but right ends begin 2 below unlearned's maximum: 7.
        attack = strongest_attack(np.array([1.0, 2.0, 4.0, 9.0]), np.array([4.0, 5.0, 14.0, 17.0]))
        assert (attack.kind, attack.positive, attack.fpr, attack.fnr) == (
            "threshold",
            "retrained",
            0.25,
            0.25,
        )
        assert 4.0 < attack.low <= 5.0
        assert attack.high == math.inf

    def test_thresholds_are_rounded_to_float32(self):
        # Both samples lie on the rounded thresholds themselves. The unrounded ones miss the gap between 2896
        # and 2897, where fpr = fnr = 1/3, and all else gives 0.
        grid = slow_metric.linspace32(0.0, 55.3, 5530).astype(np.float64)
        attack = strongest_attack(grid[[0, 2897, 3506]], grid[[2895, 2896, 5529]])
        assert (attack.kind, attack.low) == ("threshold", grid[2897])
        assert attack.epsilon == pytest.approx(math.log(2 - 3e-5), abs=1e-6)

    def test_equal_medians_make_unlearned_positive(self):
        # Both medians are 34. With a as unlearned, t in (29, 32] has fpr = 1/2 and fnr = 1/4: ln 2. With b as
        # unlearned the same threshold has fpr = 3/4 and fnr = 1/2, and no attack gets above 0.
        a, b = column(9, 32, 36, 36), column(25, 29, 39, 47)
        assert epsilons(a, b)[0] == pytest.approx(math.log(2 - 4e-5), abs=1e-5)
        assert epsilons(b, a)[0] == 0.0

    def test_right_end_is_included(self):
        # Unlearned is narrower and its maximum is 2, so the first right end is 0, the next above 0.01. Only
        # r = 0 holds three unlearned values and one retrained: ln 3; all other attacks reach ln 2 at most.
        retrained = np.array([-30.005, -0.7, 0.001, 0.002])
        attack = strongest_attack(np.array([-1.0, -0.5, 0.0, 2.0]), retrained)
        assert (attack.high, attack.fpr, attack.fnr) == (0.0, 0.25, 0.25)
        assert attack.epsilon == pytest.approx(math.log(3 - 4e-5), abs=1e-6)
        missed = strongest_attack(np.array([-1.0, -0.5, 1e-9, 2.0]), retrained)
        assert missed.epsilon == pytest.approx(math.log(2 - 4e-5), abs=1e-5)

    def test_notebook_thresholds_with_three_models(self):
        # Too few for the regression. "Unlearned" above t = 1: fnr = 1/3 (the 1), fpr = 1/3 (the 1.5).
        eps = epsilons(column(1, 2, 3), column(-1, 0, 1.5), rules="notebook")
        assert eps[0] == pytest.approx(math.log((1 - 0.01 - 1 / 3) * 3), abs=1e-12)

    def test_peaked_unlearned_earns_nothing_officially(self):
        spread = np.linspace(-1, 1, 10)
        eps = epsilons(spread[:, None] * 0.0099, spread[:, None])
        assert eps.tolist() == [50.0]
        assert strongest_attack(spread, spread * 0.0099).kind == "spread"
        assert strongest_attack(spread, spread * 0.0101).kind == "interval"


class TestInvariances:
    def test_identical_multisets_have_epsilon_zero(self):
        unlearned = normal(12, 5)
        assert epsilons(unlearned, unlearned[::-1]).tolist() == [0.0] * 5
        assert forgetting_quality(np.zeros(5), n_models=12) == 1.0

    def test_separated_samples_have_epsilon_50(self):
        unlearned = normal(12, 5)
        assert epsilons(unlearned, unlearned + 10).tolist() == [50.0] * 5
        assert epsilons(unlearned + 10, unlearned).tolist() == [50.0] * 5

    @pytest.mark.parametrize("rules", ["official", "notebook"])
    def test_examples_are_independent(self, rules: str):
        unlearned, retrained = normal(11, 300), normal(11, 300, seed=1)
        if rules == "notebook":
            unlearned, retrained = unlearned[:, :10], retrained[:, :10]
        order = np.random.default_rng(2).permutation(unlearned.shape[1])
        eps = epsilons(unlearned, retrained, rules)
        np.testing.assert_array_equal(epsilons(unlearned[:, order], retrained[:, order], rules), eps[order])
        np.testing.assert_array_equal(epsilons(unlearned[:, 3:4], retrained[:, 3:4], rules), eps[3:4])

    def test_order_of_models_does_not_matter_officially(self):
        unlearned, retrained = normal(11, 6), normal(9, 6, seed=1)
        generator = np.random.default_rng(2)
        np.testing.assert_array_equal(
            epsilons(generator.permutation(unlearned), generator.permutation(retrained)),
            epsilons(unlearned, retrained),
        )

    def test_official_rules_are_symmetric_without_ties(self):
        unlearned, retrained = normal(11, 20), normal(9, 20, seed=1) * 1.5 + 0.2
        np.testing.assert_array_equal(epsilons(unlearned, retrained), epsilons(retrained, unlearned))

    def test_strongest_attack_is_the_epsilon_and_its_rates_give_it(self):
        unlearned, retrained = normal(5, 60) * 8, normal(5, 60, seed=1) * 8 + 4
        kinds = set()
        for u, r, epsilon in zip(unlearned.T, retrained.T, epsilons(unlearned, retrained), strict=True):
            attack = strongest_attack(u, r)
            kinds.add(attack.kind)
            rates = np.float32([attack.fpr]), np.float32([attack.fnr])
            assert attack.epsilon == epsilon
            assert min(slow_metric.rates_to_epsilons(*rates)[0], 50) == pytest.approx(epsilon, abs=1e-5)
        assert kinds == {"interval", "threshold"}

    def test_perfect_unlearning_is_far_from_one(self):
        eps = epsilons(normal(64, 100), normal(64, 100, seed=1))
        assert 0.12 < forgetting_quality(eps, n_models=64) < 0.28

    def test_points_halve_with_every_step_and_end(self):
        eps = np.array([0.0, 0.499, 0.5, 1.0, 1.5, 2.0, 2.5, 2.999, 3.0, 50.0])
        expected = [1.0, 1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125, 0.03125, 0.0, 0.0]
        assert points(eps, n_models=10).tolist() == expected  # ceil(ln 9) = 3: six steps

    def test_notebook_points_end_in_an_open_bin(self):
        assert points(np.array([5.9, 6.0, math.inf]), rules="notebook").tolist() == [
            2.0**-11,
            2.0**-12,
            2.0**-12,
        ]


class TestWhereThePublishedCodeStops:
    def test_two_models_earn_nothing(self):
        eps = epsilons(normal(2, 4), normal(2, 4, seed=1))
        assert forgetting_quality(eps, n_models=2) == 0.0

    def test_both_constant_and_equal(self):
        assert strongest_attack(np.full(5, 1.1), np.full(5, 1.1)).kind == "none"
        assert epsilons(np.full((5, 1), 1.1), np.full((5, 1), 1.1)).tolist() == [0.0]

    @pytest.mark.parametrize("distance", [1e-6, 0.004, 0.5, 30.0])
    def test_both_constant_and_different(self, distance: float):
        assert epsilons(np.full((5, 1), 1.1), np.full((5, 1), 1.1 + distance)).tolist() == [50.0]

    def test_one_constant(self):
        assert epsilons(np.zeros((5, 1)), normal(5, 1)).tolist() == [50.0]
        assert epsilons(normal(5, 1), np.zeros((5, 1))).tolist() == [50.0]

    def test_no_threshold_kept(self):
        # All values lie between two points of the interval grid, and the one threshold is their minimum, 0.
        overlapping = np.array([0.0, 1e-5, 2e-5]), np.array([5e-6, 1.5e-5, 3e-5])
        assert math.isnan(slow_metric.official_epsilon(*overlapping))
        assert strongest_attack(*overlapping).kind == "none"
        assert epsilons(overlapping[0][:, None], overlapping[1][:, None]).tolist() == [0.0]
        disjoint = np.array([0.0, 1e-5, 2e-5]), np.array([3e-5, 4e-5, 5e-5])
        assert math.isnan(slow_metric.official_epsilon(*disjoint))
        assert strongest_attack(*disjoint).kind == "disjoint"
        assert epsilons(disjoint[0][:, None], disjoint[1][:, None]).tolist() == [50.0]

    def test_exactly_one_threshold_kept(self):
        # float32(1.1) > 1.1, so the only threshold splits off the minimum: fpr = 2/3, fnr = 1/3, epsilon 0.
        attack = strongest_attack(np.array([1.1, 1.105, 1.106]), np.array([1.1, 1.104, 1.104]))
        assert (attack.epsilon, attack.kind, attack.low) == (0.0, "threshold", float(np.float32(1.1)))

    @pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
    def test_one_broken_confidence_costs_the_example_and_no_other(self, broken: float):
        unlearned, retrained = normal(8, 3), normal(8, 3, seed=1)
        whole = epsilons(unlearned, retrained)
        unlearned[2, 1] = broken
        eps = epsilons(unlearned, retrained)
        assert eps.tolist() == [whole[0], 50.0, whole[2]]
        assert points(eps, n_models=8)[1] == 0.0
        assert strongest_attack(unlearned[:, 1], retrained[:, 1]).kind == "nonfinite"
        assert epsilons(unlearned, retrained, rules="notebook")[1] == math.inf

    def test_no_examples(self):
        assert epsilons(np.empty((3, 0)), np.empty((3, 0))).shape == (0,)


class TestNotebookRules:
    @pytest.mark.parametrize("n_models", [6, 10, 40])
    def test_equals_transcription(self, n_models: int):
        unlearned = np.abs(normal(n_models, 4)) + np.array([0, 0.5, -1, 8])
        retrained = np.abs(normal(n_models, 4, seed=1))
        slow = [slow_metric.notebook_epsilon(u, r) for u, r in zip(unlearned.T, retrained.T, strict=True)]
        np.testing.assert_allclose(epsilons(unlearned, retrained, rules="notebook"), slow, rtol=1e-12)

    def test_perfect_separation_in_either_direction_is_infinite(self):
        low, high = column(0, 0.1, 0.2), column(1, 1.1, 1.2)
        assert epsilons(high, low, rules="notebook").tolist() == [math.inf]
        # Every answer of the threshold 0.2 is wrong, which gives both away just as well.
        assert epsilons(low, high, rules="notebook").tolist() == [math.inf]

    def test_thresholds_are_blind_to_losses_below_those_of_retrained(self):
        # The mirror image of a pair with epsilon ln 2: thresholds only look for unlearned above retrained.
        assert epsilons(column(0, 1, 2), column(1.5, 2.5, 3.5), rules="notebook").tolist() == [0.0]

    def test_very_unequal_numbers_of_models_leave_the_thresholds(self):
        eps = epsilons(normal(2, 2), normal(9, 2, seed=1), rules="notebook")
        assert np.isfinite(eps).all()

    def test_constant_unlearned_can_look_perfect(self):
        retrained = np.linspace(0, 1, 11)[:, None]
        assert epsilons(np.full((11, 1), 0.5), retrained, rules="notebook")[0] < 1.0
        assert epsilons(np.full((11, 1), 0.5), retrained)[0] == 50.0


class TestConfidence:
    def test_saturates_at_the_guard(self):
        logits = np.array([[200.0, 0.0]])
        targets = np.array([0])
        single = logits.astype(np.float32)
        assert logit_scaled_confidence(single, targets)[0] == pytest.approx(103.616, abs=1e-3)
        assert logit_scaled_confidence(-single, targets)[0] == pytest.approx(-103.616, abs=1e-3)

    def test_wrong_probabilities_are_summed_not_subtracted_from_one(self):
        # 1 - p would be 0 in float64 from a gap of 37 on.
        logits = np.float32([[60.0, 0.0, 0.0]])
        expected = 60 - math.log(2)
        assert logit_scaled_confidence(logits, np.array([0]))[0] == pytest.approx(expected, abs=1e-4)

    def test_half_precision_is_widened(self):
        logits = np.array([[30.0, 0.0]])
        confidence = logit_scaled_confidence(logits.astype(np.float16), np.array([0]))
        assert confidence[0] == pytest.approx(30.0, abs=1e-4)

    def test_shift_of_logits_does_not_matter(self):
        logits, targets = normal(6, 4), np.array([0, 1, 2, 3, 0, 1])
        np.testing.assert_allclose(
            logit_scaled_confidence(logits + 500, targets),
            logit_scaled_confidence(logits, targets),
            atol=1e-9,
        )

    def test_stacked_models_equal_single_ones(self):
        logits, targets = normal(3, 6, 4), np.array([0, 1, 2, 3, 0, 1])
        for function in (lambda x: logit_scaled_confidence(x, targets), own_prediction_loss):
            np.testing.assert_array_equal(function(logits), np.stack([function(model) for model in logits]))

    def test_input_is_not_modified_and_output_is_float64(self):
        logits = normal(5, 3).astype(np.float32)
        logits[1] = np.nan
        before = logits.copy()
        confidence = logit_scaled_confidence(logits, np.zeros(5, dtype=np.int64))
        loss = own_prediction_loss(logits)
        np.testing.assert_array_equal(logits, before)
        assert confidence.dtype == loss.dtype == np.float64

    def test_own_prediction_loss_is_that_of_torch(self):
        logits = normal(20, 8).astype(np.float32)
        tensor = torch.from_numpy(logits)
        expected = torch.nn.functional.cross_entropy(tensor, tensor.argmax(1), reduction="none")
        np.testing.assert_allclose(own_prediction_loss(logits), expected.numpy(), atol=1e-6)

    def test_broken_logits(self):
        logits = np.array([[np.nan, np.nan], [np.nan, 1.0], [np.inf, 1.0], [1.0, 1.0]])
        confidence = logit_scaled_confidence(logits, np.zeros(4, dtype=int))
        assert np.isnan(confidence).tolist() == [True, True, True, False]
        loss = own_prediction_loss(logits)
        assert loss[0] == loss[3] == pytest.approx(math.log(2))
        assert np.isnan(loss[1:3]).all()


class TestErrors:
    @pytest.mark.parametrize(
        ("unlearned", "retrained", "rules", "message"),
        [
            (
                np.zeros(3),
                np.zeros((3, 1)),
                "official",
                "unlearned must have shape [n_models, n_examples]; found (3,).",
            ),
            (
                np.zeros((3, 2)),
                np.zeros((1, 2)),
                "official",
                "Epsilon needs at least 2 retrained models; found 1.",
            ),
            (
                np.zeros((3, 2)),
                np.zeros((3, 4)),
                "notebook",
                "unlearned and retrained must hold the same forget examples; found 2 and 4 of them.",
            ),
            (
                np.zeros((3, 2)),
                np.zeros((3, 2)),
                "offical",
                'Unknown rules \'offical\'; the rules are "official" and "notebook".',
            ),
            (
                np.full((3, 2), 1e6),
                np.zeros((3, 2)),
                "official",
                "Logit-scaled confidences lie within ±104; found one of size 1e+06. "
                "Pass what logit_scaled_confidence() returns.",
            ),
        ],
    )
    def test_epsilons(self, unlearned: np.ndarray, retrained: np.ndarray, rules: str, message: str):
        with pytest.raises(ValueError) as error:
            epsilons(unlearned, retrained, rules)
        assert str(error.value) == message

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (
                lambda: points(np.array([0.5, -1.0, np.nan])),
                "eps must be a list of non-negative numbers, one for each example, as epsilons() returns it; "
                "found shape (3,) with 2 negative or NaN.",
            ),
            (
                lambda: points(np.zeros(3), n_models=1),
                "Epsilon needs at least 2 models of each kind; found n_models=1.",
            ),
            (
                lambda: forgetting_quality(np.empty(0)),
                "Forgetting quality needs at least one forget example; eps is empty.",
            ),
            (
                lambda: strongest_attack(np.zeros((3, 1)), np.zeros(3)),
                "strongest_attack takes the confidences of one example, shape [n_models] twice; "
                "found (3, 1) and (3,).",
            ),
            (
                lambda: logit_scaled_confidence(np.zeros(3), np.array([0])),
                "logits must have shape [n, n_classes] or [n_models, n, n_classes] with at least 2 classes; "
                "found (3,).",
            ),
            (
                lambda: logit_scaled_confidence(np.zeros((3, 2)), np.array([0.0, 1.0, 0.0])),
                "targets must be 3 integers, one for each example of the logits; "
                "found shape (3,) and type float64.",
            ),
            (
                lambda: logit_scaled_confidence(np.zeros((3, 2)), np.array([0, 1, 2])),
                "targets must lie in 0..1, the classes of the logits; found 0..2.",
            ),
        ],
    )
    def test_the_rest(self, call, message: str):
        with pytest.raises(ValueError) as error:
            call()
        assert str(error.value) == message


def test_doctests():
    result = doctest.testmod(metric.quality)
    assert result.failed == 0
    assert result.attempted >= 9


def test_needs_no_torch_and_no_scikit_learn_to_import():
    command = "import sys, local_scorer.metric; print({'torch', 'sklearn'} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", command],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == "set()"
