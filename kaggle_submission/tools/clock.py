"""The CPU seconds of a notebook's processes over time: other work on the machine hardly changes them."""

from __future__ import annotations

import bisect
import contextlib
import itertools
import json
import os
import threading
import time
from pathlib import Path

from local_scorer.execution import keeper

FILE = "clock.json"
LOOK_EVERY = 0.05  # seconds


class Clock(threading.Thread):
    """Notes, in a ``with`` block, how many CPU seconds the processes below this one have used at what time."""

    def __init__(self):
        super().__init__(daemon=True)
        self._done = threading.Event()
        self._seconds: dict[int, float] = {}
        self.looks: list[tuple[float, float]] = []  # time of day, CPU seconds

    def __enter__(self) -> Clock:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self.join()

    def run(self) -> None:
        """Look until the block ends."""
        while not self._done.is_set():
            for process in keeper.descendants(os.getpid()):
                with contextlib.suppress(OSError):
                    self._seconds[process] = keeper.cpu_seconds(process)
            self.looks.append((time.time(), sum(self._seconds.values())))
            self._done.wait(LOOK_EVERY)

    def write(self, folder: Path) -> None:
        """Leave the looks in a folder, for `seconds_of_runs`."""
        (folder / FILE).write_text(json.dumps(self.looks), encoding="utf-8")


def seconds_of_runs(root: Path, gpu: bool) -> tuple[float, ...]:
    """Return the seconds of each run but the first, which warms up: from one checkpoint to the next.

    They are CPU seconds, but of the clock on the wall with a GPU, and where processes cannot be seen.

    Args:
        root: where a notebook has run; `Clock.write` has left its looks there.
    """
    given = root / "kaggle" / "input"
    saved = sorted(
        path.stat().st_mtime for path in (root / "kaggle").rglob("*.pth") if given not in path.parents
    )
    looks = json.loads((root / FILE).read_text(encoding="utf-8"))
    if not gpu and looks and looks[-1][1] > 0:
        saved = [_spent_at(time_of_day, looks) for time_of_day in saved]
    return tuple(after - before for before, after in itertools.pairwise(saved))


def _spent_at(time_of_day: float, looks: list[tuple[float, float]]) -> float:
    """Return the CPU seconds that were used up to then, between two looks by a straight line.

    >>> _spent_at(11.0, [(10.0, 0.0), (12.0, 3.0)])
    1.5
    """
    place = bisect.bisect(looks, time_of_day, key=lambda look: look[0])
    if place in (0, len(looks)):
        return looks[0 if place == 0 else -1][1]
    (start, low), (end, high) = looks[place - 1 : place + 1]
    return low + (high - low) * (time_of_day - start) / (end - start)
