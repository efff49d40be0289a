"""KLoM: how far the margins of unlearned models are from those of retrained ones, picture by picture.

For each picture there are the margins of N unlearned and of N retrained models; the margin is the logit-scaled
confidence, ln p / (1 - p) of the true class. Both are counted in 20 bins over their common range, and

    KLoM = sum over bins of p ln(p / max(q, 1e-5)),  p unlearned, q retrained

(Georgiev et al., "Attribute-to-Delete", 2024; EasyDUB). 0 is the aim, and few models do not reach it: the
row "retrained" says what chance alone gives at this N.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from local_scorer.metric.score import ModelSet, statistic

BINS = 20
LEAST_SHARE = 1e-5  # that a bin of the retrained models counts as
LARGEST_MARGIN = 100.0
PERCENTILE = 95


@dataclass(frozen=True)
class Klom:
    """KLoM over the pictures of three splits, mean and 95th percentile; None without finite margins."""

    forget: float | None
    forget_95: float | None
    retain: float | None
    retain_95: float | None
    validation: float | None
    validation_95: float | None
    n_models: int


def klom(unlearned: np.ndarray, retrained: np.ndarray) -> np.ndarray:
    """Return the KLoM of each picture, ``[n_pictures]``, from margins ``[n_models, n_pictures]``.

    >>> klom(np.array([[0.0], [1.0]]), np.array([[0.0], [1.0]])).tolist()
    [0.0]
    >>> klom(np.array([[0.0], [0.0]]), np.array([[0.0], [1.0]])).round(4).tolist()  # ln 2
    [0.6931]
    """
    unlearned, retrained = (
        np.clip(margins.astype(np.float64), -LARGEST_MARGIN, LARGEST_MARGIN) for margins in (unlearned, retrained)
    )
    low = np.minimum(unlearned.min(axis=0), retrained.min(axis=0))
    width = np.maximum(unlearned.max(axis=0), retrained.max(axis=0)) - low
    ours, theirs = (_shares(margins - low, width) for margins in (unlearned, retrained))
    return np.sum(ours * np.log(np.where(ours > 0, ours, 1) / np.maximum(theirs, LEAST_SHARE)), axis=1)


def klom_of(models: ModelSet, retrained: ModelSet) -> Klom:
    """Return mean and 95th percentile on forget, retain and validation pictures."""
    forget = statistic(models, "official"), statistic(retrained, "official")
    found = [
        _summary(*margins)
        for margins in (
            forget,
            (models.retain_confidence, retrained.retain_confidence),
            (models.validation_confidence, retrained.validation_confidence),
        )
    ]
    (forget, forget_95), (retain, retain_95), (validation, validation_95) = found
    return Klom(
        forget=forget,
        forget_95=forget_95,
        retain=retain,
        retain_95=retain_95,
        validation=validation,
        validation_95=validation_95,
        n_models=models.n_models,
    )


def _summary(unlearned: np.ndarray, retrained: np.ndarray) -> tuple[float | None, float | None]:
    if not (unlearned.size and retrained.size):
        return None, None
    finite = np.isfinite(unlearned).all(axis=0) & np.isfinite(retrained).all(axis=0)
    if not finite.any():
        return None, None
    values = klom(unlearned[:, finite], retrained[:, finite])
    return float(values.mean()), float(np.percentile(values, PERCENTILE))


def _shares(above_low: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Return the share of models in each bin, ``[n_pictures, BINS]``; the highest margin is in the last bin."""
    n_models, n_pictures = above_low.shape
    place = above_low / np.where(width > 0, width, 1) * BINS
    place = np.minimum(place.astype(np.int64), BINS - 1) + BINS * np.arange(n_pictures)
    return np.bincount(place.ravel(), minlength=BINS * n_pictures).reshape(n_pictures, BINS) / n_models
