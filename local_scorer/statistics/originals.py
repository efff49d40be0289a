"""How sure is a score that was measured from several original models?

Unlearning is defined for a training procedure, not for one checkpoint, and the original is drawn by chance too:
the same entry scores differently from another one. An entry that is run from K originals has K scores against the
same retrained models; what is reported is their mean, and the interval is one of the mean over fresh originals:

    mean x exp(-+ 1.1 t s / (mean sqrt(K)))

with s the standard deviation of the K scores, which holds the luck of the N runs from each original too, and t the
97.5 % quantile of Student's law with K - 1 degrees of freedom. The 1.1 is that of the intervals over models, since
scores from several originals are skewed too. No upper end is above 1, unless a score is.

The retrained models are drawn by chance too, those of a pack as well, and move all K scores together. By how much,
a jackknife says: with m_g, the mean score without the g-th of G = 8 groups of them,

    r^2 = (G - 1) / G x sum over g of (m_g / mean of all m - 1)^2

in shares of their mean, since a score also rises or falls with the number of retrained models. Half widths add up
by their squares, here and for the difference of two entries: (1.1 t s / (mean sqrt(K)))^2 + (1.96 r)^2. The
jackknife finds more than there is rather than less (``studies/ceilings.py``), so the normal quantile will do.

Where none of the K originals scores, nothing shows a spread. That happens with a probability of more than 2.5 %
only if at most 1 - 0.025^(1/K) of all originals score (60 % for K = 4, 37 % for K = 8). What those would earn was
not seen; one point on one forget picture is granted to them, so that the interval is

    0 to (1 - 0.025^(1/K)) / (number of forget pictures)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.special import ndtri

from local_scorer.metric.score import ModelSet, final_score
from local_scorer.statistics.intervals import WIDENED, student_quantile

GROUPS = 8  # of retrained models, each left out once
AS_GIVEN = (0.0,)  # how a score moves with retrained models whose draw is left out


@dataclass(frozen=True)
class Mean:
    """Mean of K scores with its 95 % interval."""

    mean: float
    low: float
    high: float
    n_originals: int


def mean_over_originals(
    scores: Sequence[float], n_examples: int, level: float = 0.95, moves: Sequence[float] = AS_GIVEN
) -> Mean:
    """Return the mean score over originals and its interval.

    Args:
        scores: ``[n_originals]``, one score for each original, at least two.
        n_examples: forget pictures.
        moves: what :func:`moves_with_retrained` returns; by default the retrained models are taken as given.

    Raises:
        ValueError: fewer than two originals, or a score is negative or not finite.

    >>> found = mean_over_originals([0.04, 0.05, 0.06, 0.05], 50)
    >>> round(found.mean, 4), round(found.low, 4), round(found.high, 4)
    (0.05, 0.0376, 0.0665)
    >>> round(mean_over_originals([0.0, 0.0, 0.0, 0.0], 50).high, 4)
    0.012
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"A spread between originals needs two of them or more, found {values.size}.")
    if not (np.isfinite(values) & (values >= 0)).all():
        raise ValueError("A score is negative or not finite.")
    mean = float(values.mean())
    if mean == 0:
        most_that_score = 1 - ((1 - level) / 2) ** (1 / len(values))
        return Mean(mean=0.0, low=0.0, high=most_that_score / n_examples, n_originals=len(values))
    quantile = student_quantile(len(values) - 1, (1 + level) / 2)
    half_width = np.hypot(
        WIDENED * quantile * values.std(ddof=1) / np.sqrt(len(values)) / mean, _half_width(moves, level)
    )
    factor = float(np.exp(half_width))
    highest = max(1.0, float(values.max()))
    return Mean(mean=mean, low=mean / factor, high=min(mean * factor, highest), n_originals=len(values))


def moves_with_retrained(sets: Sequence[ModelSet], retrained: ModelSet) -> np.ndarray:
    """Return by which share the mean score moves without each group of the retrained models, ``[n_groups]``.

    Args:
        sets: the models of an entry, one set for each original.
        retrained: what they are scored against; of a single model, which cannot be left out, nothing is said.
    """
    return moves_of(scores_without(sets, retrained)) if retrained.n_models > 1 else np.zeros(1)


def scores_without(sets: Sequence[ModelSet], retrained: ModelSet) -> np.ndarray:
    """Return the score from each original without each group of retrained models, ``[n_originals, n_groups]``."""
    n_models = retrained.n_models
    ends = np.linspace(0, n_models, min(GROUPS, n_models) + 1).round().astype(int)
    left = [retrained.without(start, stop) for start, stop in pairwise(ends)]
    return np.array([[final_score(models, others).score for others in left] for models in sets])


def moves_of(without: np.ndarray) -> np.ndarray:
    """Return the moves of the mean from scores ``[n_originals, n_groups]``.

    >>> moves_of(np.array([[0.05, 0.07], [0.04, 0.04]])).round(2).tolist()
    [-0.1, 0.1]
    """
    means = without.mean(axis=0)
    return means / means.mean() - 1 if means.any() else np.zeros_like(means)


def told_apart(
    first: Sequence[float],
    second: Sequence[float],
    level: float = 0.95,
    moves: tuple[Sequence[float], Sequence[float]] = (AS_GIVEN, AS_GIVEN),
) -> bool:
    """Say whether the order of two entries would survive other originals, by a paired t test over originals.

    Both entries ran from the same originals against the same retrained models, so luck with these moves both.
    `moves` are those of either entry, as for :func:`mean_over_originals`.

    >>> told_apart([0.05, 0.07, 0.06, 0.08], [0.03, 0.05, 0.035, 0.06])
    True
    >>> told_apart([0.05, 0.02, 0.06, 0.08], [0.06, 0.05, 0.035, 0.06])
    False
    """
    difference = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    quantile = student_quantile(len(difference) - 1, (1 + level) / 2)
    moved = np.mean(first) * np.asarray(moves[0]) - np.mean(second) * np.asarray(moves[1])
    least = np.hypot(quantile * difference.std(ddof=1) / np.sqrt(len(difference)), _half_width(moved, level))
    return bool(abs(difference.mean()) > least)


def _half_width(moves: Sequence[float], level: float) -> float:
    """Return the half width of an interval from the values of a jackknife."""
    values = np.asarray(moves, dtype=np.float64)
    deviation = np.sqrt((len(values) - 1) / len(values) * ((values - values.mean()) ** 2).sum())
    return float(ndtri((1 + level) / 2) * deviation)
