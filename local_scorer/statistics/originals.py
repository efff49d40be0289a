"""How sure is a score that was measured from several original models?

Unlearning is defined for a training procedure, not for one checkpoint, and the original is drawn by chance too:
the same entry scores differently from another one. An entry that is run from K originals has K scores against the
same retrained models; what is reported is their mean, and the interval is one of the mean over fresh originals:

    mean x exp(-+ 1.1 t s / (mean sqrt(K)))

with s the standard deviation of the K scores, which holds the luck of the N runs from each original too, and t the
97.5 % quantile of Student's law with K - 1 degrees of freedom. The 1.1 is that of the intervals over models, since
scores from several originals are skewed too. No upper end is above 1, unless a score is. The retrained models are
taken as given.

Where none of the K originals scores, nothing shows a spread. That happens with a probability of more than 2.5 %
only if at most 1 - 0.025^(1/K) of all originals score (60 % for K = 4, 37 % for K = 8). What those would earn was
not seen; one point on one forget picture is granted to them, so that the interval is

    0 to (1 - 0.025^(1/K)) / (number of forget pictures)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from local_scorer.statistics.intervals import WIDENED, student_quantile


@dataclass(frozen=True)
class Mean:
    """Mean of K scores with its 95 % interval."""

    mean: float
    low: float
    high: float
    n_originals: int


def mean_over_originals(scores: Sequence[float], n_examples: int, level: float = 0.95) -> Mean:
    """Return the mean score over originals and its interval.

    Args:
        scores: ``[n_originals]``, one score for each original, at least two.
        n_examples: forget pictures.

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
    factor = float(np.exp(WIDENED * quantile * values.std(ddof=1) / np.sqrt(len(values)) / mean))
    highest = max(1.0, float(values.max()))
    return Mean(mean=mean, low=mean / factor, high=min(mean * factor, highest), n_originals=len(values))


def told_apart(first: Sequence[float], second: Sequence[float], level: float = 0.95) -> bool:
    """Say whether the order of two entries would survive other originals, by a paired t test over originals.

    Both entries ran from the same originals against the same retrained models, so luck with these moves both.

    >>> told_apart([0.05, 0.07, 0.06, 0.08], [0.03, 0.05, 0.035, 0.06])
    True
    >>> told_apart([0.05, 0.02, 0.06, 0.08], [0.06, 0.05, 0.035, 0.06])
    False
    """
    difference = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    quantile = student_quantile(len(difference) - 1, (1 + level) / 2)
    return bool(abs(difference.mean()) > quantile * difference.std(ddof=1) / np.sqrt(len(difference)))
