"""Keep watch over one run of an entry, from outside its process. Needs no torch.

The keeper forks the process that the entry runs in, holds the clocks, watches memory, takes the checkpoint once
it is finished, and ends every process that the entry has started. What comes from the entry's process is data:
lines of JSON of a limited size that are checked before they count.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import NoReturn

from local_scorer.execution import sandbox
from local_scorer.runs.store import Failure

LOOK_EVERY = 0.05  # seconds between looks at the run's processes
MOST_PROCESSES = 300  # of a run; more is a fork bomb
MESSAGE_BYTES = 64 << 10
CHECKPOINT_BYTES = 256 << 20
REASON_LETTERS, DETAIL_LETTERS = 500, 8000
KINDS = ("exception", "signature", "weights", "memory")  # of a failure that the entry's process may tell
LEADER_SECONDS = 10.0  # that the first process of a process space may take to wait for the others
SPARE_SECONDS = 2.0  # between the entry's clock and the keeper's: start-up, saving, a busy machine

_exit = os._exit  # as it is before an entry can replace it


@dataclass(frozen=True)
class Kept:
    """A finished checkpoint, not yet looked into, and what it took by the keeper's own clocks."""

    checkpoint: bytes
    wall_seconds: float
    cpu_seconds: float


def keep(
    run: Callable[[Callable[[], None]], float],
    checkpoint: Path,
    describe: Callable[[BaseException], Failure],
    most_bytes: int,
    tell: Callable[[bytes], None],
    parent: int | None = None,
    isolate: bool = True,
) -> Kept | Failure:
    """Have `run` work in a process of its own, and return its checkpoint, or why there is none.

    This process is of use for nothing else afterwards: orphans come to it, and it has only one thread.

    Args:
        run: called with a function that it calls when the entry begins; returns the seconds that it measured.
        checkpoint: the file that `run` leaves.
        describe: makes a failure of what `run` raised, in its process.
        most_bytes: memory that the run's processes may hold together.
        tell: told ``b"start"`` and ``b"end"``.
        parent: a file descriptor that becomes readable when the process ends that this one works for.
        isolate: give the run a process space of its own where the system allows it.
    """
    ours, theirs = socket.socketpair()
    signal.signal(signal.SIGTERM, _stop)
    sandbox.adopt_orphans()
    leads = isolate and sandbox.enter_process_space()
    process = os.fork()
    if process == 0:
        ours.close()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setsid()
        sandbox.die_with_parent()
        if leads:
            _lead_process_space(theirs)
        _run_and_exit(run, describe, theirs)
    theirs.close()
    try:
        return _Watch(process, leads, ours, most_bytes, parent).attend(checkpoint, tell)
    finally:
        end_run(process)
        ours.close()


def descendants(process: int, most: int = MOST_PROCESSES) -> list[int]:
    """Return the processes below a process, whatever group or session they moved to, up to about `most`."""
    found = []
    todo = [process]
    while todo and len(found) <= most:
        with contextlib.suppress(OSError):
            for path in Path(f"/proc/{todo.pop()}/task").iterdir():
                children = [int(child) for child in (path / "children").read_text().split()]
                found += children
                todo += children
    return found


def cpu_seconds(process: int) -> float:
    """Return the CPU seconds of a process so far, on Linux.

    Raises:
        OSError: it has ended.
    """
    return time.clock_gettime((~process << 3) | 2)  # what clock_getcpuclockid(3) gives for a process


def tree_seconds(process: int) -> tuple[float, float]:
    """Return the CPU seconds of a process and those below it, and the most that one of them stood without a core.

    Those that have ended do not count, and the latter is 0 where the system does not count it, as Linux does.
    """
    worked = queued = 0.0
    for each in (process, *descendants(process)):
        with contextlib.suppress(OSError, IndexError, ValueError):
            worked += cpu_seconds(each)
            queued = max(queued, int(Path(f"/proc/{each}/schedstat").read_text().split()[1]) / 1e9)
    return worked, queued


