"""How far do ceiling, score and share of the ceiling move with the retrained models, and with their number M?

    python -m studies.ceilings runs/default

The run is one with a pack, whose retrained and ceiling models are cut into parts of M that share none. Each part
takes the place of the retrained models once; the ceiling is that of sets of N models of the other kind.
"Spread" is the standard deviation over the parts, as a share of their mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from local_scorer.metric.score import ModelSet, final_score
from local_scorer.runs.record import CEILING, Run
from studies import frame
from studies.originals import joined

NUMBERS = (64, 128, 256, 512)  # M
COLUMNS = (
    "row, M", "parts", "score", "score_spread",
    "share_of_ceiling", "share_of_ceiling_low", "share_of_ceiling_high",
)  # fmt: skip


def main() -> None:
    """Score the entries of a run against parts of its pack's models."""
    parser = frame.parser("studies.ceilings", __doc__)
    parser.add_argument("run", type=Path, help="the --out folder of a leaderboard with a pack")
    parser.add_argument("--entries", nargs="+", default=["best", "ssd", "neggrad", "retrain_short"])
    args = parser.parse_args()
    run = Run.open(args.run)
    if run.pack is None:
        raise ValueError(f"{args.run} has no pack: its retrained models are too few to be cut into parts.")
    note = f"{run.record.n_originals} originals."
    frame.publish(
        "studies.ceilings", args.results, COLUMNS, list(rows(run, args.entries)), run.record.n_models, [note]
    )


def rows(run: Run, entries: Sequence[str]) -> Iterator[tuple[object, ...]]:
    """Yield for each M the ceiling and every entry."""
    sets = {entry: run.sets(entry) for entry in entries}
    for number in NUMBERS:
        scores = np.array([scores_against(part, others, sets) for part, others in parts(run, number)])
        if len(scores) < 2:
            continue
        shares = scores / scores[:, :1]
        for entry, score, share in zip((CEILING, *entries), scores.T, shares.T, strict=True):
            spread = float(score.std(ddof=1) / score.mean()) if score.any() else None
            ends = float(share.min()), float(share.max())
            yield f"{entry}, {number}", len(score), float(score.mean()), spread, float(share.mean()), *ends


def parts(run: Run, number: int) -> Iterator[tuple[ModelSet, Sequence[ModelSet]]]:
    """Yield parts of so many retrained models, and sets of N that share none with the part."""
    n_models, ceiling = run.record.n_models, run.sets(CEILING)
    retrained = cut(run.retrained, n_models)
    for models, others in ((run.retrained, ceiling), (joined(ceiling), retrained)):
        yield from ((part, others) for part in cut(models, number))


def scores_against(
    retrained: ModelSet, ceiling: Sequence[ModelSet], sets: dict[str, Sequence[ModelSet]]
) -> list[float]:
    """Return the ceiling, and the mean score of every entry over its originals."""
    return [
        float(np.mean([final_score(models, retrained).score for models in of_row]))
        for of_row in (ceiling, *sets.values())
    ]


def cut(models: ModelSet, size: int) -> list[ModelSet]:
    """Return the parts of so many models each that share none."""
    return [models.part(start, start + size) for start in range(0, models.n_models - size + 1, size)]


if __name__ == "__main__":
    frame.exit_with(main)
