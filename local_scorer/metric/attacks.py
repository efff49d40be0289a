"""The attacks behind :mod:`local_scorer.metric`: epsilon of each example under either set of rules.

Inputs are checked there. An attack predicts from one confidence whether an unlearned or a retrained model
gave it; its false positive and false negative rates bound epsilon from below (the equation stands in metric).

Official rules, two families, each on a grid of fixed step, which makes them depend on the scale of the data:

- intervals: about 400 right ends around the maximum of the sample with the narrower range, and 400 left ends
  for each of them; inside is predicted to be the narrower sample's kind of model;
- thresholds: float32 steps of about 0.01 over the pooled range; at or above is predicted to be the kind with
  the higher median.

A threshold or interval with exactly one rate at 0 is discarded; with both at 0 it makes epsilon infinite.
The 160,000 intervals are not tried one by one. Each counts only through the ranks of its two ends among the
pooled values, so the epsilon of a pair of ranks is looked up, and it is found out, exactly, whether the grid
reaches that pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

OFFICIAL_DELTA = 1e-5
EPSILON_CAP = 50.0
SPREAD_RATIO = 0.01  # below this ratio of the two ranges, one sample counts as collapsed
THRESHOLDS_PER_UNIT = 100
BUFFER = 2.0  # how far the ends of intervals reach beyond the narrower sample
N_LEFT_ENDS = 400
WIDE_GAP = 0.03  # safely more than two steps of the left ends, which are 4 / 399
MAX_CONFIDENCE = 1e4  # logit-scaled confidences lie within ±104; the grid is no use for data of another scale
CHUNK_ELEMENTS = 2**16  # pairs of ranks looked up at a time, so that they stay in the cache

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


def official_epsilons(unlearned: np.ndarray, retrained: np.ndarray) -> np.ndarray:
    """Return float64 ``[n_examples]``, in [0, 50], for ``[n_models, n_examples]`` x 2."""
    eps = np.full(unlearned.shape[1], EPSILON_CAP)
    searched = np.flatnonzero(_needs_search(unlearned, retrained))
    n_ranks = len(unlearned) + len(retrained) + 1
    chunk = max(1, CHUNK_ELEMENTS // n_ranks**2)
    for begin in range(0, len(searched), chunk):
        columns = searched[begin : begin + chunk]
        pool = _Pool.of(unlearned[:, columns], retrained[:, columns])
        found = np.maximum(_search_intervals(pool)[0], _search_thresholds(pool)[0])
        eps[columns] = np.where(found >= 0, found, np.where(pool.disjoint, EPSILON_CAP, 0.0))
    return eps


def strongest_official_attack(unlearned: np.ndarray, retrained: np.ndarray) -> Attack:
    """Return the strongest attack on one example, ``[n_models, 1]`` x 2."""
    if not _needs_search(unlearned, retrained)[0]:
        finite = np.isfinite(unlearned).all() and np.isfinite(retrained).all()
        return Attack(EPSILON_CAP, "spread" if finite else "nonfinite")
    pool = _Pool.of(unlearned, retrained)
    (interval,), (left_rank,), (right_rank,) = _search_intervals(pool)
    (threshold,), (rank,) = _search_thresholds(pool)
    if max(interval, threshold) < 0:
        return Attack(EPSILON_CAP, "disjoint") if pool.disjoint[0] else Attack(0.0, "none")
    if interval >= threshold:
        kind, retrained_inside = "interval", pool.narrow_retrained[0]
        low, high = _interval_of_ranks(pool, left_rank, right_rank)
    else:
        kind, retrained_inside = "threshold", pool.higher_retrained[0]
        low, high = _threshold_of_rank(pool, rank), np.inf
    positive, other = (retrained, unlearned) if retrained_inside else (unlearned, retrained)
    return Attack(
        epsilon=float(max(interval, threshold)),
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


@dataclass(frozen=True)
class _Pool:
    """Both samples of some examples in ascending order, so that an interval is a pair of ranks.

    The interval that holds the values of rank left to right - 1 has the code ``code[right] - code[left]``: u
    values of unlearned models and r of retrained ones inside make ``u * (n_retrained + 1) + r``.

    Attributes:
        values: float64 ``[n_examples, n_pooled]``.
        code: int ``[n_examples, n_pooled + 1]``.
        table: float32 ``[n_codes]``, the epsilon of predicting "unlearned" inside.
        narrow_low: float64 ``[n_examples]``, the lowest value of the sample with the narrower range.
        narrow_high: float64 ``[n_examples]``, its highest value.
        narrow_retrained: bool ``[n_examples]``, whether that is the retrained sample.
        higher_retrained: bool ``[n_examples]``, whether the retrained sample has the higher median.
        disjoint: bool ``[n_examples]``, whether the two ranges do not overlap.
    """

    values: np.ndarray
    code: np.ndarray
    table: np.ndarray
    narrow_low: np.ndarray
    narrow_high: np.ndarray
    narrow_retrained: np.ndarray
    higher_retrained: np.ndarray
    disjoint: np.ndarray

    @classmethod
    def of(cls, unlearned: np.ndarray, retrained: np.ndarray) -> _Pool:
        """Pool finite ``[n_models, n_examples]`` x 2."""
        values = np.concatenate((unlearned, retrained)).T
        order = values.argsort(axis=1)
        code = np.where(order < len(unlearned), len(retrained) + 1, 1).cumsum(axis=1)
        low_u, low_r = unlearned.min(axis=0), retrained.min(axis=0)
        high_u, high_r = unlearned.max(axis=0), retrained.max(axis=0)
        range_u, range_r = high_u - low_u, high_r - low_r
        higher_retrained = np.median(retrained, axis=0) > np.median(unlearned, axis=0)
        # With equal ranges the released scorer swaps the roles that the medians gave.
        narrow_retrained = np.where(range_u == range_r, ~higher_retrained, range_r < range_u)
        return cls(
            values=np.take_along_axis(values, order, axis=1),
            code=np.concatenate((np.zeros_like(code[:, :1]), code), axis=1),
            table=_epsilon_table(len(unlearned), len(retrained)),
            narrow_low=np.where(narrow_retrained, low_r, low_u),
            narrow_high=np.where(narrow_retrained, high_r, high_u),
            narrow_retrained=narrow_retrained,
            higher_retrained=higher_retrained,
            disjoint=(high_u < low_r) | (high_r < low_u),
        )

    def epsilon(self, code: np.ndarray, retrained_inside: np.ndarray) -> np.ndarray:
        """Look up epsilon; code ``[n_examples, ...]``, retrained_inside bool ``[n_examples]``.

        Predicting "retrained" inside a region is predicting "unlearned" outside it: the complement's code.
        """
        complement_of = np.where(retrained_inside, len(self.table) - 1, 0)
        return self.table.take(np.abs(complement_of.reshape(-1, *(1,) * (code.ndim - 1)) - code))

    def right_end_grid(self) -> np.ndarray:
        """Return start, stop and count of the right ends, and the narrower range: ``[4, n_examples, 1]``."""
        width = self.narrow_high - self.narrow_low
        start, stop = self.narrow_low + width - BUFFER, self.narrow_high + BUFFER
        count = np.ceil((stop - start) * THRESHOLDS_PER_UNIT)  # 400, or by rounding 401
        return np.stack((start, stop, count, width))[..., None]


@lru_cache(maxsize=16)
def _epsilon_table(n_unlearned: int, n_retrained: int) -> np.ndarray:
    """Return the epsilon of each code of :class:`_Pool`, -inf where the threshold is discarded.

    Rates and logarithms are float32, as in the released scorer.
    """
    fnr = (np.arange(n_unlearned, -1, -1, dtype=np.float32) / np.float32(n_unlearned))[:, None]
    fpr = (np.arange(n_retrained + 1, dtype=np.float32) / np.float32(n_retrained))[None, :]
    eps = _epsilon(fpr, fnr, OFFICIAL_DELTA).clip(0, EPSILON_CAP)
    eps[np.isnan(eps) | (fpr * fnr == 0)] = -np.inf
    eps[-1, 0] = EPSILON_CAP  # no error at all
    eps = eps.ravel()
    eps.flags.writeable = False
    return eps


def _epsilon(fpr: np.ndarray, fnr: np.ndarray, delta: float) -> np.ndarray:
    """Return the epsilon of rates, in their precision; NaN where neither logarithm exists."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.fmax(np.log(1 - delta - fpr) - np.log(fnr), np.log(1 - delta - fnr) - np.log(fpr))