def end_run(process: int, leads: bool = False) -> None:
    """Kill a run's first process and all others below this one: orphans come here, so they are found.

    Args:
        leads: the first process leads a process space. It ends last, after it has waited for all others: the
            system forgets the seconds of processes that end with their space.
    """
    if leads:
        for child in descendants(process):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(child, signal.SIGKILL)
        deadline = time.monotonic() + LEADER_SECONDS
        with contextlib.suppress(ChildProcessError):
            while not os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if time.monotonic() > deadline:
                    break
                time.sleep(0.001)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process, signal.SIGKILL)
    end_descendants()


def end_descendants() -> None:
    """Kill every process below this one, and wait for their ends."""
    while True:
        for child in descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(child, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.001)


@dataclass
class _Watch:
    """One run as the keeper sees it.

    Attributes:
        leads: `process` leads a process space.
        seconds: CPU seconds of each process of the run, as last seen.
    """

    process: int
    leads: bool
    pipe: socket.socket
    most_bytes: int
    parent: int | None
    seconds: dict[int, float] = field(default_factory=dict)
    ending: int | None = None

    def attend(self, checkpoint: Path, tell: Callable[[bytes], None]) -> Kept | Failure:
        """Wait for start and end; then end the run before the clocks are read: nothing can work beside them."""
        before = begin = None
        for message in self._messages():
            if isinstance(message, Failure):
                return message
            name, value = message
            if name == "failure":
                return _read_failure(value)
            if not _is_number(value) or (name == "start") != (begin is None):
                return _unreadable()
            if name == "start":
                before, begin = value, time.monotonic()
                tell(b"start")
                with contextlib.suppress(OSError):
                    self.pipe.sendall(b"!")
                continue
            content = _read_checkpoint(checkpoint)
            wall = time.monotonic() - begin
            tell(b"end")
            self._look()
            end_run(self.process, self.leads)
            cpu = self._spent() - before
            return content if isinstance(content, Failure) else _judge(content, value, wall, cpu)
        when = "before unlearning() was called" if begin is None else "before unlearning() returned"
        return _how_it_ended(self.ending, when)

    def _messages(self) -> Iterator[tuple[str, object] | Failure]:
        """Yield what the run sends, and a failure if it must be ended, until its process has ended."""
        received = b""
        self.pipe.setblocking(False)
        watched = [self.pipe] if self.parent is None else [self.pipe, self.parent]
        while True:
            ended = self._has_ended()  # asked first, so that its last words are read
            if self.parent in wait(watched, timeout=0 if ended else LOOK_EVERY):
                _stop()
            with contextlib.suppress(OSError):
                received += self.pipe.recv(MESSAGE_BYTES)
            *lines, received = received.split(b"\n")
            for line in lines:
                yield _read_message(line)
            if len(received) > MESSAGE_BYTES:
                yield _unreadable()
            if ended:
                return
            if failure := self._look():
                yield failure

    def _has_ended(self) -> bool:
        if self.ending is None:
            process, status = os.waitpid(self.process, os.WNOHANG)
            self.ending = os.waitstatus_to_exitcode(status) if process else None
        return self.ending is not None

    def _look(self) -> Failure | None:
        """Note each process's CPU seconds; return why the run must end, if it must."""
        processes = descendants(os.getpid())
        for process in processes:
            with contextlib.suppress(OSError):
                self.seconds[process] = cpu_seconds(process)
        if len(processes) > MOST_PROCESSES:
            return Failure("killed", f"The entry had more than {MOST_PROCESSES} processes at once.")
        resident = sum(map(_resident_bytes, processes))  # counts shared pages once for each process
        if resident > self.most_bytes and sum(map(_held_bytes, processes)) > self.most_bytes:
            limit = self.most_bytes / 2**30
            return Failure("memory", f"Out of memory: the entry's processes held more than {limit:.1f} GiB.")
        return None

    def _spent(self) -> float:
        """Return the CPU seconds of all processes of the run, which has ended.

        The system adds up those of processes that were waited for. The others were at least seen at work.
        """
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return max(usage.ru_utime + usage.ru_stime, sum(self.seconds.values()))


