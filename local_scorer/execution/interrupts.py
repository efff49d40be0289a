"""Ctrl-C and SIGTERM: the first one ends a run in order, the second one ends everything at once."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from local_scorer.execution import keeper

INTERRUPTED = 130  # exit code
HELD_SECONDS = 2.0  # that a first signal may wait: a start takes longer while the fork server imports torch
SIGNALS = (signal.SIGINT, signal.SIGTERM)
AT_ONCE = b"\nInterrupted: ended at once. Finished jobs are kept: run the same command again to go on.\n"


def install() -> None:
    """Let the first signal raise KeyboardInterrupt and the second end this process and its children at once.

    A signal that is ignored when the program starts, as by a shell's ``&``, stays ignored.
    """
    came: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if came:
            end_at_once()
        came.append(number)
        raise KeyboardInterrupt

    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handle)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Hold a first signal back until the block has ended; if that lasts, or on a second one, all ends at once."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals belong to the main thread
        return
    came: list[int] = []
    usual = {number: signal.getsignal(number) for number in SIGNALS}

    def handle(number: int, frame: FrameType | None) -> None:
        if came:
            end_at_once()
        came.append(number)
        signal.signal(signal.SIGALRM, lambda *_: end_at_once())
        signal.setitimer(signal.ITIMER_REAL, HELD_SECONDS)

    for number, handler in usual.items():
        if callable(handler):
            signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in usual.items():
            if callable(handler):
                signal.signal(number, handler)
        if came:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.raise_signal(came[0])


def end_at_once() -> None:
    """Kill the child processes with all that they have started, and end this process without another step.

    The fork server is one of them: while it imports torch it would not see that it is of no use any more.
    """
    for process in multiprocessing.active_children():
        kill_group(process.pid)
    for process in keeper.descendants(os.getpid()):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process, signal.SIGKILL)
    with contextlib.suppress(OSError):
        os.write(2, AT_ONCE)
    os._exit(INTERRUPTED)


def kill_group(pid: int) -> None:
    """Kill a child process with all that it has started."""
    for kill in (os.killpg, os.kill):  # just after its start it leads no group yet
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)