def _search_intervals(pool: _Pool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the best interval of each example.

    Let gap j lie between the pooled values j - 1 and j. Right ends of one rank are neighbours on their grid,
    and the left ends that go with them sweep a range. Each wide gap that this range touches holds a left end.
    A narrow gap may fall between two left ends, so these are counted, but only where the pair would win.

    Returns:
        ``[n_examples]`` each: epsilon, -inf if every interval is discarded; the winner's left and right rank.
    """
    grid = pool.right_end_grid()
    below = _count_grid(np.less, pool.values, *grid[:3])
    edges = np.concatenate((np.zeros_like(below[:, :1]), below, grid[2]), axis=1).astype(np.intp)
    ranks = np.flatnonzero((edges[:, :-1] < edges[:, 1:]).any(axis=0))
    begin, end = edges[:, ranks], edges[:, ranks + 1]  # right ends begin to end - 1 have the rank

    infinite = np.full((len(pool.values), 1), np.inf)
    gap_low = np.concatenate((-infinite, pool.values), axis=1)
    gap_high = np.concatenate((pool.values, infinite), axis=1)
    wide, narrow = gap_high - gap_low > WIDE_GAP, (gap_high - gap_low <= WIDE_GAP) & (gap_low < gap_high)
    lowest, _ = _left_range(begin, *grid)
    _, highest = _left_range(end - 1, *grid)
    touched = (lowest[..., None] <= gap_high[:, None]) & (gap_low[:, None] < highest[..., None])
    touched &= (begin < end)[..., None]

    inside = np.maximum(pool.code[:, ranks, None] - pool.code[:, None], 0)  # 0: left end beyond the right end
    eps = pool.epsilon(inside, pool.narrow_retrained)  # [n_examples, ranks of right ends, gaps of left ends]
    reached = touched & wide[:, None]
    best = eps.max(axis=(1, 2), where=reached, initial=-np.inf)
    candidates = np.nonzero(touched & narrow[:, None] & (eps > best[:, None, None]))
    if len(candidates[0]):
        example, rank, gap = candidates
        right_ends = grid[:, example, 0], begin[example, rank], end[example, rank]
        reached[candidates] = _hits_gap(*right_ends, gap_low[example, gap], gap_high[example, gap])
    eps = np.where(reached, eps, -np.inf).reshape(len(eps), -1)
    winner = eps.argmax(axis=1)
    best = np.take_along_axis(eps, winner[:, None], axis=1)[:, 0]
    return best, winner % gap_low.shape[1], ranks[winner // gap_low.shape[1]]


def _hits_gap(
    grid: np.ndarray, begin: np.ndarray, end: np.ndarray, gap_low: np.ndarray, gap_high: np.ndarray
) -> np.ndarray:
    """Tell whether a right end from begin to end - 1 has a left end in (gap_low, gap_high]: bool ``[n]``."""
    length = end - begin
    starts = np.cumsum(length) - length
    right_end = np.arange(length.sum()) - np.repeat(starts - begin, length)
    left_ends = *_left_range(right_end, *np.repeat(grid, length, axis=1)), N_LEFT_ENDS
    at_low = _count_grid(np.less_equal, np.repeat(gap_low, length), *left_ends)
    at_high = _count_grid(np.less_equal, np.repeat(gap_high, length), *left_ends)
    return np.logical_or.reduceat(at_low < at_high, starts)


def _left_range(
    index: np.ndarray, start: np.ndarray, stop: np.ndarray, count: np.ndarray, width: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and the last left end that go with a right end, rounded as np.linspace does."""
    right = np.where(index == count - 1, stop, index * ((stop - start) / (count - 1)) + start)
    return right - width - BUFFER, right - width + BUFFER


def _count_grid(
    compare: np.ufunc, value: np.ndarray, start: np.ndarray, stop: np.ndarray, count: np.ndarray
) -> np.ndarray:
    """Return how many points of np.linspace(start, stop, count) are < or <= the value, exactly.

    Only the point nearest to the value can be in doubt; that one is made, rounded as np.linspace does.
    """
    step = (stop - start) / (count - 1)
    nearest = np.rint((value - start) / step)
    before_last = np.maximum(nearest + compare(nearest * step + start, value), 0)
    return np.minimum(before_last, count - 1) + compare(stop, value)


def _interval_of_ranks(pool: _Pool, left_rank: int, right_rank: int) -> tuple[float, float]:
    """Return the first interval on the grid of a single example whose ends have these ranks."""
    start, stop, count, width = pool.right_end_grid()[:, 0, 0]
    values = pool.values[0]
    rights = np.linspace(start, stop, int(count))
    for right in rights[values.searchsorted(rights, side="right") == right_rank]:
        lefts = np.linspace(right - width - BUFFER, right - width + BUFFER, N_LEFT_ENDS)
        lefts = lefts[values.searchsorted(lefts, side="left") == left_rank]
        if len(lefts):
            return float(lefts[0]), float(right)
    raise RuntimeError(f"No interval on the grid has the ranks {left_rank} and {right_rank}.")


def _search_thresholds(pool: _Pool) -> tuple[np.ndarray, np.ndarray]:
    """Find the best threshold of each example.

    Returns:
        ``[n_examples]`` each: epsilon, -inf if every threshold is discarded; the winner's rank.
    """
    low, high = pool.values[:, :1], pool.values[:, -1:]
    count = _n_thresholds(low, high)
    step = np.where(count > 1, (high - low) / np.maximum(count - 1, 1), 1.0)
    nearest = np.rint((pool.values - low) / step).clip(0, np.maximum(count - 1, 0))
    at_most = nearest + (_threshold(nearest, low, high) <= pool.values)
    edges = np.concatenate((np.zeros_like(count), at_most, count), axis=1)
    eps = pool.epsilon(pool.code[:, -1:] - pool.code, pool.higher_retrained)
    eps = np.where(edges[:, :-1] < edges[:, 1:], eps, -np.inf)
    winner = eps.argmax(axis=1)
    return np.take_along_axis(eps, winner[:, None], axis=1)[:, 0], winner


def _n_thresholds(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return np.ceil((high - low) * THRESHOLDS_PER_UNIT)


def _threshold(index: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return thresholds of an index: torch.linspace in float32, built from either end and rounded once."""
    count = _n_thresholds(low, high)
    low, high = np.float32(low), np.float32(high)
    step = ((high - low) / np.maximum(count - 1, 1).astype(np.float32)).astype(np.float64)
    from_low, from_high = low + step * index, high - step * (count - 1 - index)
    return np.where(index < np.maximum(count // 2, 1), from_low, from_high).astype(np.float32)


def _threshold_of_rank(pool: _Pool, rank: int) -> float:
    """Return the first threshold of a single example with this rank."""
    low, high = pool.values[0, 0], pool.values[0, -1]
    thresholds = _threshold(np.arange(_n_thresholds(low, high)), low, high).astype(np.float64)
    return float(thresholds[pool.values[0].searchsorted(thresholds, side="left") == rank][0])


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
    eps = _epsilon(fpr, fnr, NOTEBOOK_DELTA)
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
