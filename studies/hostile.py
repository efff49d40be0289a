"""Does hostile code get the better of a run? Each entry of `faults` runs several times, some at a time.

    python -m studies.hostile --each 2 --workers 4

"As it must" is, for work that is hidden from the clock, a result with its seconds; for a clock that lies and for
code that reaches too far, a failure of that entry alone; for code that tries to do harm and cannot, a result.
What still runs or lies in the run folder in the end is left behind. The exit code is 1 if anything is not as it
must be.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from data_prep.sources import synthetic
from local_scorer.runs.store import Failure, JobResult, RunFolder
from studies import faults, frame

KINDS = {
    "work hidden from the clock": faults.WORKERS,
    "clock that lies": faults.LIARS,
    "harm tried": faults.HARMLESS,
    "reaches too far": faults.FAILING,
}
COLUMNS = ["kind", "fault", "times", "as_it_must", "slowest_s"]


def main() -> int:
    """Run all entries and say what came of them."""
    parser = frame.parser("studies.hostile", __doc__)
    parser.add_argument("--each", type=int, default=2, help="times each entry runs (default 2)")
    parser.add_argument("--workers", type=int, default=4, help="runs at a time (default 4)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hostile-") as place:
        root = Path(place).resolve()
        folder = RunFolder(root / "run")
        base, jobs = faults.plan(folder, synthetic.prepare(root / "data", people=10, size=32))
        faults.outcomes(folder, [base])
        times = range(args.each)
        many = {(name, index): replace(job, index=index) for name, job in jobs.items() for index in times}
        found = faults.outcomes(folder, list(many.values()), args.workers)
        ends = {which: found[job] or folder.load_result(job.key) for which, job in many.items()}
        left = [str(path) for path in faults.left_behind(folder)]
    rows = [_row(kind, name, ends, args.each) for kind, names in KINDS.items() for name in names if name in jobs]
    note = f"Left behind by {len(many)} runs: {', '.join(left) or 'no process and no folder'}."
    frame.publish("studies.hostile", args.results, COLUMNS, rows, notes=[note])
    return int(bool(left) or any(row[2] != row[3] for row in rows))


def _row(kind: str, name: str, ends: dict[tuple[str, int], JobResult | Failure], each: int) -> list[object]:
    tried = [ends[name, index] for index in range(each)]
    seconds = [end.wall_seconds for end in tried if isinstance(end, JobResult)]
    right = sum(is_right(kind, end) for end in tried)
    return [kind, name.replace("_", " "), each, right, round(max(seconds), 1) if seconds else None]


def is_right(kind: str, end: JobResult | Failure) -> bool:
    """Say whether a run of an entry of this kind ended as it must."""
    if kind in ("clock that lies", "reaches too far"):
        return isinstance(end, Failure)
    if isinstance(end, Failure):
        return False
    return kind == "harm tried" or min(end.cpu_seconds, end.wall_seconds) >= 0.95 * faults.WORK  # ticks of 0.01


if __name__ == "__main__":
    sys.exit(main())
