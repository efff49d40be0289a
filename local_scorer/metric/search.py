"""The search for the strongest official attack: all thresholds of a grid, and its 160,000 intervals.

The intervals are not tried one by one. Each counts only through the ranks of its two ends among the pooled values,
so the epsilon of a pair of ranks is looked up. Pairs are taken in the order of their epsilon until one is found
that the grid reaches, exactly. The grids are described in :mod:`local_scorer.metric.attacks`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np

OFFICIAL_DELTA = 1e-5
EPSILON_CAP = 50.0
THRESHOLDS_PER_UNIT = 100
BUFFER = 2.0  # how far the ends of intervals reach beyond the narrower sample
N_LEFT_ENDS = 400
MOST_RIGHT_ENDS = 401
WIDE_GAP = 0.03  # between pooled values; safely more than two steps of the left ends, which are 4 / 399
NO_ATTACK = 0  # the code of an attack that is discarded: it takes no model for an unlearned one
CHUNK_ELEMENTS = 2**16  # pairs looked up at a time, so that they stay in the cache


@dataclass(frozen=True)
class Roles:
    """Which of two samples is which, for some examples.

    Attributes:
        narrow_low: float64 ``[n_examples]``, the lowest value of the sample with the narrower range.
        narrow_high: float64 ``[n_examples]``, its highest value.
        narrow_retrained: bool ``[n_examples]``, whether that is the retrained sample.
        higher_retrained: bool ``[n_examples]``, whether the retrained sample has the higher median.
        disjoint: bool ``[n_examples]``, whether the two ranges do not overlap.
    """

    narrow_low: np.ndarray
    narrow_high: np.ndarray
    narrow_retrained: np.ndarray
    higher_retrained: np.ndarray
    disjoint: np.ndarray

    @classmethod
    def of(cls, unlearned: np.ndarray, retrained: np.ndarray) -> Roles:
        """Compare finite ``[n_models, n_examples]`` x 2."""
        low_u, low_r = unlearned.min(axis=0), retrained.min(axis=0)
        high_u, high_r = unlearned.max(axis=0), retrained.max(axis=0)
        range_u, range_r = high_u - low_u, high_r - low_r
        higher_retrained = np.median(retrained, axis=0) > np.median(unlearned, axis=0)
        # With equal ranges the released scorer swaps the roles that the medians gave.
        narrow_retrained = np.where(range_u == range_r, ~higher_retrained, range_r < range_u)
        return cls(
            narrow_low=np.where(narrow_retrained, low_r, low_u),
            narrow_high=np.where(narrow_retrained, high_r, high_u),
            narrow_retrained=narrow_retrained,
            higher_retrained=higher_retrained,
            disjoint=(high_u < low_r) | (high_r < low_u),
        )

    def part(self, examples: np.ndarray) -> Roles:
        """Return the roles of some of the examples."""
        return Roles(*(getattr(self, field.name)[examples] for field in fields(self)))

    def chunks(self, n_unlearned: int, n_retrained: int) -> Iterator[np.ndarray]:
        """Yield a few examples at a time, all with the same sample as the narrower one."""
        for retrained, n_narrow in ((False, n_unlearned), (True, n_retrained)):
            examples = np.flatnonzero(self.narrow_retrained == retrained)
            n_right_ranks = min(n_unlearned + n_retrained, MOST_RIGHT_ENDS)
            size = max(1, CHUNK_ELEMENTS // (n_right_ranks * n_narrow))
            yield from (examples[start : start + size] for start in range(0, len(examples), size))


@dataclass(frozen=True)
class Pool:
    """Both samples of some examples in ascending order, so that an interval is a pair of ranks.

    The interval that holds the values of rank left to right - 1 has the code ``code[right] - code[left]``: u
    values of unlearned models and r of retrained ones inside make ``u * (n_retrained + 1) + r``. Predicting
    "retrained" inside a region is predicting "unlearned" outside it: an attack has the code of the values, inside
    or outside, that it takes for unlearned.

    Attributes:
        values: float64 ``[n_examples, n_pooled]``.
        code: int ``[n_examples, n_pooled + 1]``.
        is_narrow: bool ``[n_examples, n_pooled]``, whether a value is of the sample with the narrower range; that
            is the same kind of model for all examples.
        table: float32 ``[n_codes]``, the epsilon of an attack.
    """

    values: np.ndarray
    code: np.ndarray
    is_narrow: np.ndarray
    table: np.ndarray
    roles: Roles

    @classmethod
    def of(cls, unlearned: np.ndarray, retrained: np.ndarray, roles: Roles) -> Pool:
        """Pool finite ``[n_models, n_examples]`` x 2."""
        values = np.concatenate((unlearned, retrained)).T
        order = values.argsort(axis=1)
        is_retrained = order >= len(unlearned)
        code = np.where(is_retrained, 1, len(retrained) + 1).cumsum(axis=1)
        return cls(
            values=np.take_along_axis(values, order, axis=1),
            code=np.concatenate((np.zeros_like(code[:, :1]), code), axis=1),
            is_narrow=is_retrained == roles.narrow_retrained[:, None],
            table=_epsilon_table(len(unlearned), len(retrained)),
            roles=roles,
        )

    def attack(self, inside: np.ndarray, retrained_inside: np.ndarray) -> np.ndarray:
        """Return the code of the attack that predicts one kind in a region that holds the code `inside`."""
        return np.where(retrained_inside, len(self.table) - 1 - inside, inside)

    def right_end_grid(self) -> np.ndarray:
        """Return start, stop and count of the right ends, and the narrower range: ``[4, n_examples]``."""
        low, high = self.roles.narrow_low, self.roles.narrow_high
        start, stop = low + (high - low) - BUFFER, high + BUFFER
        count = np.ceil((stop - start) * THRESHOLDS_PER_UNIT)  # 400, or by rounding 401
        return np.stack((start, stop, count, high - low))


@lru_cache(maxsize=16)
def _epsilon_table(n_unlearned: int, n_retrained: int) -> np.ndarray:
    """Return the epsilon of each code of :class:`Pool`, -inf where the attack is discarded, as at `NO_ATTACK`.

    Rates and logarithms are float32, as in the released scorer.
    """
    fnr = (np.arange(n_unlearned, -1, -1, dtype=np.float32) / np.float32(n_unlearned))[:, None]
    fpr = (np.arange(n_retrained + 1, dtype=np.float32) / np.float32(n_retrained))[None, :]
    eps = epsilon_of_rates(fpr, fnr, OFFICIAL_DELTA).clip(0, EPSILON_CAP)
    eps[np.isnan(eps) | (fpr * fnr == 0)] = -np.inf
    eps[-1, 0] = EPSILON_CAP  # no error at all
    eps = eps.ravel()
    eps.flags.writeable = False
    return eps


def epsilon_of_rates(fpr: np.ndarray, fnr: np.ndarray, delta: float) -> np.ndarray:
    """Return the epsilon of rates, in their precision; NaN where neither logarithm exists."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.fmax(np.log(1 - delta - fpr) - np.log(fnr), np.log(1 - delta - fnr) - np.log(fpr))


