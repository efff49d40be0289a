"""Does a board with a reference pack depend on the processor beyond its intervals?

    python -m studies.processors runs/usual runs/other

Both are runs of the same command with the same pack, on two processors, or on one whose libraries are told by
environment variables to do without its newer instructions, so that they round differently. "Equal" is the share of
runs whose answers to the forget pictures are the same to the bit; trainings are those that calibrate the clock.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from local_scorer.runs.record import Run
from studies import frame

COLUMNS = ("row", "score", "score_low", "score_high", "other_score", "other_low", "other_high", "runs", "equal")


def main() -> None:
    """Compare two boards row by row."""
    parser = frame.parser("studies.processors", __doc__)
    parser.add_argument("runs", type=Path, nargs=2, help="the --out folders of two leaderboards")
    args = parser.parse_args()
    first, second = map(Run.open, args.runs)
    if first.record.reference is None or first.record.reference != second.record.reference:
        raise ValueError("The two boards have no reference pack in common: run both with the same one.")
    note = f"{first.record.n_originals} originals."
    found = list(rows(first, second))
    frame.publish("studies.processors", args.results, COLUMNS, found, first.record.n_models, [note])


def rows(first: Run, second: Run) -> Iterator[tuple[object, ...]]:
    """Yield the rows as either processor wrote them, best first, and the trainings."""
    texts = [(run.folder.root / "leaderboard.json").read_text(encoding="utf-8") for run in (first, second)]
    boards = [json.loads(text) for text in texts]
    others = {row["entry"]: row for row in boards[1]["rows"]}
    for row in boards[0]["rows"]:
        sets = [run.sets(row["entry"]) for run in (first, second)]
        equal = [
            bool((mine == theirs).all())
            for pair in zip(*sets, strict=True)
            for mine, theirs in zip(*(models.logits for models in pair), strict=True)
        ]
        ends = [one[name] for one in (row, others[row["entry"]]) for name in ("score", "score_low", "score_high")]
        yield row["entry"], *ends, len(equal), float(np.mean(equal))
    trained = [np.concatenate([models.logits for models in run.timed]) for run in (first, second)]
    equal = [bool((mine == theirs).all()) for mine, theirs in zip(*trained, strict=True)]
    yield "trainings", *6 * [None], len(equal), float(np.mean(equal))


if __name__ == "__main__":
    frame.exit_with(main)
