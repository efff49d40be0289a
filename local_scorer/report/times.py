"""The time of each row of a board, held against the trainings of its run."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from local_scorer.metric import clock
from local_scorer.metric.clock import TIME_LIMIT, Timed, TimeRatio, Times
from local_scorer.metric.score import ModelSet
from local_scorer.runs.record import CEILING, FLOOR, Run


def times_of(run: Run, name: str) -> Times:
    """Return the time of a row by both clocks."""
    clocks = ("cpu", "wall")
    if name == FLOOR:
        ratios = {which: TimeRatio(0.0, 0.0, 0.0) for which in clocks}
    else:
        both = (run.sets(name), run.timed_beside(name))
        ratios = {which: clock.time_ratio(*(timed(sets, which) for sets in both)) for which in clocks}
    return Times(clock.deciding_clock(run.record.settings.device), **ratios)


def timed(sets: Sequence[ModelSet], which: str) -> Timed:
    """Return what all models of some sets took by one clock, "cpu" or "wall"."""
    return Timed(*(joined(sets, name) for name in (f"{which}_seconds", "machines", "finished")))


def seconds_of(run: Run, name: str) -> float:
    """Return the mean wall-clock seconds of a row; NaN if they are not known."""
    return 0.0 if name == FLOOR else float(np.mean(joined(run.sets(name), "wall_seconds")))


def training_seconds(run: Run, name: str, which: str) -> float:
    """Return the median seconds of the trainings that a row is timed by, on one clock, "cpu" or "wall"."""
    return float(np.median(joined(run.timed_beside(name), f"{which}_seconds")))


def is_rejected(name: str, times: Times) -> bool:
    """Return whether an entry is over the time limit; the references are not held to it."""
    return name not in (FLOOR, CEILING) and (times.is_over or times.waits)


def reason(name: str, times: Times, seconds: float) -> str:
    """Return what is to be said of the time of a row, if anything."""
    if name in (FLOOR, CEILING):
        return ""
    if math.isnan(seconds):
        return f"Made elsewhere, in a time that is not known: the limit of {TIME_LIMIT:.0%} was not checked."
    if math.isnan(times.deciding.ratio):
        return f"No kind of machine ran both it and a retraining: the limit of {TIME_LIMIT:.0%} was not checked."
    return clock.verdict(times)


def joined(sets: Sequence[ModelSet], name: str) -> np.ndarray:
    """Return an array of all models of some sets."""
    return np.concatenate([getattr(models, name) for models in sets])
