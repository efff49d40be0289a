"""What it takes to read a leaderboard: intervals, ties, forecasts, and audits that never enter the score.

All under the official rules: the notebook's logistic regressions are too slow to be redrawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from local_scorer.metric.score import ModelSet, statistic
from local_scorer.runs.store import JobResult
from local_scorer.statistics import audits, forecast, intervals
from local_scorer.statistics import ties as comparisons
from local_scorer.statistics.audits import Behaviour, Distance
from local_scorer.statistics.forecast import Forecast
from local_scorer.statistics.intervals import Intervals, Redraws
from local_scorer.statistics.ties import Comparison

AUDITED_MODELS = 10  # the membership attack is fitted ten times a model; more models only cost time


@dataclass(frozen=True)
class Tie:
    """Entries that cannot be told from the first of them.

    Attributes:
        entries: names, best first.
        models_needed: how many models, at least, would tell the last from the first; None if 512 would not, or
            if there are too few models to say.
        n_models: models at hand.
    """

    entries: tuple[str, ...]
    models_needed: int | None
    n_models: int

    def __str__(self) -> str:
        first, *others = self.entries
        if self.n_models < forecast.LEAST_MODELS:
            needed = f"how many models would, can be said from {forecast.LEAST_MODELS} on"
        elif self.models_needed is None:
            needed = f"{forecast.COMPETITION_MODELS} models would hardly do"
        else:
            needed = f"at least {self.models_needed} models would tell the last"
        return f"{first} cannot be told from {', '.join(others)} ({needed})."


def redraw_all(entries: Mapping[str, ModelSet], retrained: ModelSet) -> dict[str, Redraws]:
    """Redraw every entry with the same redraws of retrained models and forget examples."""
    return {
        name: intervals.redraw(models, retrained, entry=number)
        for number, (name, models) in enumerate(entries.items())
    }


def intervals_of(redraws: Mapping[str, Redraws]) -> dict[str, Intervals]:
    """Return the intervals of every entry."""
    return {name: intervals.intervals_of(drawn) for name, drawn in redraws.items()}


def forecasts(entries: Mapping[str, ModelSet], retrained: ModelSet) -> dict[str, Forecast | None]:
    """Forecast every entry's score with as many models as the competition had; None where N is too small.

    Neither is there a forecast of an entry with broken models: how many of others would break is not known.
    """
    return {
        name: forecast.forecast(models, retrained) if np.isfinite(models.logits).all() else None
        for name, models in entries.items()
    }


def ties(
    redraws: Mapping[str, Redraws], entries: Mapping[str, ModelSet], retrained: ModelSet
) -> tuple[tuple[Comparison, ...], tuple[Tie, ...]]:
    """Return every pair's comparison, and the groups of two or more that cannot be told apart."""
    pairs = comparisons.comparisons(redraws)
    order = sorted(redraws, key=lambda name: (-redraws[name].score, name))
    found = []
    for group in comparisons.groups(pairs, order):
        if len(group) > 1:
            first, last = ((entries[name], retrained) for name in (group[0], group[-1]))
            found.append(Tie(group, forecast.models_needed(first, last), retrained.n_models))
    return pairs, tuple(found)


def distance_of(models: ModelSet, retrained: ModelSet) -> Distance | None:
    """Compare the confidences of an entry with the retrained models'; None if none is finite."""
    try:
        return audits.distance(statistic(models, "official"), statistic(retrained, "official"))
    except ValueError:  # a broken model: its row says so by its score
        return None


def behaviour_of(results: Sequence[JobResult]) -> Behaviour | None:
    """Audit up to `AUDITED_MODELS` models of one kind; None if the forget or the test set is too small."""
    if min(len(results[0].labels["forget"]), len(results[0].labels["test"])) < 10:
        return None
    return audits.behaviour(results, AUDITED_MODELS)