@dataclass(frozen=True)
class Pairs:
    """Pairs of a right and a left rank: the best that is not ruled out for a row and a column.

    A row is a right rank of an example, a column a number of narrow values below the left end. Let gap j lie
    between the pooled values j - 1 and j; a left end in it has the rank j. The more of the other sample are
    inside, the lower is epsilon: so the last gap of a column is the best that is not discarded.

    Attributes:
        example, rank: int ``[n_rows]``.
        begin, end: int ``[n_rows]``; right ends from begin to end - 1 on their grid have the rank.
        grid: float64 ``[4, n_rows]``; see `Pool.right_end_grid`.
        first: int ``[n_examples, n_columns]``, the first gap with so many narrow values below it.
        gap: int ``[n_rows, n_columns]``.
    """

    pool: Pool
    example: np.ndarray
    rank: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    grid: np.ndarray
    first: np.ndarray
    gap: np.ndarray

    @classmethod
    def of(cls, pool: Pool) -> Pairs:
        """Pair each rank that right ends have with the last gaps that their left ends sweep."""
        n_examples, n_pooled = pool.values.shape
        grid = pool.right_end_grid()
        below = _count_grid(np.less, pool.values, *grid[:3, :, None])
        edges = np.concatenate((np.zeros_like(below[:, :1]), below, grid[2, :, None]), axis=1).astype(np.intp)
        example, rank = np.nonzero(edges[:, :-1] < edges[:, 1:])
        end, grid = edges[example, rank + 1], grid[:, example]
        _, highest = _left_range(end - 1, *grid)
        of_example = np.split(highest, np.searchsorted(example, np.arange(1, n_examples)))
        swept = [values.searchsorted(to) for values, to in zip(pool.values, of_example, strict=True)]

        narrow = np.nonzero(pool.is_narrow)[1].reshape(n_examples, -1)
        last = np.concatenate((narrow, np.full((n_examples, 1), n_pooled)), axis=1)  # a gap below a narrow value
        places = np.where(pool.is_narrow, -1, np.arange(n_pooled))
        other = np.concatenate((np.full((n_examples, 1), -1), np.maximum.accumulate(places, axis=1)), axis=1)
        gap = np.minimum(last[example], np.minimum(np.concatenate(swept), other[example, rank])[:, None])
        whole = rank > narrow[example, -1]  # the only rows where none of the other sample may be inside
        gap[whole, 0] = np.minimum(last[example, 0], np.concatenate(swept))[whole]
        first = np.concatenate((np.zeros_like(last[:, :1]), last[:, :-1] + 1), axis=1)
        return cls(pool, example, rank, edges[example, rank], end, grid, first, gap)

    def attack(self, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """Return the code of some pairs, `NO_ATTACK` where no left rank is left; row and column broadcast."""
        pool, example, gap = self.pool, self.example[row], self.gap[row, column]
        begins = example * pool.code.shape[1]
        inside = pool.code.take(begins + self.rank[row]) - pool.code.take(begins + gap)
        found = pool.attack(inside, pool.roles.narrow_retrained[0])
        return np.where(gap < self.first[example, column], NO_ATTACK, found)

    def are_reached(self, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """Tell whether a right end of the rank has a left end in the gap, for some pairs: bool ``[n]``."""
        example, gap = self.example[row], self.gap[row, column]
        values, n_pooled = self.pool.values, self.pool.values.shape[1]
        low = np.where(gap > 0, values[example, gap - 1], -np.inf)
        high = np.where(gap < n_pooled, values[example, np.minimum(gap, n_pooled - 1)], np.inf)
        length = self.end[row] - self.begin[row]
        starts = np.cumsum(length) - length
        right_end = np.arange(length.sum()) - np.repeat(starts - self.begin[row], length)
        left_ends = *_left_range(right_end, *np.repeat(self.grid[:, row], length, axis=1)), N_LEFT_ENDS
        at_low = _count_grid(np.less_equal, np.repeat(low, length), *left_ends)
        at_high = _count_grid(np.less_equal, np.repeat(high, length), *left_ends)
        return np.logical_or.reduceat(at_low < at_high, starts)


def search_intervals(pool: Pool) -> np.ndarray:
    """Return the code of the best interval of each example, ``[n_examples]``, the first of equal ones.

    The best pairs are tried first; those that the grid misses go on to the next left rank.
    """
    pairs = Pairs.of(pool)
    eps = pool.table[pairs.attack(*np.ogrid[: len(pairs.gap), : pairs.gap.shape[1]])]
    best_of_row = eps.max(axis=1)
    starts = np.searchsorted(pairs.example, np.arange(len(pool.values)))
    found = np.full(len(pool.values), NO_ATTACK)
    while True:
        best = np.maximum.reduceat(best_of_row, starts)[pairs.example]
        rows = np.flatnonzero((best_of_row == best) & (best > -np.inf))
        if not len(rows):
            return found
        at, column = np.nonzero(eps[rows] == best[rows, None])
        row = rows[at]
        reached = pairs.are_reached(row, column)
        examples, first = np.unique(pairs.example[row[reached]], return_index=True)
        found[examples] = pairs.attack(row[reached][first], column[reached][first])
        row, column = row[~reached], column[~reached]
        pairs.gap[row, column] -= 1
        eps[row, column] = pool.table[pairs.attack(row, column)]
        best_of_row[rows] = eps[rows].max(axis=1)
        best_of_row[(found != NO_ATTACK)[pairs.example]] = -np.inf


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


def first_interval(pool: Pool, epsilon: float) -> tuple[float, float]:
    """Return an interval of a single example with this epsilon, best with a left end in a wide gap.

    It is the first by the ranks of its right and its left end.
    """
    start, stop, count, width = pool.right_end_grid()[:, 0]
    (values,), (code,) = pool.values, pool.code
    rights = np.linspace(start, stop, int(count))
    of_rights = values.searchsorted(rights, side="right")
    is_wide = np.diff(values, prepend=-np.inf, append=np.inf) > WIDE_GAP
    for least in (True, False):
        for rank in np.unique(of_rights):
            right = rights[of_rights == rank]
            left = np.linspace(right - width - BUFFER, right - width + BUFFER, N_LEFT_ENDS, axis=1)
            gap = values.searchsorted(left, side="left")
            inside = np.maximum(code[rank] - code[gap], 0)  # 0: left end beyond the right end
            hits = pool.table[pool.attack(inside, pool.roles.narrow_retrained[0])] == epsilon
            hits &= is_wide[gap] >= least
            if hits.any():
                place = tuple(np.argwhere(hits & (gap == gap[hits].min()))[0])
                return float(left[place]), float(right[place[0]])
    raise RuntimeError(f"No interval on the grid has the epsilon {epsilon}.")


def search_thresholds(pool: Pool) -> np.ndarray:
    """Return the code of the best threshold of each example, ``[n_examples]``, the first of equal ones."""
    low, high = pool.values[:, :1], pool.values[:, -1:]
    count = _n_thresholds(low, high)
    step = np.where(count > 1, (high - low) / np.maximum(count - 1, 1), 1.0)
    nearest = np.rint((pool.values - low) / step).clip(0, np.maximum(count - 1, 0))
    at_most = nearest + (_threshold(nearest, low, high) <= pool.values)
    edges = np.concatenate((np.zeros_like(count), at_most, count), axis=1)
    attacks = pool.attack(pool.code[:, -1:] - pool.code, pool.roles.higher_retrained[:, None])
    attacks = np.where(edges[:, :-1] < edges[:, 1:], attacks, NO_ATTACK)
    found = attacks[np.arange(len(attacks)), pool.table[attacks].argmax(axis=1)]
    return np.where(np.isinf(pool.table[found]), NO_ATTACK, found)


def _n_thresholds(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return np.ceil((high - low) * THRESHOLDS_PER_UNIT)


def _threshold(index: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return thresholds of an index: torch.linspace in float32, built from either end and rounded once."""
    count = _n_thresholds(low, high)
    low, high = np.float32(low), np.float32(high)
    step = ((high - low) / np.maximum(count - 1, 1).astype(np.float32)).astype(np.float64)
    from_low, from_high = low + step * index, high - step * (count - 1 - index)
    return np.where(index < np.maximum(count // 2, 1), from_low, from_high).astype(np.float32)


def first_threshold(pool: Pool, attack: int) -> float:
    """Return the first threshold of a single example that makes this attack."""
    (values,) = pool.values
    attacks = pool.attack(pool.code[0, -1] - pool.code[0], pool.roles.higher_retrained[0])
    thresholds = _threshold(np.arange(_n_thresholds(values[0], values[-1])), values[0], values[-1])
    thresholds = thresholds.astype(np.float64)
    return float(thresholds[attacks[values.searchsorted(thresholds, side="left")] == attack][0])
