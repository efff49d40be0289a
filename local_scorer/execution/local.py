"""Run jobs in child processes of this machine: start them, watch their time, kill them, say how they ended.

Each step of a job has a process of its own. The parent hears from it through bytes on a pipe, its exit code,
and files that are not pickles; so nothing that foreign code sends is ever run here.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

import torch

from local_scorer.execution import child
from local_scorer.execution.job import Job
from local_scorer.runs import store
from local_scorer.runs.store import Failure, RunFolder

SETUP_SECONDS = 300  # from the start of a process to the entry's first second, and from its last to the end

FIRST_STEP = {"unlearned": "unlearn", "submitted": "rescore"}  # of a job by its role; otherwise "train"


@dataclass
class _Run:
    job: Job
    limit: float | None
    slot: int
    work: Path
    step: str = ""
    process: multiprocessing.process.BaseProcess | None = None
    pipe: Connection | None = None
    entered: float = 0.0  # when the current phase began
    phase: str = "setup"  # setup, entry (inside unlearning), finish


class LocalExecutor:
    """Child processes on this machine.

    This is the seam for another engine: `submit` a job, get (job, finished file or Failure) from `wait`.
    """

    def __init__(self, folder: RunFolder, device: str, workers: int):
        """Prepare `workers` slots on "cpu" or "cuda"; start nothing yet."""
        self.folder = RunFolder(folder.root.absolute())  # an entry may change the working directory
        self.slots = workers
        self.device = device
        self._context = multiprocessing.get_context(
            "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        )
        if hasattr(self._context, "set_forkserver_preload"):
            self._context.set_forkserver_preload(["local_scorer.execution.child"])  # torch is imported only once
            _start_forkserver()
        self._header = {"workers": workers, "environment": store.environment()}
        self._runs: list[_Run] = []

    @property
    def running(self) -> list[Job]:
        return [run.job for run in self._runs]

    def submit(self, job: Job, limit: float | None = None) -> None:
        """Start a job in a free slot.

        Args:
            limit: seconds inside ``unlearning()`` after which the run is stopped.
        """
        slot = min(set(range(self.slots)) - {run.slot for run in self._runs})
        run = _Run(job, limit, slot, self.folder.new_work_folder(job.key))
        self._runs.append(run)
        self._start(run, FIRST_STEP.get(job.role, "train"))

    def wait(self, timeout: float) -> list[tuple[Job, Path | Failure]]:
        """Wait up to `timeout` seconds; return the jobs that ended, with their finished file or failure."""
        deadline = time.monotonic() + timeout
        while True:
            ended = []
            for run in list(self._runs):
                outcome = self._advance(run)
                if outcome is not None:
                    self._runs.remove(run)
                    self.folder.drop_work_folder(run.work)
                    ended.append((run.job, outcome))
            now = time.monotonic()
            if ended or not self._runs or now >= deadline:
                return ended
            watched = [thing for run in self._runs for thing in (run.pipe, run.process.sentinel) if thing]
            next_limit = min((run.entered + self._allowed(run) for run in self._runs), default=deadline)
            wait(watched, timeout=max(0.01, min(deadline, next_limit) - now))

    def close(self) -> None:
        """Kill whatever is still running; its jobs are not done."""
        for run in self._runs:
            self._kill(run)
            self.folder.drop_work_folder(run.work)
        self._runs.clear()

    def _start(self, run: _Run, step: str) -> None:
        receiver, sender = self._context.Pipe(duplex=False)
        run.step, run.pipe, run.phase, run.entered = step, receiver, "setup", time.monotonic()
        run.process = self._context.Process(
            target=child.run_step,
            args=(step, run.job, self.folder, self._device_of(run.slot), self._header, run.work, sender),
        )
        with _interrupts_wait():  # a child that is half started prints a traceback of its own
            run.process.start()
        sender.close()

    def _device_of(self, slot: int) -> str:
        return "cpu" if self.device == "cpu" else f"cuda:{slot % torch.cuda.device_count()}"

    def _advance(self, run: _Run) -> Path | Failure | None:
        """Take in what happened to a run; return its outcome if it has ended."""
        self._listen(run)
        if run.process.is_alive():
            if time.monotonic() - run.entered <= self._allowed(run):
                return None
            self._kill(run)
            return self._time_out(run)
        run.process.join()
        code = run.process.exitcode
        _kill_group(run.process.pid)  # what the entry left running
        process, run.process = run.process, None  # an interrupt from here on finds nothing to kill
        process.close()
        self._listen(run)
        run.pipe.close()
        if code == 0 and run.step == "unlearn" and run.phase == "finish" and (run.work / "net.pt").is_file():
            self._start(run, "evaluate")
            return None
        if code == 0 and run.step != "unlearn" and run.job.is_done(self.folder):
            return self.folder.result_path(run.job.key)
        return _recorded_failure(run.work) or _unexplained_end(code, run)

    def _listen(self, run: _Run) -> None:
        with contextlib.suppress(EOFError, OSError):
            while run.pipe and not run.pipe.closed and run.pipe.poll():
                message = run.pipe.recv_bytes(16)
                phase = {b"start": "entry", b"end": "finish"}.get(message)
                if phase:
                    run.phase, run.entered = phase, time.monotonic()

    def _allowed(self, run: _Run) -> float:
        """Return the seconds that the current phase may take."""
        if run.step == "train":
            return float("inf")
        if run.phase == "entry":
            return float("inf") if run.limit is None else run.limit
        return SETUP_SECONDS

    def _time_out(self, run: _Run) -> Failure:
        seconds = time.monotonic() - run.entered
        if run.step == "unlearn" and run.phase == "entry":
            return Failure("time-out", f"unlearning() was stopped after {seconds:.1f} s.", seconds=seconds)
        return Failure("time-out", f"No end within {SETUP_SECONDS} s outside unlearning() ({run.step}).")

    def _kill(self, run: _Run) -> None:
        if run.process is not None and run.process.pid is not None:  # an interrupt can come while it starts
            _kill_group(run.process.pid)
            run.process.kill()
            run.process.join()
        if run.pipe is not None:
            run.pipe.close()


def _kill_group(pid: int) -> None:
    """Kill a child process with all that it has started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _start_forkserver() -> None:
    """Start it now, deaf to Ctrl-C, which belongs to this process: it takes seconds, torch being imported."""
    if threading.current_thread() is not threading.main_thread():
        return  # signals belong to the main thread; the server then starts with the first job
    usual = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, usual)


@contextlib.contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Hold Ctrl-C back until the block has ended."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals belong to the main thread
        return
    came = []
    usual = signal.signal(signal.SIGINT, lambda number, _frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
        if came:
            signal.raise_signal(signal.SIGINT)


def _recorded_failure(work: Path) -> Failure | None:
    try:
        return Failure(**json.loads((work / "failure.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _unexplained_end(code: int, run: _Run) -> Failure:
    if code == -signal.SIGKILL:
        return Failure("killed", "The process was killed from outside, or the system ran out of memory.")
    if code < 0:
        return Failure("killed", f"The process was ended by {signal.Signals(-code).name}.")
    inside = run.step == "unlearn" and run.phase != "finish"
    when = "before unlearning() returned." if inside else "without a result."
    hint = " Is the disk full?" if code else ""
    return Failure("exception", f"The process ended (exit code {code}) {when}{hint}")
