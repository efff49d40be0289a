"""Have a list of jobs done: skip what exists, spread the rest over the workers, show one line of progress."""

from __future__ import annotations

import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Protocol

from tqdm.auto import tqdm

from local_scorer.execution.job import TRAINED_ROLES, Job
from local_scorer.runs.store import Failure, RunFolder

LOOK_AGAIN = 1.0  # seconds between looks at jobs that another run is working on


class Executor(Protocol):
    """Where jobs run. `LocalExecutor` is the one for this machine; a cluster engine can stand in for it."""

    slots: int

    @property
    def running(self) -> list[Job]:
        """The jobs under way."""

    def submit(self, job: Job, limit: float | None = None) -> None:
        """Start a job; `limit` is in seconds inside ``unlearning()``."""

    def wait(self, timeout: float) -> list[tuple[Job, Path | Failure]]:
        """Return the jobs that ended within `timeout` seconds: finished file or failure."""

    def close(self) -> None:
        """Stop everything."""


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
    executor: Executor,
    progress: Progress,
    limit: float | None = None,
    later: Sequence[Job] = (),
) -> dict[Job, Failure]:
    """Have `jobs` done, and return the failures.

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
    locks: dict[Job, IO[str]] = {}
    started: dict[Job, float] = {}
    try:
        while missing or executor.running:
            elsewhere = _start_jobs(missing, folder, executor, locks, started, progress, limit)
            progress.show(executor.running, [*missing, *later])
            if elsewhere and not executor.running:
                time.sleep(LOOK_AGAIN)  # another run is working on all that is missing
            for job, outcome in executor.wait(LOOK_AGAIN if elsewhere else 5.0):
                locks.pop(job).close()
                progress.finished(job, time.monotonic() - started.pop(job))
                if not isinstance(outcome, Failure):
                    continue
                folder.save_failure(job.key, outcome)
                if job.role in TRAINED_ROLES:
                    raise RuntimeError(
                        f"Training model {job.index} ({job.role}) failed: {outcome.reason} "
                        f"The log is {folder.log_path(job.key)}."
                    )
                failures[job] = outcome
                dropped = [other for other in missing if other.entry_hash == job.entry_hash]
                progress.dropped(len(dropped))
                missing = [other for other in missing if other not in dropped]
    finally:
        executor.close()
        for lock in locks.values():
            lock.close()
    return failures


def _start_jobs(
    missing: list[Job],
    folder: RunFolder,
    executor: Executor,
    locks: dict[Job, IO[str]],
    started: dict[Job, float],
    progress: Progress,
    limit: float | None,
) -> bool:
    """Fill the free slots from `missing`, in order; return whether another run holds one of the jobs."""
    elsewhere = False
    for job in list(missing):
        if len(executor.running) >= executor.slots:
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
        locks[job], started[job] = lock, time.monotonic()
        executor.submit(job, limit)
    return elsewhere


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{minutes} min"
