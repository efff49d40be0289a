"""Forecast the hours of 512 runs on Kaggle from a few runs with few pictures on this machine."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch.nn import functional
from torch.utils.data import DataLoader, Subset

from data_prep.dataset import PreparedDataset
from data_prep.loaders import FaceDataset
from kaggle_submission.tools.checks import Finding
from kaggle_submission.tools.rewrite import RUNS
from local_scorer.models.nets import resnet18

# Participants report 4 passes through the retain set as 6 of the 8 hours on a P100, and 5 to 6 as all of them.
HOURS, HOURS_PER_PASS = 8.0, 1.5
HOURS_IN_DOUBT = 6.0
SURELY_TOO_LONG = 2.0  # times the hours, by the fast end of the range; below, a rehearsal cannot tell
PLAIN_PICTURES = 256  # of a pass of plain training


@dataclass(frozen=True)
class Timed:
    """Runs of a notebook with so many pictures.

    Attributes:
        seconds: of each run but the first, which warms up.
        plain: seconds of plain training on one picture, measured right beside them.
    """

    retain: int
    forget: int
    seconds: tuple[float, ...]
    plain: float


@dataclass(frozen=True)
class Work:
    """The seconds of a run: `fixed`, whatever the pictures, and those of one picture of each kind."""

    fixed: float
    retain: float
    forget: float

    def hours_on_kaggle(self, retain: int, forget: int, plain: float) -> float:
        """Return the hours there: work on pictures in plain passes, whose time is known, and the rest as here.

        Args:
            plain: seconds of plain training on one picture here.
        """
        passes = (self.retain * retain + self.forget * forget) / (plain * retain)
        return RUNS * self.fixed / 3600 + passes * HOURS_PER_PASS


def split_work(counts: tuple[Timed, Timed, Timed], seconds: tuple[float, float, float]) -> Work:
    """Return what a run is made of.

    Args:
        counts: timed with all shown pictures, with fewer to retain, and with fewer to forget.
        seconds: of a run in each of them.

    >>> counts = Timed(100, 40, (), 0.1), Timed(50, 40, (), 0.1), Timed(100, 20, (), 0.1)
    >>> split_work(counts, (15.0, 10.0, 13.0))
    Work(fixed=1.0, retain=0.1, forget=0.1)
    """
    most, fewer_retain, fewer_forget = counts
    retain = max(0.0, seconds[0] - seconds[1]) / max(1, most.retain - fewer_retain.retain)
    forget = max(0.0, seconds[0] - seconds[2]) / max(1, most.forget - fewer_forget.forget)
    fixed = max(0.0, seconds[0] - retain * most.retain - forget * most.forget)
    return Work(fixed, retain, forget)


def forecast(counts: tuple[Timed, Timed, Timed], retain: int, forget: int) -> Finding:
    """Say how long all runs would take with so many pictures, and how far the timed runs leave that open.

    Args:
        counts: as for `split_work`.
    """
    plain = statistics.mean(timed.plain for timed in counts)
    counts = tuple(_at_speed(timed, plain) for timed in counts)
    seconds = tuple(statistics.median(timed.seconds) for timed in counts)
    work, most = split_work(counts, seconds), counts[0]
    hours = work.hours_on_kaggle(retain, forget, plain)
    passes = (work.retain * retain + work.forget * forget) / (plain * retain)
    text = (
        f"A run took {seconds[0]:.1f} s of work with {most.retain} pictures to retain and {most.forget} to "
        f"forget: {work.fixed:.2f} s for itself, {1000 * work.retain:.1f} ms for each to retain and "
        f"{1000 * work.forget:.1f} ms for each to forget, where plain training needs {1000 * plain:.1f} ms. With "
        f"all {retain:,} and {forget:,} that is like {passes:.1f} passes through the retain set, and {RUNS} runs "
        f"on Kaggle with the competition's pictures take roughly {hours:.1f} of {HOURS:g} h, "
    )
    if len(most.seconds) < 2:
        text += "from one timed run of each kind, so how sure that is remains unknown: use --runs 4."
        shortest = RUNS * seconds[0] / 3600  # whatever it is made of
    else:
        off = _two_standard_errors(counts, seconds, retain, forget, plain)
        shortest = max(0.0, hours - off)
        text += f"from {shortest:.1f} to {hours + off:.1f} by how much the timed runs differ."
    if shortest > SURELY_TOO_LONG * HOURS:
        return Finding("FAIL", "time", text + " Do less in each run.")
    if hours > HOURS_IN_DOUBT:
        return Finding("warn", "time", text + " That may be too long: watch the clock on Kaggle.")
    return Finding("ok", "time", text)


def _at_speed(timed: Timed, plain: float) -> Timed:
    """Return what would have been timed on a machine as fast as `plain` says."""
    return replace(timed, seconds=tuple(seconds * plain / timed.plain for seconds in timed.seconds))


def _two_standard_errors(
    counts: tuple[Timed, Timed, Timed], seconds: tuple[float, ...], retain: int, forget: int, plain: float
) -> float:
    """Return how far the forecast may be off in hours: what each of the three times adds, taken together."""

    def hours(place: int, change: float) -> float:
        changed = (*seconds[:place], max(0.0, seconds[place] + change), *seconds[place + 1 :])
        return split_work(counts, changed).hours_on_kaggle(retain, forget, plain)

    moves = []
    for place, timed in enumerate(counts):
        if len(timed.seconds) > 1:
            error = 2 * statistics.stdev(timed.seconds) / len(timed.seconds) ** 0.5
            moves.append(max(abs(hours(place, sign * error) - hours(place, 0.0)) for sign in (-1, 1)))
    return math.hypot(*moves)


def time_plain_training(
    data: PreparedDataset, weights: dict[str, torch.Tensor], n_pictures: int
) -> Iterator[float]:
    """Give the seconds of plain training on one picture, here and now: of one more pass each time it is asked.

    They are CPU seconds, or with a GPU those of the clock on the wall.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    clock = time.perf_counter if device == "cuda" else time.process_time
    net = resnet18(len(weights["fc.bias"]))
    net.load_state_dict(weights)
    net.to(device).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
    some = Subset(FaceDataset(data, "retain"), range(min(n_pictures, PLAIN_PICTURES)))
    loader = DataLoader(some, batch_size=64, shuffle=True)
    warm = False
    while True:
        start = clock()
        for batch in loader:
            if len(batch["age_group"]) > 1:  # batch normalisation cannot use a single picture
                loss = functional.cross_entropy(net(batch["image"].to(device)), batch["age_group"].to(device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()
        if warm:
            yield (clock() - start) / len(some)
        warm = True
