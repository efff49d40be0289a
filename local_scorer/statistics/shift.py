"""Shift and spread: how confidences of unlearned models lie beside those of retrained ones, example by example.

The shift is the difference of the means in standard deviations of the retrained models, the spread the ratio of
the two standard deviations, unlearned over retrained. Over examples both are summed up by their medians.
"""

from __future__ import annotations

import numpy as np

from local_scorer.metric.score import ModelSet, statistic


def shift(unlearned: np.ndarray, retrained: np.ndarray) -> np.ndarray:
    """Return the shift of each example, ``[n_examples]``; infinite or NaN where the retrained models agree.

    Args:
        unlearned, retrained: ``[n_models, n_examples]``; one unlearned model is enough.

    >>> shift(np.array([[4.0], [5.0], [6.0]]), np.array([[0.0], [2.0], [4.0]])).tolist()
    [1.5]
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return (unlearned.mean(axis=0) - retrained.mean(axis=0)) / retrained.std(axis=0, ddof=1)


def spread(unlearned: np.ndarray, retrained: np.ndarray) -> np.ndarray:
    """Return the spread of each example, ``[n_examples]``; arguments and exceptions as for `shift`.

    >>> spread(np.array([[4.0], [5.0], [6.0]]), np.array([[0.0], [2.0], [4.0]])).tolist()
    [0.5]
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return unlearned.std(axis=0, ddof=1) / retrained.std(axis=0, ddof=1)


def shift_and_spread(unlearned: np.ndarray, retrained: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both, ``[n_examples]`` each; NaN where one of them is not finite."""
    with np.errstate(invalid="ignore"):
        found = shift(unlearned, retrained), spread(unlearned, retrained)
    known = np.isfinite(found[0]) & np.isfinite(found[1])
    return np.where(known, found[0], np.nan), np.where(known, found[1], np.nan)


def median_of_finite(values: np.ndarray) -> float:
    """Return the median of the values that are finite; NaN if none is."""
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else float("nan")


def something_to_forget(original: ModelSet, retrained: ModelSet) -> float:
    """Return the median shift of the original's confidence on the forget set, in the official rules.

    Near 0 the original remembers nothing that retraining would not give back, and no score on this data ranks
    anything. Infinite shifts count, where the retrained models agree and the original does not; NaN if there is
    no difference anywhere.
    """
    shifts = shift(statistic(original, "official"), statistic(retrained, "official"))
    defined = shifts[~np.isnan(shifts)]  # 0 / 0 where all models agree
    return float(np.median(defined)) if len(defined) else float("nan")
