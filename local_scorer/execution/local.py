"""Run jobs in child processes of this machine: start them, watch their time, kill them, say how they ended.

Each step of a job has a process of its own; only the evaluation goes on in the process that evaluated the last run
of the same entry. The parent hears from it through lines on a pipe, its exit code,
and files that are not pickles; so nothing that foreign code sends is ever run here. The parent needs no torch.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import signal
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path

from data_prep.options import OptionError
from local_scorer.execution import interrupts, keeper
from local_scorer.execution.job import Job
from local_scorer.runs import store
from local_scorer.runs.store import Failure, RunFolder

SETUP_SECONDS = 300  # from the start of a process to the entry's first second, and from its last to the end
FIRST_STEP = {"unlearned": "unlearn", "submitted": "rescore"}  # of a job by its role; otherwise "train"
CHILD = "local_scorer.execution.child"
MESSAGE_BYTES = 1 << 16  # of all that one step may say
KINDS = ("exception", "signature", "weights", "memory", "killed", "clock")  # of a failure that a child reports
PHASES = {  # by step, line and phase before
    ("unlearn", b"start", "setup"): "entry",
    ("unlearn", b"end", "entry"): "finish",
    ("evaluate", b"done", "setup"): "done",
}
LOST = 255  # exit code of a child whose end nobody saw: the fork server, which starts all children, had ended
STARTS, PAUSE = 20, 0.1  # tries to start a child, and seconds between them: a fork server takes a while to end
JOIN_SECONDS = 10.0  # for a killed child to be gone
KEEPER_SECONDS = 3.0  # for a keeper to end the run that it watches


@dataclass(eq=False)
class _Run:
    """A job under way, or one that waits for its turn.

    Attributes:
        alone: it runs with no other beside it, since one of its like has ended the fork server.
        entered: when the current phase began, later by what was given back.
        given_back: seconds in which the run had no core.
        phase: "setup", "entry" (inside ``unlearning()``) or "finish"; "done" once a checkpoint is evaluated.
    """

    job: Job
    limit: float | None
    work: Path
    alone: bool = False
    slot: int = 0
    step: str = ""
    process: multiprocessing.process.BaseProcess | None = None
    pipe: Connection | None = None
    heard: bytearray = field(default_factory=bytearray)
    lines: int = 0
    entered: float = 0.0
    given_back: float = 0.0
    phase: str = "setup"
    failure: Failure | None = None


class LocalEngine:
    """Child processes on this machine. Open it in a ``with`` block, which kills what runs at its end."""

    def __init__(
        self, folder: RunFolder, device: str = "cpu", workers: int = 0, slots: int = 0, sandbox: str = "auto"
    ):
        """Prepare the engine; nothing starts before the first job.

        Args:
            device: "cpu" or "cuda".
            workers: jobs that share this machine, for their share of its memory; 0 for one per core or GPU.
            slots: how many of them run here; 0 for all.
            sandbox: "auto", "required" or "off": see `sandbox.probe`.

        Raises:
            OptionError: there is no GPU for "cuda".
        """
        self.folder = RunFolder(folder.root.absolute())  # an entry may change the working directory
        self.device = device
        self.sandbox = sandbox
        self._gpus = _count_gpus() if device == "cuda" else 0
        self.workers = workers or self._gpus or store.usable_cores()
        self.slots = slots or self.workers
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([CHILD])  # torch is imported only once
        self._environment: store.Environment | None = None
        self._runs: list[_Run] = []
        self._waiting: list[_Run] = []
        self._evaluated: dict[int, _Run] = {}  # by slot, the last run whose evaluator waits for another checkpoint

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def submit(self, job: Job, limit: float | None = None) -> None:
        """Start a job as soon as a slot is free; `limit` is in seconds inside ``unlearning()``."""
        self._waiting.append(_Run(job, limit, self.folder.new_work_folder(job.key)))
        self._fill_slots()

    def wait(self, timeout: float) -> list[tuple[Job, Failure | None]]:
        """Wait up to `timeout` seconds; return the jobs that ended, with their failure or None."""
        deadline = time.monotonic() + timeout
        while True:
            ended = []
            for run in list(self._runs):
                over, failure = self._advance(run)
                if over:
                    self._runs.remove(run)
                    self.folder.drop_work_folder(run.work)
                    ended.append((run.job, failure))
            self._fill_slots()
            now = time.monotonic()
            if ended or not self._runs or now >= deadline:
                return ended
            watched = [thing for run in self._runs for thing in (run.pipe, run.process.sentinel) if thing]
            next_limit = min(run.entered + _allowed(run) for run in self._runs)
            wait(watched, timeout=max(0.01, min(deadline, next_limit) - now))

    def close(self) -> None:
        """Kill whatever is still running; its jobs are not done."""
        for run in (*self._runs, *self._waiting, *self._evaluated.values()):
            _end(run)
            self.folder.drop_work_folder(run.work)
        self._runs.clear()
        self._waiting.clear()
        self._evaluated.clear()

    def _fill_slots(self) -> None:
        while self._waiting:
            alone = self._waiting[0].alone or any(run.alone for run in self._runs)
            if len(self._runs) >= (1 if alone else self.slots):
                return
            run = self._waiting.pop(0)
            run.slot = min(set(range(self.slots)) - {other.slot for other in self._runs})
            self._runs.append(run)
            self._start(run, FIRST_STEP.get(run.job.role, "train"))

    def _start(self, run: _Run, step: str) -> None:
        run.step, run.phase, run.entered = step, "setup", time.monotonic()
        run.heard, run.lines, run.failure, run.given_back = bytearray(), 0, None, 0.0
        if step == "evaluate" and self._goes_to_evaluator(run):
            return
        if self._environment is None:
            self._environment = store.environment()
        header = {"workers": self.workers, "sandbox": self.sandbox, "environment": self._environment}
        device = f"cuda:{run.slot % self._gpus}" if self._gpus else "cpu"
        with interrupts.held_back():  # a child that is half started prints a traceback of its own
            for tries_left in reversed(range(STARTS)):
                _ensure_forkserver()
                run.pipe, sender = self._context.Pipe(duplex=step == "evaluate")
                os.set_blocking(run.pipe.fileno(), False)
                arguments = (step, run.job, self.folder, device, header, run.work, sender)
                run.process = self._context.Process(target=_run_step, args=arguments)
                try:
                    run.process.start()
                    return
                except (EOFError, OSError):  # the fork server was ended in between
                    _end(run)
                    if not tries_left:
                        raise
                    time.sleep(PAUSE)
                finally:
                    sender.close()

    def _goes_to_evaluator(self, run: _Run) -> bool:
        """Send a checkpoint to the process that evaluated the last run in this slot, if of the same entry."""
        last = self._evaluated.pop(run.slot, None)
        if last is None:
            return False
        if last.job.evaluation == run.job.evaluation and last.process.is_alive():
            with contextlib.suppress(OSError):  # it has ended in between
                last.pipe.send((run.job, run.work))
                run.process, run.pipe = last.process, last.pipe
                return True
        _end(last)
        return False

    def _advance(self, run: _Run) -> tuple[bool, Failure | None]:
        """Take in what happened to a run; return whether it has ended, and its failure."""
        _listen(run)
        if run.phase == "done" and run.job.is_done(self.folder):
            self._evaluated[run.slot] = run
            return True, None
        if run.process.is_alive():
            if not _is_over_time(run):
                return False, None
            failure = run.failure or _time_out(run)
            _end(run)
            return True, failure
        code = run.process.exitcode
        _end(run)
        if code == LOST and not run.alone:
            self._run_again_alone(run)
            return False, None
        if code == 0 and run.step == "unlearn" and run.phase == "finish" and (run.work / "net.pt").is_file():
            self._start(run, "evaluate")
            return False, None
        if code == 0 and run.step != "unlearn" and run.job.is_done(self.folder):
            return True, None
        return True, run.failure or _unexplained_end(code, run)

    def _run_again_alone(self, run: _Run) -> None:
        """Put a run back: the fork server has ended under it, and only a run alone shows who ends it."""
        self._runs.remove(run)
        self.folder.drop_work_folder(run.work)
        self._waiting.insert(0, _Run(run.job, run.limit, self.folder.new_work_folder(run.job.key), alone=True))


def _run_step(*arguments: object) -> None:
    """Run in the child; what it imports, the fork server has imported before."""
    from local_scorer.execution import child

    child.run_step(*arguments)


def _count_gpus() -> int:
    import torch

    if not torch.cuda.is_available():
        raise OptionError("--device cuda: torch sees no GPU here. Use --device cpu.")
    return torch.cuda.device_count()


def _ensure_forkserver() -> None:
    """Start the fork server if it does not run. Ctrl-C belongs to this process and does not reach it."""
    multiprocessing.resource_tracker.ensure_running()  # its first start would let the signal through again
    usual = signal.pthread_sigmask(signal.SIG_BLOCK, interrupts.SIGNALS[:1])
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, usual)


def _end(run: _Run) -> None:
    """Kill a run's process with all that it has started, and forget it. Works twice, as after an interrupt."""
    process = run.process
    if process is not None:
        if process.pid is not None:
            _ask_keeper(run)
            interrupts.kill_group(process.pid)
            process.join(timeout=JOIN_SECONDS)
        run.process = None
        with contextlib.suppress(ValueError):  # it has not ended yet: a system call holds it
            process.close()
    _listen(run)
    _hang_up(run)


