"""What ``python -m local_scorer job FILE`` does: one job, all of its steps, on the machine where it is called."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

from local_scorer.execution.job import Job
from local_scorer.execution.local import LocalEngine
from local_scorer.runs.store import Failure, RunFolder

LOOK_AGAIN = 0.5  # seconds between looks at the parent


def do(
    file: Path,
    folder: RunFolder,
    limit: float | None = None,
    workers: int = 0,
    parent: int | None = None,
    sandbox: str = "auto",
) -> Failure | None:
    """Do the job in `file` unless its result exists; return its failure, which is then in the folder too.

    The job's lock is left to the caller, so that an engine can hold it for all of its jobs.

    Args:
        limit: seconds inside ``unlearning()``.
        workers: jobs that share this machine, for their share of its memory; 0 for one per core or GPU.
        parent: process with which this one ends.
        sandbox: "auto", "required" or "off".

    Raises:
        ValueError: the file holds no job.
    """
    try:
        job = Job.from_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} holds no job that can be done: {error}") from error
    if job.is_done(folder):
        return None
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    ended: list[tuple[Job, Failure | None]] = []
    with LocalEngine(folder, job.device, workers, slots=1, sandbox=sandbox) as engine:
        engine.submit(job, limit)
        while not ended:
            ended = engine.wait(timeout=60.0)
    failure = ended[0][1]
    if failure is not None:
        folder.save_failure(job.key, failure)
    return failure


def _end_with(parent: int) -> None:
    """End this process, and with it its children, as soon as it is no child of `parent` any more."""
    while os.getppid() == parent:
        time.sleep(LOOK_AGAIN)
    os.kill(os.getpid(), signal.SIGTERM)
