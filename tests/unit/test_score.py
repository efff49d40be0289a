import math
from dataclasses import replace

import numpy as np
import pytest

from local_scorer.metric import score
from tests.helpers.runs import model_set

RETRAINED = model_set([[0.0, 1.0], [1.0, 3.0], [2.0, 5.0], [4.0, 2.0]])


@pytest.mark.parametrize("rules", ["official", "notebook"])
def test_equal_samples_earn_all_points_so_the_ratios_remain(rules):
    unlearned = model_set([[0.0, 1.0], [1.0, 3.0], [2.0, 5.0], [4.0, 2.0]], retain=0.6, test=0.75)
    result = score.final_score(unlearned, RETRAINED, rules)
    assert result.forgetting_quality == 1
    assert result.retain_ratio == pytest.approx(0.75)  # 0.6 / 0.8
    assert result.test_ratio == pytest.approx(1.25)  # 0.75 / 0.6: not capped
    assert result.score == pytest.approx(0.9375)


def test_order_of_the_models_does_not_matter():
    shuffled = replace(RETRAINED, logits=RETRAINED.logits[[2, 0, 3, 1]])
    assert score.final_score(shuffled, RETRAINED).score == 1


def test_half_of_the_examples_right_earn_half_of_the_points():
    """The second example's samples do not overlap: epsilon 50, no points."""
    unlearned = model_set([[0.0, 11.0], [1.0, 13.0], [2.0, 15.0], [4.0, 12.0]])
    assert score.final_score(unlearned, RETRAINED).forgetting_quality == 0.5


def test_copies_of_one_model_earn_nothing():
    original = model_set([[1.0, 3.0]])
    assert score.final_score(original.repeated(4), RETRAINED).score == 0


def test_accuracy_is_averaged_over_models_before_the_ratio():
    """Mean of 0.2 and 0.6 over mean of 0.5 and 1.0; the mean of the two ratios would be 0.5."""
    retrained = replace(model_set([[0, 0], [1, 1]]), retain_accuracy=np.array([0.5, 1.0]))
    unlearned = replace(model_set([[0, 0], [1, 1]]), retain_accuracy=np.array([0.2, 0.6]))
    assert score.final_score(unlearned, retrained).retain_ratio == pytest.approx(0.4 / 0.75)


def test_other_forget_set():
    other = replace(RETRAINED, labels=np.array([1, 0]))
    with pytest.raises(ValueError) as error:
        score.final_score(other, RETRAINED)
    expected = "The unlearned and the retrained models were evaluated on different forget sets."
    assert str(error.value) == expected


@pytest.mark.parametrize("value", [0.0, math.nan])
@pytest.mark.parametrize("split", ["retain", "test"])
def test_retrained_models_that_know_nothing(split, value):
    useless = replace(RETRAINED, **{f"{split}_accuracy": np.full(4, value)})
    with pytest.raises(ValueError) as error:
        score.final_score(RETRAINED, useless)
    assert str(error.value) == (
        f"The retrained models have {split} accuracy {value}: no ratio can be formed. "
        f"Check the {split} split and the training recipe."
    )


def test_statistic_of_each_rule():
    """Confidence is about the true label; the notebook's loss is -ln of the highest probability."""
    models = model_set([[2.0, -3.0]])
    np.testing.assert_allclose(score.statistic(models, "official"), [[2.0, -3.0]], rtol=1e-5)
    loss = [[math.log(1 + math.exp(-2)), math.log(1 + math.exp(-3))]]
    np.testing.assert_allclose(score.statistic(models, "notebook"), loss, rtol=1e-5)


def test_repeated_repeats_everything_but_the_labels():
    original = model_set([[1.0, 3.0]], retain=0.7)
    copies = original.repeated(3)
    assert copies.n_models == 3
    np.testing.assert_array_equal(copies.logits, np.stack([original.logits[0]] * 3))
    np.testing.assert_array_equal(copies.labels, original.labels)
    np.testing.assert_array_equal(copies.retain_accuracy, [0.7, 0.7, 0.7])
    np.testing.assert_array_equal(copies.cpu_seconds, [20.0, 20.0, 20.0])


@pytest.mark.parametrize(("n_models", "warns"), [(3, True), (10, True), (63, True), (64, False), (512, False)])
def test_small_n_is_said(n_models, warns):
    note = score.small_n_note(n_models)
    assert (note is not None) is warns
    if warns:
        assert note.startswith(f"N={n_models} is too few to rank good entries: ")
        assert f"those of N={n_models}:" in score.small_n_note(n_models, n_originals=8)


@pytest.mark.parametrize(("ceiling", "warns"), [(0.005, True), (0.17, False), (float("nan"), False)])
def test_runs_so_few_that_retrained_models_hardly_score_are_said(ceiling, warns):
    note = score.low_ceiling_note(ceiling, 3, 64)
    assert (note is not None) is warns
    if warns:
        assert "N=3 is too few beside 64 retrained models" in note


def test_zero_spread_is_explained_for_each_rule():
    assert "epsilon 50 and no points" in score.zero_spread_note("official")
    assert "do not treat zero spread apart" in score.zero_spread_note("notebook")
