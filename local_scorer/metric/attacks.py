"""The attacks behind :mod:`local_scorer.metric`: epsilon of each example under either set of rules.

Inputs are checked there. An attack predicts from one confidence whether an unlearned or a retrained model
gave it; its false positive and false negative rates bound epsilon from below (the equation stands in metric).

Official rules, two families, each on a grid of fixed step, which makes them depend on the scale of the data:

- intervals: about 400 right ends around the maximum of the sample with the narrower range, and 400 left ends
  for each of them; inside is predicted to be the narrower sample's kind of model;
- thresholds: float32 steps of about 0.01 over the pooled range; at or above is predicted to be the kind with
  the higher median.

A threshold or interval with exactly one rate at 0 is discarded; with both at 0 it makes epsilon infinite.
How the strongest is found is in :mod:`local_scorer.metric.search`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from local_scorer.metric.search import (
    EPSILON_CAP,
    NO_ATTACK,
    Pool,
    Roles,
    epsilon_of_rates,
    first_interval,
    first_threshold,
    search_intervals,
    search_thresholds,
)

SPREAD_RATIO = 0.01  # below this ratio of the two ranges, one sample counts as collapsed
MAX_CONFIDENCE = 1e4  # logit-scaled confidences lie within ±104; the grid is no use for data of another scale

NOTEBOOK_DELTA = 0.01
NOTEBOOK_MIN_POOLED = 11  # fewer values leave a 10 % test set that cannot hold both classes


@dataclass(frozen=True)
class Attack:
    """The strongest attack on one forget example under the official rules.

    Attributes:
        epsilon: the example's epsilon, in [0, 50].
        kind: ``interval`` or ``threshold``; or why there is an epsilon without an attack: ``spread`` (one
            sample's range is below 1 % of the other's), ``nonfinite`` (a confidence is NaN or infinite),
            ``disjoint`` or ``none`` (every threshold is discarded, and the ranges do not or do overlap).
        positive: the kind of model predicted inside the region, ``unlearned`` or ``retrained``, or "".
        low: lower end of the region, included; NaN without an attack.
        high: upper end of the region, included; inf for a threshold, NaN without an attack.
        fpr: share of the other kind's models inside the region; NaN without an attack.
        fnr: share of the positive kind's models outside the region; NaN without an attack.
    """

    epsilon: float
    kind: Literal["interval", "threshold", "spread", "nonfinite", "disjoint", "none"]
    positive: Literal["unlearned", "retrained", ""] = ""
    low: float = np.nan
    high: float = np.nan
    fpr: float = np.nan
    fnr: float = np.nan


@dataclass(frozen=True)
class Errors:
    """The strongest attack on each example under the official rules.

    Attributes:
        epsilon: float64 ``[n_examples]``, in [0, 50].
        unlearned, retrained: int ``[n_examples]``, models of either kind that the attack takes for the other; -1
            where there is an epsilon without an attack.
    """

    epsilon: np.ndarray
    unlearned: np.ndarray
    retrained: np.ndarray


def official_errors(unlearned: np.ndarray, retrained: np.ndarray) -> Errors:
    """Return the errors of the strongest attacks, for ``[n_models, n_examples]`` x 2."""
    eps, code = np.full(unlearned.shape[1], EPSILON_CAP), np.full(unlearned.shape[1], NO_ATTACK)
    searched = np.flatnonzero(_needs_search(unlearned, retrained))
    roles = Roles.of(unlearned[:, searched], retrained[:, searched])
    for part in roles.chunks(len(unlearned), len(retrained)):
        columns = searched[part]
        pool = Pool.of(unlearned[:, columns], retrained[:, columns], roles.part(part))
        interval, threshold = search_intervals(pool), search_thresholds(pool)
        found = np.where(pool.table[interval] >= pool.table[threshold], interval, threshold)
        without = np.where(pool.roles.disjoint, EPSILON_CAP, 0.0)
        eps[columns], code[columns] = np.where(found == NO_ATTACK, without, pool.table[found]), found
    inside = np.divmod(code, len(retrained) + 1)
    wrong = (np.where(code == NO_ATTACK, -1, errors) for errors in (len(unlearned) - inside[0], inside[1]))
    return Errors(eps, *wrong)


def strongest_official_attack(unlearned: np.ndarray, retrained: np.ndarray) -> Attack:
    """Return the strongest attack on one example, ``[n_models, 1]`` x 2."""
    if not _needs_search(unlearned, retrained)[0]:
        finite = np.isfinite(unlearned).all() and np.isfinite(retrained).all()
        return Attack(EPSILON_CAP, "spread" if finite else "nonfinite")
    pool = Pool.of(unlearned, retrained, Roles.of(unlearned, retrained))
    (interval,), (threshold,) = search_intervals(pool), search_thresholds(pool)
    if interval == threshold == NO_ATTACK:
        return Attack(EPSILON_CAP, "disjoint") if pool.roles.disjoint[0] else Attack(0.0, "none")
    epsilon = max(pool.table[interval], pool.table[threshold])
    if pool.table[interval] == epsilon:
        kind, retrained_inside = "interval", pool.roles.narrow_retrained[0]
        low, high = first_interval(pool, epsilon)
    else:
        kind, retrained_inside = "threshold", pool.roles.higher_retrained[0]
        low, high = first_threshold(pool, threshold), np.inf
    positive, other = (retrained, unlearned) if retrained_inside else (unlearned, retrained)
    return Attack(
        epsilon=float(epsilon),
        kind=kind,
        positive="retrained" if retrained_inside else "unlearned",
        low=low,
        high=high,
        fpr=float(np.mean((low <= other) & (other <= high))),
        fnr=float(np.mean((positive < low) | (high < positive))),
    )


def _needs_search(unlearned: np.ndarray, retrained: np.ndarray) -> np.ndarray:
    """Tell the examples that need a search, bool ``[n_examples]``; the others have epsilon 50 in any case."""
    finite = np.isfinite(unlearned).all(axis=0) & np.isfinite(retrained).all(axis=0)
    largest = max(np.abs(sample[:, finite]).max(initial=0) for sample in (unlearned, retrained))
    if largest > MAX_CONFIDENCE:
        raise ValueError(
            f"Logit-scaled confidences lie within ±104; found one of size {largest:g}. "
            "Pass what logit_scaled_confidence() returns."
        )
    with np.errstate(invalid="ignore", divide="ignore"):
        ranges = np.sort([np.ptp(unlearned, axis=0), np.ptp(retrained, axis=0)], axis=0)
        collapsed = ranges[0] / ranges[1] < SPREAD_RATIO  # false for 0 / 0, both samples constant
    return finite & ~collapsed


def notebook_epsilons(unlearned: np.ndarray, retrained: np.ndarray) -> np.ndarray:
    """Return float64 ``[n_examples]``, in [0, inf], for losses ``[n_models, n_examples]`` x 2."""
    samples = zip(unlearned.T, retrained.T, strict=True)
    return np.array([_notebook_epsilon(*sample) for sample in samples], dtype=np.float64)


def _notebook_epsilon(unlearned: np.ndarray, retrained: np.ndarray) -> float:
    """Try every pooled value as a threshold, "unlearned" predicted above it, and a logistic regression."""
    if not (np.isfinite(unlearned).all() and np.isfinite(retrained).all()):
        return np.inf
    thresholds = np.concatenate((unlearned, retrained))
    n_above = len(retrained) - np.sort(retrained).searchsorted(thresholds, side="right")
    n_at_most = np.sort(unlearned).searchsorted(thresholds, side="right")
    rates = np.stack((n_above / len(retrained), n_at_most / len(unlearned)))
    fpr, fnr = np.concatenate((rates, _logistic_rates(unlearned, retrained)), axis=1)
    eps = epsilon_of_rates(fpr, fnr, NOTEBOOK_DELTA)
    eps[np.isnan(eps)] = np.inf  # both rates near 1: a perfect attack with the answer turned round
    eps[(fpr == 0) != (fnr == 0)] = 0.0  # discarded
    eps[(fpr == 0) & (fnr == 0)] = np.inf
    return float(eps.max(initial=0.0))


def _logistic_rates(unlearned: np.ndarray, retrained: np.ndarray) -> np.ndarray:
    """Return mean fpr and fnr over two test sets of 10 %, ``[2, 1]``; ``[2, 0]`` where these lack a class."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedShuffleSplit

    losses = np.concatenate((retrained, unlearned))[:, None]
    labels = np.repeat((0, 1), (len(retrained), len(unlearned)))
    if len(labels) < NOTEBOOK_MIN_POOLED:
        return np.empty((2, 0))
    rates = []
    for train, test in StratifiedShuffleSplit(n_splits=2, random_state=0).split(losses, labels):
        is_unlearned = labels[test] == 1
        if is_unlearned.all() or not is_unlearned.any():
            return np.empty((2, 0))
        predicted = LogisticRegression().fit(losses[train], labels[train]).predict(losses[test])
        rates.append((np.mean(predicted[~is_unlearned] == 1), np.mean(predicted[is_unlearned] == 0)))
    return np.mean(rates, axis=0)[:, None]
