"""Does Ctrl-C twice always end a run? Runs are started, interrupted twice, and looked after.

    python -m studies.interrupts --times 32 --at-once 4

As a terminal does it, the signal goes to every process of the foreground. The gap between the two is 0 to 0.1 s,
in turns. Some runs start side by side and are interrupted one after the other: the first while its children start,
the others later in their training. "Ended" is an end with exit code 130 and a sentence, within 5 s after the first
signal. What is alive 3 s later is left behind. The exit code is 1 if a run did not end, left something, or showed
a traceback.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from data_prep.sources import synthetic
from local_scorer.execution import interrupts
from studies import frame

GAPS = (0.0, 0.01, 0.03, 0.1)  # seconds
SOON = 5.0  # seconds, on a busy machine too
PATIENCE = 60.0  # seconds until a run is said to hang
GRACE = 3.0  # seconds for processes that end by themselves
MARK = "INTERRUPT_STUDY"  # an environment variable, which all processes of a run inherit
COLUMNS = ["gap", "times", "ended", "slowest_s", "hung", "tracebacks", "left_behind"]


@dataclass(frozen=True)
class Ending:
    """How a run ended: seconds after the first signal, exit code, and what was seen."""

    seconds: float
    code: int | None
    told: bool
    traceback: bool
    left: tuple[str, ...]

    @property
    def in_time(self) -> bool:
        codes = (interrupts.INTERRUPTED, -signal.SIGINT)  # a shell reports both as 130
        return self.told and self.code in codes and self.seconds < SOON


def main() -> int:
    """Interrupt runs and count how they end."""
    parser = frame.parser("studies.interrupts", __doc__)
    parser.add_argument("--times", type=int, default=32, help="runs that are interrupted (default 32)")
    parser.add_argument("--at-once", type=int, default=4, help="runs side by side (default 4)")
    args = parser.parse_args()
    ends: dict[float, list[Ending]] = {gap: [] for gap in GAPS}
    with tempfile.TemporaryDirectory(prefix="interrupts-") as place:
        root = Path(place).resolve()
        data = synthetic.prepare(root / "data", people=40, size=32)
        for first in range(0, args.times, args.at_once):
            numbers = range(first, min(first + args.at_once, args.times))
            started = [(root / f"run{number}", start(data, root / f"run{number}")) for number in numbers]
            for place_in_turn, (out, process) in enumerate(started):
                gap = GAPS[(place_in_turn + first // args.at_once) % len(GAPS)]
                ends[gap].append(interrupt_twice(process, out, gap))
                print(f"{out.name}, gap {gap:g} s: {ends[gap][-1]}", file=sys.stderr)
    rows = [_row(gap, found) for gap, found in ends.items() if found]
    frame.publish("studies.interrupts", args.results, COLUMNS, rows)
    return int(any(row[1] != row[2] or row[5] or row[6] for row in rows))


def start(data: Path, out: Path) -> subprocess.Popen[str]:
    """Start a run of many long trainings, in a group of its own."""
    arguments = ["leaderboard", "finetune", "--data", str(data), "--recipe", "competition", "--workers", "2"]
    return subprocess.Popen(
        [sys.executable, "-m", "local_scorer", *arguments, "--models", "4", "--out", str(out)],
        cwd=frame.ROOT, env={**os.environ, MARK: str(out)}, start_new_session=True, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a shell's "&" turns it off
    )  # fmt: skip


def interrupt_twice(process: subprocess.Popen[str], out: Path, gap: float) -> Ending:
    """Wait until a run has started its children, and press Ctrl-C twice."""
    while not list(out.glob("work/*")) and process.poll() is None:
        time.sleep(0.01)
    begin = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(gap)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
    seconds = time.monotonic() - begin
    deadline = time.monotonic() + GRACE
    while (left := _marked(out)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for number in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    errors = process.communicate()[1]
    return Ending(
        seconds=seconds,
        code=process.returncode,
        told="Finished jobs are kept" in errors,
        traceback="Traceback" in errors,
        left=tuple(left.values()),
    )


def _marked(out: Path) -> dict[int, str]:
    """Return the processes that were started for the run in `out`, and their command lines."""
    mark, found = f"{MARK}={out}".encode(), {}
    for place in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in place.read_bytes().split(b"\0"):
                words = (place.parent / "cmdline").read_bytes().replace(b"\0", b" ")
                found[int(place.parent.name)] = words.decode(errors="replace")[:200]
        except OSError:  # it has ended
            continue
    return found


def _row(gap: float, found: list[Ending]) -> list[object]:
    return [
        f"{gap:g} s",
        len(found),
        sum(end.in_time for end in found),
        round(max(end.seconds for end in found), 1),
        sum(end.seconds >= PATIENCE for end in found),
        sum(end.traceback for end in found),
        sum(len(end.left) for end in found),
    ]


if __name__ == "__main__":
    sys.exit(main())