def _ask_keeper(run: _Run) -> None:
    """Let a run's keeper end it: it finds processes that have left the group."""
    if run.step == "unlearn" and run.process.is_alive():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(run.process.pid, signal.SIGTERM)
        run.process.join(timeout=KEEPER_SECONDS)


def _hang_up(run: _Run) -> None:
    pipe, run.pipe = run.pipe, None
    if pipe is not None:
        pipe.close()


def _listen(run: _Run) -> None:
    """Take in the lines on a run's pipe. What is not a known line, at its time, does not count."""
    while run.pipe is not None and len(run.heard) < MESSAGE_BYTES:
        try:
            chunk = os.read(run.pipe.fileno(), MESSAGE_BYTES - len(run.heard))
        except BlockingIOError:
            break
        if not chunk:
            _hang_up(run)  # the other end was closed: it would be ready to be read for ever
        run.heard += chunk
    lines = bytes(run.heard).split(b"\n")[:-1]
    for line in lines[run.lines :]:
        phase = PHASES.get((run.step, line, run.phase))
        if phase:
            run.phase, run.entered = phase, time.monotonic()
        elif line.startswith(b"{") and run.failure is None:
            run.failure = _reported_failure(line)
    run.lines = len(lines)
    if len(run.heard) >= MESSAGE_BYTES and run.pipe is not None:
        run.failure = Failure("exception", "The process wrote into the scorer's own pipe without end.")
        _hang_up(run)
        if run.process is not None:
            interrupts.kill_group(run.process.pid)