def _run_and_exit(
    run: Callable[[Callable[[], None]], float], describe: Callable[[BaseException], Failure], pipe: socket.socket
) -> NoReturn:
    """Do the run in this process, which ends here: threads and exit handlers of an entry do not get a turn."""

    def send(name: str, value: object) -> None:
        pipe.sendall(json.dumps({name: value}).encode() + b"\n")

    def start() -> None:
        send("start", time.process_time())
        pipe.recv(1)

    try:
        send("end", run(start))
        pipe.recv(1)  # the keeper ends this process
    except BaseException as error:  # whatever foreign code raises becomes a row of the leaderboard
        with contextlib.suppress(BaseException):
            failure = describe(error)
            reason, details = failure.reason[:REASON_LETTERS], failure.details[-DETAIL_LETTERS:]
            send("failure", [failure.kind, reason, details])
    finally:
        _exit(1)


def _lead_process_space(pipe: socket.socket) -> None:
    """Fork the process that works, and return in it; this one, the first of its space, waits for its end.

    Then it ends the others of the space and waits for them too, so that their seconds are added to its own.
    """
    worker = os.fork()
    if worker == 0:
        return
    pipe.close()
    process, status = 0, 0
    while process != worker:
        process, status = os.waitpid(-1, 0)
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(-1, signal.SIGKILL)
        while True:
            os.waitpid(-1, 0)
    code = os.waitstatus_to_exitcode(status)
    _exit(code if code >= 0 else 128 - code)  # as a shell has it for a process that a signal ended


def _stop(*_signal: object) -> NoReturn:
    raise SystemExit(1)  # `keep` ends the run on its way out


def _read_message(line: bytes) -> tuple[str, object] | Failure:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return _unreadable()
    if not isinstance(content, dict) or len(content) != 1 or not content.keys() <= {"start", "end", "failure"}:
        return _unreadable()
    return next(iter(content.items()))


def _read_failure(content: object) -> Failure:
    texts = isinstance(content, list) and len(content) == 3 and all(isinstance(text, str) for text in content)
    if not texts or content[0] not in KINDS:
        return _unreadable()
    return Failure(content[0], content[1][:REASON_LETTERS], content[2][-DETAIL_LETTERS:])


def _unreadable() -> Failure:
    return Failure("exception", "The entry's process sent the scorer something that cannot be read.")


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _read_checkpoint(path: Path) -> bytes | Failure:
    """Read a plain file of a limited size, and nothing that a link, a pipe or a device leads to."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(handle)
            if stat.S_ISREG(status.st_mode) and status.st_size <= CHECKPOINT_BYTES:
                return file.read(CHECKPOINT_BYTES)
    except OSError:
        return Failure("weights", "The run left no checkpoint.")
    return Failure("weights", f"The run's checkpoint is no plain file of at most {CHECKPOINT_BYTES:,} bytes.")


def _judge(content: bytes, own: float, wall: float, cpu: float) -> Kept | Failure:
    """Hold the seconds that the entry's process measured against the keeper's."""
    found = f"its own clock says {own:.3g} s, the scorer's {wall:.3g} s"
    if not 0 < own <= wall + 0.1 or cpu <= 0:
        return Failure("clock", f"The entry's time is impossible: {found}. It must leave clocks alone.")
    if min(wall, cpu) > 2 * own + SPARE_SECONDS:  # on a busy machine wall alone can be far above
        return Failure("clock", f"The entry worked outside unlearning() or changed a clock: {found}.")
    return Kept(content, wall, cpu)


def _how_it_ended(code: int | None, when: str) -> Failure:
    with contextlib.suppress(ValueError):
        code = -signal.Signals(code - 128) if code is not None and code > 128 else code
    if code == -signal.SIGKILL:
        return Failure("killed", "The process was killed from outside, or the system ran out of memory.")
    if code is not None and code < 0:
        return Failure("killed", f"The process was ended by {signal.Signals(-code).name}.")
    return Failure("exception", f"The process ended (exit code {code}) {when}.")


def _resident_bytes(process: int) -> int:
    with contextlib.suppress(OSError, IndexError, ValueError):
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _held_bytes(process: int) -> int:
    """Return a process's memory, with its share of what it shares with others."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    return _resident_bytes(process)
