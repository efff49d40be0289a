"""Work through a list of jobs: skip what exists, share the rest among an engine's slots, show one progress bar."""

from __future__ import annotations

import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Protocol

from tqdm.auto import tqdm

from local_scorer.execution.job import TRAINED_ROLES, Job
from local_scorer.runs.store import Failure, RunFolder

LOOK_AGAIN = 1.0  # seconds between looks at jobs that another run is working on


class Engine(Protocol):
    """Where jobs run: on this machine (`local`), on a Ray cluster (`ray`), or anywhere else.

    An engine is opened by whoever uses it, in a ``with`` block that ends in `close`. All it has to do is to run
    ``python -m local_scorer job FILE`` on a machine that sees the run folder and the data.
    """

    @property
    def slots(self) -> int:
        """How many jobs it can run at a time, now."""

    def submit(self, job: Job, limit: float | None = None) -> None:
        """Start a job; `limit` is in seconds inside ``unlearning()``."""

    def wait(self, timeout: float) -> list[tuple[Job, Failure | None]]:
        """Return the jobs that ended within `timeout` seconds: None for one with a finished file."""

    def close(self) -> None:
        """Stop everything."""


@dataclass(frozen=True)
class _Started:
    lock: IO[str]
    time: float  # when it was submitted


class Progress:
    """One tqdm bar over all jobs of a run, with what is running and the time left."""

    def __init__(self, total: int, done: int, slots: int, show: bool = True):
        self._bar = tqdm(
            total=total,
            initial=done,
            disable=not show,
            unit="job",
            bar_format="{n_fmt}/{total_fmt} jobs |{bar:24}| {elapsed}{postfix}",
            dynamic_ncols=True,
            mininterval=0.2 if sys.stderr.isatty() or "ipykernel" in sys.modules else 30,  # for a log file
            miniters=0,
        )
        self._slots = slots
        self._seconds: dict[str, list[float]] = defaultdict(list)

    def finished(self, job: Job, seconds: float | None) -> None:
        """Count a job; `seconds` is None if somebody else did it."""
        if seconds is not None:
            self._seconds[job.label].append(seconds)
        self._bar.update(1)

    def dropped(self, count: int) -> None:
        """Take jobs off the list that will not be run."""
        self._bar.total -= count

    def show(self, running: Sequence[Job], missing: Sequence[Job]) -> None:
        counts = Counter(job.label for job in running)
        text = ", ".join(f"{label} {count}" for label, count in counts.items())
        left = self.seconds_left([*running, *missing])
        if left is not None:
            text += f" | about {_duration(left)} left"
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(0)

    def seconds_left(self, jobs: Sequence[Job]) -> float | None:
        """Estimate from the mean time of finished jobs of the same kind; None before any job has finished."""
        if not self._seconds:
            return None
        means = {label: sum(values) / len(values) for label, values in self._seconds.items()}
        trained = [means[role] for role in ("retrained", "ceiling", "original") if role in means]
        usual = {"unlearned": 0.3 * trained[0] if trained else min(means.values())}
        rest = trained[0] if trained else max(means.values())
        return sum(means.get(job.label, usual.get(job.role, rest)) for job in jobs) / self._slots

    def close(self) -> None:
        self._bar.set_postfix_str("", refresh=False)
        self._bar.close()


def run(
    jobs: Sequence[Job],
    folder: RunFolder,
    engine: Engine,
    progress: Progress,
    limit: float | None = None,
    later: Sequence[Job] = (),
) -> dict[Job, Failure]:
    """Do `jobs`, and return the failures. The engine stays open.

    After the first failure of an entry its remaining runs are not started: one missing model leaves nothing
    to score. A failure of any other job is an error.

    Args:
        limit: seconds inside ``unlearning()`` after which a run is stopped.
        later: jobs of a later stage, for the estimate of the time left.

    Raises:
        RuntimeError: training a model failed.
    """
    folder.sweep()
    missing = [job for job in jobs if not job.is_done(folder)]
    failures: dict[Job, Failure] = {}
    running: dict[Job, _Started] = {}
    try:
        while missing or running:
            elsewhere = _start_jobs(missing, folder, engine, running, progress, limit)
            progress.show(list(running), [*missing, *later])
            if elsewhere and not running:
                time.sleep(LOOK_AGAIN)  # another run is working on all that is missing
                continue
            for job, failure in engine.wait(LOOK_AGAIN if elsewhere else 5.0):
                started = running.pop(job, None)
                if started is None:
                    continue  # left over from a call that ended in an error
                started.lock.close()
                progress.finished(job, time.monotonic() - started.time)
                if failure is None:
                    continue
                _save_failure(job, failure, folder)
                failures[job] = failure
                dropped = [other for other in missing if other.entry_hash == job.entry_hash]
                progress.dropped(len(dropped))
                missing = [other for other in missing if other not in dropped]
    finally:
        for started in running.values():
            started.lock.close()
    return failures


def _save_failure(job: Job, failure: Failure, folder: RunFolder) -> None:
    """Keep why a job failed; without a trained model the run cannot go on."""
    folder.save_failure(job.key, failure)
    if job.role in TRAINED_ROLES:
        raise RuntimeError(
            f"Training model {job.index} ({job.role}) failed: {failure.reason} "
            f"The log is {folder.log_path(job.key)}."
        )


def _start_jobs(
    missing: list[Job],
    folder: RunFolder,
    engine: Engine,
    running: dict[Job, _Started],
    progress: Progress,
    limit: float | None,
) -> bool:
    """Fill the free slots from `missing`, in order; return whether another run holds one of the jobs."""
    elsewhere = False
    for job in list(missing):
        if len(running) >= engine.slots:
            break
        lock = folder.try_lock(job.key)
        if lock is None:
            elsewhere = True
            continue
        missing.remove(job)
        if job.is_done(folder):  # finished by another run in the meantime
            lock.close()
            progress.finished(job, None)
            continue
        running[job] = _Started(lock, time.monotonic())
        engine.submit(job, limit)
    return elsewhere


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{minutes} min"
