"""Which entries can be told apart? Pairs of entries under the same redraws of retrained models and examples.

Every entry is held against the same retrained models and the same forget set, so that luck with these moves
all scores together. Two entries are told apart where their scores differ by more than t standard deviations of
that difference over redraws, t the two-sided 95 % quantile of Student's distribution with N - 1 degrees of
freedom; where not, the two share a place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from local_scorer.statistics.intervals import Redraws, student_quantile
from local_scorer.statistics.originals import AS_GIVEN, told_apart

LEVEL = 0.95


@dataclass(frozen=True)
class Comparison:
    """Two entries; `first` has the higher score.

    Attributes:
        share: share of redraws in which the first beats the second; a draw counts one half.
        told_apart: whether the order would survive a repetition of the evaluation.
        n_resamples: number of redraws behind the share, or of originals.
    """

    first: str
    second: str
    share: float
    told_apart: bool
    n_resamples: int


@dataclass(frozen=True)
class Tie:
    """Entries that cannot be told from the first of them.

    Attributes:
        entries: names, best first.
        n_models: models behind each score, from each original.
        n_originals: originals behind each score.
    """

    entries: tuple[str, ...]
    n_models: int
    n_originals: int = 1

    def __str__(self) -> str:
        first, *others = self.entries
        by = f"{self.n_originals} originals" if self.n_originals > 1 else f"{self.n_models} models"
        return f"{first} cannot be told from {', '.join(others)} by {by}."


def ties(
    pairs: Sequence[Comparison], names: Sequence[str], n_models: int, n_originals: int = 1
) -> tuple[Tie, ...]:
    """Return the groups of two or more entries that cannot be told apart.

    Args:
        pairs: what :func:`comparisons` or :func:`comparisons_over_originals` returns.
        names: the entries, best first.
        n_models, n_originals: what is behind each score.
    """
    return tuple(Tie(group, n_models, n_originals) for group in groups(pairs, names) if len(group) > 1)


def comparisons(redraws: Mapping[str, Redraws]) -> tuple[Comparison, ...]:
    """Compare every pair of entries, models and examples redrawn; best scores first.

    Args:
        redraws: name of each entry -> :func:`local_scorer.statistics.intervals.redraw`, all with the same seed,
            retrained models and number of resamples, and each with its own `entry` number.

    Raises:
        ValueError: the redraws do not belong together.
    """
    order = by_score(redraws)
    kinds = {(len(r.score_both), r.seed, r.n_examples) for r in redraws.values()}
    if len(kinds) > 1:
        raise ValueError(
            "Entries are compared under the same redraws: expected one number of resamples, one seed and one "
            f"forget set, found {len(kinds)} combinations. Redraw all entries with the same arguments."
        )
    found = []
    for place, first in enumerate(order):
        for second in order[place + 1 :]:
            difference = redraws[first].score_both - redraws[second].score_both
            share = float(np.mean((difference > 0) + 0.5 * (difference == 0)))
            degrees = min(redraws[name].n_models for name in (first, second)) - 1
            least = student_quantile(degrees, (1 + LEVEL) / 2) * float(difference.std(ddof=1))
            apart = redraws[first].score - redraws[second].score > least
            found.append(
                Comparison(first=first, second=second, share=share, told_apart=apart, n_resamples=len(difference))
            )
    return tuple(found)


def comparisons_over_originals(
    scores: Mapping[str, Sequence[float]], moves: Mapping[str, Sequence[float]] | None = None
) -> tuple[Comparison, ...]:
    """Compare every pair of entries by their scores from the same originals; best mean first.

    Args:
        scores: name of each entry -> ``[n_originals]``, its score from each original.
        moves: name of each entry -> how it moves with the retrained models; by default these are as given.

    >>> scores = {"a": (0.05, 0.07, 0.06), "b": (0.03, 0.05, 0.039)}
    >>> comparisons_over_originals(scores)
    (Comparison(first='a', second='b', share=1.0, told_apart=True, n_resamples=3),)
    """
    order = sorted(scores, key=lambda name: (-float(np.mean(scores[name])), name))
    found = []
    for place, first in enumerate(order):
        for second in order[place + 1 :]:
            difference = np.subtract(scores[first], scores[second])
            share = float(np.mean((difference > 0) + 0.5 * (difference == 0)))
            of_both = (moves[first], moves[second]) if moves else (AS_GIVEN, AS_GIVEN)
            apart = told_apart(scores[first], scores[second], moves=of_both)
            found.append(
                Comparison(first=first, second=second, share=share, told_apart=apart, n_resamples=len(difference))
            )
    return tuple(found)


def groups(pairs: Sequence[Comparison], names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Group what cannot be told apart from the best of its group; best group first.

    Being told apart is not transitive: the last of one group and the first of the next may be close. A group
    says that its members cannot be told from its first.

    Args:
        pairs: what :func:`comparisons` returns.
        names: the entries, best first.

    >>> pairs = [Comparison("a", "b", 0.7, False, 60), Comparison("a", "c", 1.0, True, 60)]
    >>> groups([*pairs, Comparison("b", "c", 0.9, False, 60)], ["a", "b", "c"])
    (('a', 'b'), ('c',))
    """
    apart = {(pair.first, pair.second): pair.told_apart for pair in pairs}
    found: list[list[str]] = []
    for name in names:
        if found and not apart[found[-1][0], name]:
            found[-1].append(name)
        else:
            found.append([name])
    return tuple(tuple(group) for group in found)


def by_score(redraws: Mapping[str, Redraws]) -> list[str]:
    """Return the names of the entries, best first."""
    return sorted(redraws, key=lambda name: (-redraws[name].score, name))
