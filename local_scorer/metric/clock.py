"""The time of unlearning as a share of that of retraining, which may be a fifth.

A run's ratio is its seconds over those that a training would have taken at that time on the same kind of machine,
between the trainings before and after it; an entry's ratio is the median over its runs. On a CPU, CPU seconds
decide: what else the machine does moves them far less than the clock on the wall, though it moves them. They do
not see an entry that waits, so wall-clock seconds stand guard beside them. On a GPU, wall-clock seconds decide.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np

TIME_LIMIT = 0.20  # of retraining from scratch (organisers' metric report; report, section 5.3)
WAITING = 2.0  # times the limit by the wall clock: no more than the limit in CPU seconds is waiting, then
STOPPED_AT = 1.0  # of retraining, by the wall clock without time in which others had the cores: a run ends there
STUDIED_TO = 2.0  # the same with --over-limit
N_REDRAWS = 1000
CLOCKS = {"cpu": "CPU seconds", "wall": "wall-clock seconds"}


@dataclass(frozen=True)
class TimeRatio:
    """The median ratio of an entry's runs with its 95 % interval; all NaN if nothing can be compared."""

    ratio: float = nan
    low: float = nan
    high: float = nan


@dataclass(frozen=True)
class Timed:
    """What some runs took, or some trainings.

    Attributes:
        seconds: float64 ``[n]``.
        machines: str ``[n]``, the kind of machine of each; empty if it is the same for all.
        finished: float64 ``[n]``, when each ended, in seconds since 1970, NaN where that is not known; or empty.
    """

    seconds: np.ndarray
    machines: np.ndarray
    finished: np.ndarray

    def on(self, kind: object) -> Timed:
        """Return those on one kind of machine."""
        here = self.machines == kind
        finished = self.finished[here] if len(self.finished) else self.finished
        return Timed(self.seconds[here], self.machines[here], finished)

    @property
    def has_times(self) -> bool:
        """Whether it is known of each when it ended."""
        return len(self.finished) == len(self.seconds) and bool(np.isfinite(self.finished).all())


@dataclass(frozen=True)
class Times:
    """An entry's time by both clocks.

    Attributes:
        clock: the one that decides, a key of `CLOCKS`.
    """

    clock: str
    cpu: TimeRatio
    wall: TimeRatio

    @property
    def deciding(self) -> TimeRatio:
        return self.cpu if self.clock == "cpu" else self.wall

    @property
    def is_over(self) -> bool:
        return self.deciding.ratio > TIME_LIMIT

    @property
    def is_near(self) -> bool:
        return is_near(self.deciding.low, self.deciding.high)

    @property
    def waits(self) -> bool:
        """Whether it is far over the limit by the wall clock alone, with all of the interval.

        Load lengthens runs and the trainings among them alike, so that a busy machine does not do this.
        """
        return self.clock == "cpu" and not self.is_over and self.wall.low > WAITING * TIME_LIMIT


def deciding_clock(device: str) -> str:
    """Return the clock that decides on a device, a key of `CLOCKS`."""
    return "cpu" if device == "cpu" else "wall"


def is_near(low: float | None, high: float | None) -> bool:
    """Return whether an interval of a ratio holds the limit; None is one that is not known."""
    return low is not None and high is not None and low <= TIME_LIMIT <= high


def time_ratio(runs: Timed, trainings: Timed) -> TimeRatio:
    """Return the median ratio of some runs, each kind of machine compared with itself.

    The interval holds 95 % of the medians over `N_REDRAWS` redraws with replacement (bootstrap, percentiles), of
    runs and of trainings, each within its kind of machine; its seed is fixed. With few trainings it is too narrow:
    the median of four lies between the least and the greatest of them in 7 of 8 cases.

    Returns:
        NaN if no machine did both, or if seconds are not known.

    Raises:
        ValueError: seconds of training are not positive.

    >>> never = np.array([])
    >>> runs = Timed(np.array([1.0, 8.0]), np.array(["a", "b"]), never)
    >>> time_ratio(runs, Timed(np.array([10.0]), np.array(["a"]), never)).ratio
    0.1
    """
    pairs = [(runs, trainings)]
    if len(runs.machines) and len(trainings.machines):
        kinds = [kind for kind in np.unique(runs.machines) if kind in trainings.machines]
        pairs = [(runs.on(kind), trainings.on(kind)) for kind in kinds]
    if not pairs or not all(np.isfinite(each.seconds).all() for pair in pairs for each in pair):
        return TimeRatio()
    if min(of_kind.seconds.min() for _, of_kind in pairs) <= 0:
        raise ValueError(f"The seconds of a training must be positive, found {trainings.seconds.min()}.")
    random = np.random.default_rng(0)
    ratio = np.median(np.concatenate([own.seconds / _beside(own, others) for own, others in pairs]))
    redrawn = np.concatenate([_redrawn(*pair, random) for pair in pairs], axis=1)
    low, high = np.quantile(np.median(redrawn, axis=1), [0.025, 0.975])
    return TimeRatio(float(ratio), float(low), float(high))


def _redrawn(runs: Timed, trainings: Timed, random: np.random.Generator) -> np.ndarray:
    """Return ``[N_REDRAWS, n_runs]`` ratios of runs that are drawn anew, to trainings that are drawn anew."""
    own, others = (random.integers(0, n, (N_REDRAWS, n)) for n in (len(runs.seconds), len(trainings.seconds)))
    ratios = runs.seconds / np.array([_beside(runs, trainings, which) for which in others])
    return np.take_along_axis(ratios, own, axis=1)


def _beside(runs: Timed, trainings: Timed, which: np.ndarray | slice = slice(None)) -> np.ndarray:
    """Return ``[n_runs]``, the seconds of a training at the time of each run, or else of the median training.

    Args:
        which: places of the trainings that count.
    """
    seconds = trainings.seconds[which]
    if not (runs.has_times and trainings.has_times):
        return np.full(len(runs.seconds), np.median(seconds))
    finished = trainings.finished[which]
    order = np.argsort(finished)
    return np.interp(runs.finished, finished[order], seconds[order])


def verdict(times: Times) -> str:
    """Return what is to be said of an entry's time; empty if it is clearly within the limit."""
    deciding, clock = times.deciding, CLOCKS[times.clock]
    found = f"{deciding.ratio:.1%} of the {clock} of retraining (median, 95% interval {deciding.low:.1%} to "
    found += f"{deciding.high:.1%})"
    limit = f"the limit is {TIME_LIMIT:.0%}"
    if times.is_over:
        near = ", and near the limit" if times.is_near else ""
        return f"unlearning() took {found}; {limit}{near}."
    if times.waits:
        return (
            f"unlearning() waits: it took {times.wall.ratio:.1%} of the {CLOCKS['wall']} of retraining and "
            f"{times.cpu.ratio:.1%} of its {CLOCKS['cpu']}, and load, which trainings share, does not explain "
            f"that; {limit}, by the wall {WAITING * TIME_LIMIT:.0%}."
        )
    return f"Near the limit: unlearning() took {found}; {limit}." if times.is_near else ""