def _reported_failure(line: bytes) -> Failure | None:
    """Return the failure that a child reported; None if it does not have the form of a failure."""
    try:
        found = Failure.from_json(line)
    except ValueError:
        return None
    return found if found.kind in KINDS and found.seconds is None else None


def _allowed(run: _Run) -> float:
    """Return the seconds that the current phase may take."""
    if run.step == "train":
        return float("inf")
    if run.phase == "entry":
        return float("inf") if run.limit is None else run.limit
    return SETUP_SECONDS


def _is_over_time(run: _Run) -> bool:
    """Return whether the current phase has had its time.

    A run that stood in the queue for a core is given those seconds back, unless it has worked for as long as it
    may all the same: then it stood behind its own threads.
    """
    if time.monotonic() - run.entered > _allowed(run):
        worked, queued = keeper.tree_seconds(run.process.pid)
        if worked < _allowed(run):
            run.entered += max(0.0, queued - run.given_back)
            run.given_back = max(queued, run.given_back)
    return time.monotonic() - run.entered > _allowed(run)


def _time_out(run: _Run) -> Failure:
    seconds = time.monotonic() - run.entered
    if run.step == "unlearn" and run.phase == "entry":
        return Failure("time-out", f"unlearning() was stopped after {seconds:.1f} s.", seconds=seconds)
    return Failure("time-out", f"No end within {SETUP_SECONDS} s outside unlearning() ({run.step}).")


def _unexplained_end(code: int, run: _Run) -> Failure:
    if code == LOST:
        return Failure(
            "killed",
            "The process ended with exit code 255, or ended the process that starts all runs, with no other "
            "run beside it.",
        )
    if code == -signal.SIGKILL:
        return Failure("killed", "The process was killed from outside, or the system ran out of memory.")
    if code < 0:
        return Failure("killed", f"The process was ended by {signal.Signals(-code).name}.")
    if run.step == "unlearn" and run.phase != "finish":
        return Failure("exception", f"The process ended (exit code {code}) before unlearning() returned.")
    what = "a checkpoint" if run.step == "unlearn" else "a result"
    return Failure("exception", f"The process ended (exit code {code}) without leaving {what} or an error.")
