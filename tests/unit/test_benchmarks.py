"""The measuring scripts: what they write, what they refuse, and the numbers that they rest on."""

import doctest

import numpy as np
import pandas as pd
import pytest

from data_prep.dataset import PreparedDataset
from local_scorer.metric.score import ModelSet
from studies import copies, limits, one_retrained, variants


def models(logits):
    """Return models with these logits ``[n_models, n_forget, n_classes]`` and accuracies 0.1, 0.2, ..."""
    logits = np.asarray(logits, np.float32)
    accuracy = np.arange(1, len(logits) + 1) / 10
    return ModelSet(logits, np.zeros(logits.shape[1], np.int64), *(5 * [accuracy]))


def test_doctests():
    assert doctest.testmod(variants).attempted == 2
    assert doctest.testmod(limits).attempted == 1
    assert doctest.testmod(limits).failed == 0
    assert doctest.testmod(variants).failed == 0


def test_every_combination_is_a_variant():
    assert variants.expanded("gisa LR=1,2 ADAPT=none,element") == [
        "gisa LR=1 ADAPT=none", "gisa LR=1 ADAPT=element", "gisa LR=2 ADAPT=none", "gisa LR=2 ADAPT=element",
    ]  # fmt: skip
    assert variants.expanded("ssd") == ["ssd"]


def test_a_variant_differs_from_its_entry_by_its_settings_alone(tmp_path):
    path = variants.written("gisa LR=1e-3 ADAPT=none RETAIN_SAMPLE=None", tmp_path)
    assert path.stem == "gisa LR=1e-3 ADAPT=none RETAIN_SAMPLE=None"
    before = (variants.ENTRIES / "gisa.py").read_text().splitlines()
    after = path.read_text().splitlines()
    changed = [new for old, new in zip(before, after, strict=True) if old != new]
    assert changed == ["ADAPT = 'none'", "RETAIN_SAMPLE = None", "LR = 1e-3"]


@pytest.mark.parametrize(
    ("variant", "sentence"),
    [
        ("nobody LR=1", "There is no entry 'nobody' in kaggle_submission/."),
        ("gisa SPEED=1", "gisa.py has no setting 'SPEED'."),
        ("gisa loss=1", "gisa.py has no setting 'loss'."),  # indented: no setting
    ],
)
def test_a_variant_that_cannot_be_is_refused(tmp_path, variant, sentence):
    with pytest.raises(ValueError) as caught:
        variants.written(variant, tmp_path)
    assert str(caught.value) == sentence
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["gisa LR", "gisa LR="])
def test_a_setting_without_a_value_is_refused(text):
    with pytest.raises(ValueError, match="Expected NAME=VALUE after the entry's name"):
        variants.expanded(text)


def test_the_substitute_is_one_model_and_a_tenth_of_the_spread():
    random = np.random.default_rng(0)
    retrained = models(random.normal(0, 5, (50, 40, 3)))
    unlearned = models(random.normal(0, 2, (50, 40, 3)))
    fake = one_retrained.substitute(retrained, 7, unlearned, random)
    noise = fake.logits - retrained.logits[7]
    assert noise.std() == pytest.approx(0.2, rel=0.03)
    assert abs(noise.mean()) < 0.01
    assert np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1] == pytest.approx(0, abs=0.3)  # drawn anew
    assert fake.test_accuracy.tolist() == 50 * [0.8]
    assert fake.retain_accuracy.tolist() == 50 * [0.8]


def test_a_copy_in_the_retain_set_is_found_equal_or_near():
    random = np.random.default_rng(0)
    pictures = random.integers(40, 200, (4, 3, 32, 32), dtype=np.uint8)
    images = np.concatenate([pictures, pictures[[1]], pictures[[2]] + np.uint8(9), pictures[[0]]])
    splits = ["forget", "forget", "forget", "retain", "retain", "retain", "test"]
    data = PreparedDataset(None, images, pd.DataFrame({"split": splits}), {})
    assert copies.has_copy(data).tolist() == [False, True, True]  # the copy in test does not count


def test_more_points_with_a_copy_are_seen_as_such():
    assert copies.share_higher(np.array([1.0, 0.9, 0.8]), np.array([0.1, 0.2])) == 1
    assert copies.share_higher(np.array([0.1, 0.2]), np.array([1.0, 0.9, 0.8])) == 0
    assert copies.share_higher(np.zeros(3), np.zeros(2)) == 0.5
    mean, low, high = copies.interval(np.array([0.0, 1.0]))
    assert (mean, low, high) == (0.5, 0.0, 1.0)


def test_mended_confidences_have_the_retrained_models_mean_and_spread():
    random = np.random.default_rng(0)
    ours, theirs = random.normal(3, 1, (50, 4)), random.normal(-1, 2, (40, 4))
    moved = limits.mend(ours, theirs, mean=True)
    assert moved.mean(axis=0) == pytest.approx(theirs.mean(axis=0))
    assert moved.std(axis=0) == pytest.approx(ours.std(axis=0))
    widened = limits.mend(ours, theirs, spread=True)
    assert widened.mean(axis=0) == pytest.approx(ours.mean(axis=0))
    assert widened.std(axis=0) == pytest.approx(theirs.std(axis=0))
    assert limits.quality(ours, theirs) < limits.quality(moved, theirs)
    assert limits.quality(moved, theirs) < limits.quality(limits.mend(ours, theirs, True, True), theirs)
