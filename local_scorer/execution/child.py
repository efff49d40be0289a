"""The child side of a job's step: redirect, limit, run one step, say how it failed.

Everything here runs in the process of one step, where an entry's code may run too.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path

import torch

from local_scorer.execution import steps
from local_scorer.execution.checkpoint import WeightsError
from local_scorer.execution.contract import EntryError
from local_scorer.execution.job import Job
from local_scorer.execution.submission import SubmissionError
from local_scorer.runs.store import RunFolder

try:
    import resource
except ImportError:  # Windows has no limits of this kind
    resource = None

MEMORY_SHARE = 0.8  # of the machine's memory, shared by the workers
FILE_BYTES = 8 << 30  # the largest file that a job may write
DETAIL_LINES, LINE = 12, 400  # of a traceback, and characters of each
REASON = 2000  # characters
LEAST_MEMORY = 2 << 30  # bytes, for one worker

_exit = os._exit  # as it is before an entry can replace it


def run_step(
    step: str, job: Job, folder: RunFolder, device: str, header: dict, work: Path, pipe: Connection
) -> None:
    """Run one step; this is the first function of the child process, and it does not return."""
    if hasattr(os, "setsid"):
        os.setsid()  # a group of its own: Ctrl-C does not reach it, and it is killed as a whole
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _redirect_output(folder.log_path(job.key), append=step == "evaluate")
    say = _speaker(pipe)
    workers = header["workers"]
    threads = 1 if device == "cpu" else max(1, (os.cpu_count() or 1) // workers)
    torch.set_num_threads(threads)
    gpu = None if device == "cpu" else torch.cuda.get_device_name(device)
    header = {**header, "threads": threads, "gpu": gpu}
    code = 1
    try:
        if step == "train":
            steps.train(job, folder, device, header)
        elif step == "evaluate":
            steps.evaluate(job, folder, device, work, header)
        elif step == "rescore":
            _limit_resources(device, workers)
            steps.rescore(job, folder, device, header)
        else:
            _limit_resources(device, workers)
            steps.unlearn(job, folder, device, work, say)
        code = 0
    except BaseException as error:  # whatever foreign code raises becomes a row of the leaderboard
        with contextlib.suppress(Exception):
            traceback.print_exc()
        with contextlib.suppress(OSError):
            say(json.dumps(_failure(error), ensure_ascii=False).encode(errors="surrogatepass"))
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # an entry may have closed it
                stream.flush()
        _exit(code)  # threads and exit handlers that an entry left behind do not get a turn


def _speaker(pipe: Connection) -> Callable[[bytes], None]:
    """Return a function that says one line to the parent."""
    write, place = os.write, pipe.fileno()  # as they are before an entry can replace them

    def say(line: bytes) -> None:
        rest = line + b"\n"
        while rest:
            rest = rest[write(place, rest) :]

    return say


def _failure(error: BaseException) -> dict[str, str]:
    """Say what went wrong, each text cut to the length that the parent takes."""
    kind, reason, details = _described(error)
    return {
        "kind": kind,
        "reason": reason[:REASON],
        "details": "\n".join(line[:LINE] for line in details.splitlines()[-DETAIL_LINES:]),
    }


def _described(error: BaseException) -> tuple[str, str, str]:
    try:
        details = "".join(traceback.format_exception(error)).rstrip()
        message = str(error).strip()
    except Exception:  # an exception of an entry need not be printable
        details, message = "", ""
    reason = f"{type(error).__name__}: {message.splitlines()[0] if message else '(no message)'}"
    if isinstance(error, EntryError):
        return "signature", message, ""
    if isinstance(error, WeightsError | SubmissionError):
        return "weights", message, ""
    out_of_memory = isinstance(error, MemoryError | torch.cuda.OutOfMemoryError)
    if out_of_memory or (isinstance(error, RuntimeError) and "allocate memory" in message):
        return "memory", f"Out of memory: {reason}", details
    return "exception", reason, details


def _end_with_parent() -> None:
    wait([multiprocessing.parent_process().sentinel])
    os.killpg(0, signal.SIGKILL) if hasattr(os, "killpg") else os._exit(1)


def _redirect_output(path: Path, append: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab" if append else "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def _limit_resources(device: str, workers: int) -> None:
    """Let the entry fail before the machine does: on memory and file size, and first in the system's line."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    if resource is None:
        return
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    if device == "cpu" and sys.platform == "linux":
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        share = max(LEAST_MEMORY, int(MEMORY_SHARE * memory / workers))
        resource.setrlimit(resource.RLIMIT_DATA, (share, share))
