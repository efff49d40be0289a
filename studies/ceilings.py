"""How far do ceiling, score and share of the ceiling move with the retrained models, and with their number M?

    python -m studies.ceilings runs/default
    python -m studies.ceilings runs/mufac32-pack --numbers 15 30 60 --results results/ceilings-mufac32.json
    python -m studies.ceilings runs/originals40 --held --results results/ceilings-held.json

The run is one with a pack, whose retrained and ceiling models are cut into parts of M that share none. Each part
takes the place of the retrained models once; the ceiling is that of sets of N models of the other kind.
"Spread" is the standard deviation over the parts, as a share of their mean.

With --held, the same parts show whether intervals of K originals hold the draw of the retrained models: K
originals and one part are drawn, and the truth is the mean over all other originals and all other parts. It has
an error of its own, which is taken off as in studies.originals. "Jackknife" is what the intervals say of the
spread. For the ceiling, sets of N models take the place of originals.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from local_scorer.metric.score import ModelSet, final_score
from local_scorer.runs.record import CEILING, Run
from local_scorer.statistics.originals import Mean, mean_over_originals, moves_of, scores_without
from studies import frame
from studies.originals import joined

NUMBERS = (64, 128, 256, 512)  # M
COLUMNS = (
    "row, M", "parts", "score", "score_spread",
    "share_of_ceiling", "share_of_ceiling_low", "share_of_ceiling_high",
)  # fmt: skip
HELD_NUMBERS, HELD_PARTS = (16, 64), 16  # M, and parts of each
HELD_SIZES, HELD_DRAWS = (4, 8), 1000  # K
HELD_COLUMNS = ("row, M", "originals", "parts", "score", "score_spread", "jackknife", "held_as_given", "held")


def main() -> None:
    """Score the entries of a run against parts of its pack's models."""
    parser = frame.parser("studies.ceilings", __doc__)
    parser.add_argument("run", type=Path, help="the --out folder of a leaderboard with a pack")
    parser.add_argument("--entries", nargs="+", default=["best", "ssd", "neggrad", "retrain_short"])
    parser.add_argument("--numbers", nargs="+", type=int, metavar="M", help="models of a part")
    parser.add_argument("--held", action="store_true", help="how often intervals hold the draw")
    args = parser.parse_args()
    run = Run.open(args.run)
    if run.pack is None:
        raise ValueError(f"{args.run} has no pack: its retrained models are too few to be cut into parts.")
    note = f"{run.record.n_originals} originals."
    columns, found = (HELD_COLUMNS, held_rows) if args.held else (COLUMNS, rows)
    numbers = args.numbers or (HELD_NUMBERS if args.held else NUMBERS)
    found_rows = list(found(run, args.entries, numbers))
    frame.publish("studies.ceilings", args.results, columns, found_rows, run.record.n_models, [note])


def rows(run: Run, entries: Sequence[str], numbers: Sequence[int]) -> Iterator[tuple[object, ...]]:
    """Yield for each M the ceiling and every entry."""
    sets = {entry: run.sets(entry) for entry in entries}
    for number in numbers:
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


@dataclass(frozen=True)
class Scored:
    """Scores of one row: `scores` ``[n_originals, n_parts]``, `without` a group of the part, one axis more."""

    scores: np.ndarray
    without: np.ndarray
    n_examples: int


def held_rows(run: Run, entries: Sequence[str], numbers: Sequence[int]) -> Iterator[tuple[object, ...]]:
    """Yield for M, the ceiling and every entry, and K how often intervals hold other originals and other parts."""
    for number in numbers:
        drawn = list(parts(run, number))
        chosen = drawn[:: max(1, len(drawn) // HELD_PARTS)]
        for entry in (CEILING, *entries):
            found = scored_by_part(run, entry, chosen)
            means = found.scores.mean(axis=0)
            spread = float(means.std(ddof=1) / means.mean())
            moves = [moves_of(found.without[:, part]) for part in range(len(chosen))]
            groups = found.without.shape[-1]
            jackknife = float(np.sqrt(np.mean([(groups - 1) / groups * (one**2).sum() for one in moves])))
            for size in HELD_SIZES:
                row = f"{entry}, {number}", size, len(chosen), float(means.mean()), spread, jackknife
                yield *row, *held(found, size)


def scored_by_part(run: Run, entry: str, chosen: Sequence[tuple[ModelSet, Sequence[ModelSet]]]) -> Scored:
    """Score a row against each part, and against the part without each of its groups."""
    scores, without = [], []
    for part, others in chosen:
        sets = others[: run.record.n_originals] if entry == CEILING else run.sets(entry)
        scores.append([final_score(models, part).score for models in sets])
        without.append(scores_without(sets, part))
    return Scored(np.array(scores).T, np.array(without).swapaxes(0, 1), run.retrained.n_examples)


def held(found: Scored, size: int, seed: int = 0) -> tuple[float, float]:
    """Return how often the truth is held by intervals with the retrained models as given, and with their draw."""
    generator = np.random.default_rng(seed)
    n_originals, n_parts = found.scores.shape
    as_given, with_draw = [], []
    for _ in range(HELD_DRAWS):
        order, part = generator.permutation(n_originals), int(generator.integers(n_parts))
        mine, others = order[:size], order[size:]
        scores, moves = found.scores[mine, part], moves_of(found.without[mine, part])
        truth = np.delete(found.scores[others], part, axis=1).mean()
        nearer = scores.mean() + (truth - scores.mean()) / np.sqrt(1 + size / len(others))
        as_given.append(holds(mean_over_originals(scores, found.n_examples), nearer))
        with_draw.append(holds(mean_over_originals(scores, found.n_examples, moves=moves), nearer))
    return float(np.mean(as_given)), float(np.mean(with_draw))


def holds(interval: Mean, truth: float) -> bool:
    return bool(interval.low <= truth <= interval.high)


def cut(models: ModelSet, size: int) -> list[ModelSet]:
    """Return the parts of so many models each that share none."""
    return [models.part(start, start + size) for start in range(0, models.n_models - size + 1, size)]


if __name__ == "__main__":
    frame.exit_with(main)
