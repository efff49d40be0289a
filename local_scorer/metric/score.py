"""From the arrays of N unlearned and N retrained models to one score and what is needed to read it.

    score = F x RA_U / RA_R x TA_U / TA_R

F is the forgetting quality, RA and TA are mean retain and test accuracy, U the unlearned and R the retrained
models (organisers' metric report; report, section 5.3). The ratios are not capped at 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from functools import cached_property

import numpy as np

from local_scorer import metric

LEAST_CEILING = 0.1  # of F; retrained models have 0.17 to 0.21 against others once there are runs enough
ENOUGH_MODELS = 64  # below, scores hardly rank entries: see `small_n_note`


def _no_array() -> np.ndarray:
    return np.empty(0, dtype=np.float32)


@dataclass(frozen=True)
class ModelSet:
    """What N models of one kind left behind.

    Attributes:
        logits: float32 ``[n_models, n_forget, n_classes]`` on the forget set.
        labels: int64 ``[n_forget]``, the true age groups.
        retain_accuracy, forget_accuracy, test_accuracy: float64 ``[n_models]``, shares from 0 to 1.
        wall_seconds, cpu_seconds: float64 ``[n_models]``, of training or of ``unlearning()``.
        test_logits, test_labels: as `logits` and `labels`, on the test set.
        retain_confidence, validation_confidence: float32 ``[n_models, n_pictures]``, logit-scaled.
        machines: str ``[n_models]``, the kind of machine that took the time; empty if it is the same for all.
        finished: float64 ``[n_models]``, when, in seconds since 1970, NaN where that is not known; or empty.

    The four before these two are for audits; empty where nobody asks for these.
    """

    logits: np.ndarray
    labels: np.ndarray
    retain_accuracy: np.ndarray
    forget_accuracy: np.ndarray
    test_accuracy: np.ndarray
    wall_seconds: np.ndarray
    cpu_seconds: np.ndarray
    test_logits: np.ndarray = field(default_factory=_no_array)
    test_labels: np.ndarray = field(default_factory=_no_array)
    retain_confidence: np.ndarray = field(default_factory=_no_array)
    validation_confidence: np.ndarray = field(default_factory=_no_array)
    machines: np.ndarray = field(default_factory=_no_array)
    finished: np.ndarray = field(default_factory=_no_array)

    @property
    def n_models(self) -> int:
        return len(self.logits)

    @property
    def n_examples(self) -> int:
        """Forget pictures."""
        return len(self.labels)

    @cached_property
    def confidence(self) -> np.ndarray:
        """Logit-scaled confidences on the forget set, float64 ``[n_models, n_forget]``."""
        return metric.logit_scaled_confidence(self.logits, self.labels)

    def part(self, start: int, stop: int) -> ModelSet:
        """Return the models from `start` to `stop` - 1."""
        arrays = {
            part.name: getattr(self, part.name)[start:stop]
            for part in fields(self)
            if part.name not in ("labels", "test_labels")
        }
        return replace(self, **arrays)

    def without(self, start: int, stop: int) -> ModelSet:
        """Return all models but those from `start` to `stop` - 1."""
        arrays = {
            part.name: np.delete(getattr(self, part.name), slice(start, stop), axis=0)
            for part in fields(self)
            if part.name not in ("labels", "test_labels")
        }
        return replace(self, **arrays)

    def repeated(self, n_models: int) -> ModelSet:
        """Return `n_models` copies of a set of one model."""
        arrays = {
            part.name: np.repeat(getattr(self, part.name), n_models, axis=0)
            for part in fields(self)
            if part.name not in ("labels", "test_labels")
        }
        return replace(self, **arrays)


@dataclass(frozen=True)
class Score:
    """A final score and its three factors."""

    score: float
    forgetting_quality: float
    retain_ratio: float
    test_ratio: float


def statistic(models: ModelSet, rules: str) -> np.ndarray:
    """Return the number per model and forget example that the rules compare, ``[n_models, n_forget]``."""
    if rules == "official":
        return models.confidence
    return metric.own_prediction_loss(models.logits)


def final_score(unlearned: ModelSet, retrained: ModelSet, rules: str = "official") -> Score:
    """Score N unlearned models against N retrained ones.

    Raises:
        ValueError: the sets belong to different forget sets, or the retrained models predict nothing right.
    """
    if not np.array_equal(unlearned.labels, retrained.labels):
        raise ValueError("The unlearned and the retrained models were evaluated on different forget sets.")
    epsilons = metric.epsilons(statistic(unlearned, rules), statistic(retrained, rules), rules=rules)
    quality = metric.forgetting_quality(epsilons, n_models=unlearned.n_models, rules=rules)
    retain_ratio = _ratio(unlearned.retain_accuracy, retrained.retain_accuracy, "retain")
    test_ratio = _ratio(unlearned.test_accuracy, retrained.test_accuracy, "test")
    return Score(quality * retain_ratio * test_ratio, quality, retain_ratio, test_ratio)


def small_n_note(n_models: int, n_originals: int = 1) -> str | None:
    """Return a warning if N is too small to rank good entries, or to trust their shares, else None."""
    if n_models >= ENOUGH_MODELS:
        return None
    if n_originals > 1:  # they order entries well, whatever N is
        return (
            f"Shares of the ceiling are those of N={n_models}: with more runs those of entries that are off fall. "
            "Compare boards of one N only; --models 64 shows how far."
        )
    return (
        f"N={n_models} is too few to rank good entries: perfect unlearning and unlearning that is off by one "
        "standard deviation differ by a factor of only 1.5 in F at N=10, of 4 at N=64 and of 12 at N=512. Use "
        "--models 64 or more before you trust an order."
    )


def low_ceiling_note(ceiling: float, n_models: int, n_retrained: int) -> str | None:
    """Return a warning if N is so small that even other retrained models, with F `ceiling`, hardly score."""
    if not ceiling < LEAST_CEILING:  # NaN too
        return None
    return (
        f"N={n_models} is too few beside {n_retrained} retrained models: other retrained models have an F of "
        f"{ceiling:.3f} here, and of about 0.2 where N is enough. Give a larger --models."
    )


def zero_spread_note(rules: str) -> str:
    """Say what the metric does to N equal models, such as the row 'no unlearning'."""
    if rules == "official":
        return (
            "'no unlearning' is N copies of one model: zero spread beside the retrained models' spread gives "
            "epsilon 50 and no points, whatever the model."
        )
    return (
        "'no unlearning' is N copies of one model: the notebook rules do not treat zero spread apart, so its "
        "score is what a single threshold makes of one point against N."
    )


def _ratio(unlearned: np.ndarray, retrained: np.ndarray, split: str) -> float:
    denominator = float(np.mean(retrained))
    if not denominator > 0:
        raise ValueError(
            f"The retrained models have {split} accuracy {denominator}: no ratio can be formed. "
            f"Check the {split} split and the training recipe."
        )
    return float(np.mean(unlearned)) / denominator
