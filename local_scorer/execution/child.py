"""The child side of a job's step: redirect, limit, run one step, say how it failed.

Everything here runs in the process of one step, where an entry's code may run too.
"""

from __future__ import annotations

import contextlib
import gc
import json
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path

import torch

from local_scorer.execution import keeper, sandbox, steps
from local_scorer.execution.checkpoint import WeightsError
from local_scorer.execution.contract import EntryError
from local_scorer.execution.job import Job
from local_scorer.execution.submission import SubmissionError
from local_scorer.runs import store
from local_scorer.runs.store import Failure, RunFolder

try:
    import resource
except ImportError:  # Windows has no limits of this kind
    resource = None

MEMORY_SHARE = 0.8  # of the machine's memory, shared by the workers
FILE_BYTES = 8 << 30  # the largest file that a job may write
DETAIL_LINES, LINE = 12, 400  # of a traceback, and characters of each
REASON = 2000  # characters
LEAST_MEMORY = 2 << 30  # bytes, for one worker


def run_step(
    step: str, job: Job, folder: RunFolder, device: str, header: dict, work: Path, pipe: Connection
) -> None:
    """Run one step; this is the first function of the child process, and it does not return."""
    gc.freeze()  # a collection that looked at all that was imported would copy its memory into this process
    if hasattr(os, "setsid"):
        os.setsid()  # a group of its own: Ctrl-C does not reach it, and it is killed as a whole
    _redirect_output(folder.log_path(job.key), append=step == "evaluate")
    say = _speaker(pipe)
    mode, workers = header.pop("sandbox"), header["workers"]
    threads = 1 if device == "cpu" else max(1, (os.cpu_count() or 1) // workers)
    code = 1
    try:
        if step == "unlearn":
            _unlearn(job, folder, device, mode, workers, threads, work, pipe, say)
            code = 0
            return
        threading.Thread(target=_end_with_parent, daemon=True).start()
        torch.set_num_threads(threads)
        gpu = None if device == "cpu" else torch.cuda.get_device_name(device)
        header = {**header, "threads": threads, "gpu": gpu}
        if step == "train":
            steps.train(job, folder, device, header)
        elif step == "evaluate":
            steps.evaluate(_tasks(job, work, folder, pipe, say), folder, device, header)
        else:
            _limit_resources(device, workers)
            steps.rescore(job, folder, device, header)
        code = 0
    except SystemExit:
        pass  # the parent ends the run, and knows why
    except BaseException as error:
        with contextlib.suppress(OSError):
            _report(_failure(error), say)
    finally:
        _flush()
        os._exit(code)


def _tasks(
    job: Job, work: Path, folder: RunFolder, pipe: Connection, say: Callable[[bytes], None]
) -> Iterator[tuple[Job, Path]]:
    """Yield a job with its folder, say when it is evaluated, and go on with those that the engine then sends."""
    with contextlib.suppress(EOFError):  # it wants no more
        while True:
            yield job, work
            _flush()
            say(b"done")
            job, work = pipe.recv()
            _redirect_output(folder.log_path(job.key), append=True)


def _unlearn(
    job: Job,
    folder: RunFolder,
    device: str,
    mode: str,
    workers: int,
    threads: int,
    work: Path,
    pipe: Connection,
    say: Callable[[bytes], None],
) -> None:
    """Run the entry in a process below this one, which keeps watch over it and writes what it left."""
    private = work / "private"
    private.mkdir()

    def run(start: Callable[[], None]) -> float:
        pipe.close()  # the engine listens to the keeper alone
        _limit_resources(device, workers)
        _confine(mode, device, job, folder, private)
        torch.set_num_threads(threads)
        try:
            return steps.unlearn(job, folder, device, private, start)
        finally:
            _flush()

    parent = multiprocessing.parent_process().sentinel
    most_bytes = _memory_share(workers)
    kept = keeper.keep(run, private / "net.pt", _failure, most_bytes, say, parent, isolate=mode != "off")
    if isinstance(kept, Failure):
        _report(kept, say)
        return
    seconds = {"wall": kept.wall_seconds, "cpu": kept.cpu_seconds}
    store.write_atomically(work / "seconds.json", json.dumps(seconds).encode())
    store.write_atomically(work / "net.pt", kept.checkpoint)


def _confine(mode: str, device: str, job: Job, folder: RunFolder, private: Path) -> None:
    """Leave this process no file but what the entry needs. What the sandbox gives on a GPU was never tried."""
    (private / "entry.py").write_bytes(folder.entry_path(job.entry_hash).read_bytes())
    if mode == "required" or (mode == "auto" and device == "cpu"):
        readable = [Path(job.data), folder.weights_path(job.weights_key)]
        version = sandbox.confine(readable, [private], hidden=folder.root)
        if mode == "required" and not version:
            raise ValueError("--sandbox required: this machine has no Landlock to keep files from an entry.")
    sandbox.use_private_folder(private)


def _speaker(pipe: Connection) -> Callable[[bytes], None]:
    """Return a function that says one line to the parent."""

    def say(line: bytes) -> None:
        rest = line + b"\n"
        while rest:
            rest = rest[os.write(pipe.fileno(), rest) :]

    return say


def _report(failure: Failure, say: Callable[[bytes], None]) -> None:
    """Tell the parent of a failure, each text cut to the length that it takes."""
    content = {
        "kind": failure.kind,
        "reason": failure.reason[:REASON],
        "details": "\n".join(line[:LINE] for line in failure.details.splitlines()[-DETAIL_LINES:]),
    }
    say(json.dumps(content, ensure_ascii=False).encode(errors="surrogatepass"))


def _failure(error: BaseException) -> Failure:
    """Say what went wrong, here and in the log."""
    with contextlib.suppress(Exception):
        traceback.print_exception(error)
    return Failure(*_described(error))


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
        share = _memory_share(workers)
        resource.setrlimit(resource.RLIMIT_DATA, (share, share))


def _memory_share(workers: int) -> int:
    """Return the bytes that one worker may hold."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(LEAST_MEMORY, int(MEMORY_SHARE * memory / workers))


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # an entry may have closed it
            stream.flush()
