"""Forecast the hours of 512 runs on Kaggle from a few runs with few pictures on this machine."""

from __future__ import annotations

import itertools
import statistics
import time
from dataclasses import dataclass

import torch
from torch import nn
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
SURELY_TOO_LONG = 2.0  # times the hours, by the fastest runs; below, a rehearsal cannot tell
PLAIN_PASSES = 3  # timed, after one that warms up


@dataclass(frozen=True)
class Timed:
    """Runs of a notebook with so many pictures: the seconds of each but the first, which warms up."""

    retain: int
    forget: int
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class Work:
    """The seconds of a run: `fixed`, whatever the pictures, and those of one picture of each kind."""

    fixed: float
    retain: float
    forget: float

    def hours_here(self, retain: int, forget: int) -> float:
        """Return the hours of all runs with so many pictures on the machine that was timed."""
        return RUNS * (self.fixed + self.retain * retain + self.forget * forget) / 3600

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

    >>> counts = Timed(100, 40, ()), Timed(50, 40, ()), Timed(100, 20, ())
    >>> split_work(counts, (15.0, 10.0, 13.0))
    Work(fixed=1.0, retain=0.1, forget=0.1)
    """
    most, fewer_retain, fewer_forget = counts
    retain = max(0.0, seconds[0] - seconds[1]) / max(1, most.retain - fewer_retain.retain)
    forget = max(0.0, seconds[0] - seconds[2]) / max(1, most.forget - fewer_forget.forget)
    fixed = max(0.0, seconds[0] - retain * most.retain - forget * most.forget)
    return Work(fixed, retain, forget)


def forecast(counts: tuple[Timed, Timed, Timed], retain: int, forget: int, plain: list[float]) -> Finding:
    """Say how long all runs would take with so many pictures, and how far the timed runs leave that open.

    Args:
        counts: as for `split_work`.
        plain: seconds of plain training on one picture, in several passes.
    """
    work = split_work(counts, tuple(statistics.median(timed.seconds) for timed in counts))
    hours = work.hours_on_kaggle(retain, forget, statistics.median(plain))
    extremes = [(min(timed.seconds), max(timed.seconds)) for timed in counts]
    others = [
        split_work(counts, seconds).hours_on_kaggle(retain, forget, picture)
        for seconds in itertools.product(*extremes)
        for picture in (min(plain), max(plain))
    ]
    most = counts[0]
    text = (
        f"A run took {statistics.median(most.seconds):.1f} s with {most.retain} pictures to retain and "
        f"{most.forget} to forget: {work.fixed:.2f} s for itself, {1000 * work.retain:.1f} ms for each to retain "
        f"and {1000 * work.forget:.1f} ms for each to forget. {RUNS} runs with all {retain:,} and {forget:,} "
        f"would take {work.hours_here(retain, forget):.1f} h on this machine, which is no P100; there, with the "
        f"competition's pictures, expect roughly {hours:.1f} of {HOURS:g} h, "
    )
    if len(most.seconds) < 2:
        text += "from one timed run of each kind, so how sure that is remains unknown: use --runs 4."
        others = [RUNS * most.seconds[0] / 3600]  # whatever it is made of
    else:
        text += f"from {min(others):.1f} to {max(others):.1f} by how much the timed runs differ."
    if min(others) > SURELY_TOO_LONG * HOURS:
        return Finding("FAIL", "time", text + " Do less in each run.")
    if hours > HOURS_IN_DOUBT:
        return Finding("warn", "time", text + " That may be too long: watch the clock on Kaggle.")
    return Finding("ok", "time", text)


def time_plain_training(data: PreparedDataset, weights: dict[str, torch.Tensor], n_pictures: int) -> list[float]:
    """Return the seconds of plain training on one picture, here and now: of several passes after a first one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = resnet18(len(weights["fc.bias"]))
    net.load_state_dict(weights)
    net.to(device).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
    some = Subset(FaceDataset(data, "retain"), range(n_pictures))
    loader = DataLoader(some, batch_size=64, shuffle=True)
    seconds = []
    for _ in range(1 + PLAIN_PASSES):
        start = time.perf_counter()
        _train_pass(net, loader, optimizer, device)
        seconds.append((time.perf_counter() - start) / n_pictures)
    return seconds[1:]


def _train_pass(net: nn.Module, loader: DataLoader, optimizer: torch.optim.Optimizer, device: str) -> None:
    for batch in loader:
        if len(batch["age_group"]) > 1:  # batch normalisation cannot use a single picture
            loss = functional.cross_entropy(net(batch["image"].to(device)), batch["age_group"].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    if device == "cuda":
        torch.cuda.synchronize()
