"""Which mix of originals and runs orders the entries as the fullest evaluation does, at equal cost?

    python -m studies.mixes --out runs/originals
    python -m studies.mixes --run runs/default --results results/mixes-default.json

The models are those of studies.originals. An evaluation takes K originals and R runs from each, against M
retrained models; its order is held against that of all runs from all other originals, against all retrained
models. Cost is K x R, the runs of an entry. With R=1 it is the full set-up: the K runs are scored together.

With --run, the entries are those of a finished board of several originals, with all their runs: K originals are
held against half of all, of which they have none. Of a board of 64 runs or more, parts are held against the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from local_scorer.metric.score import ModelSet, final_score
from local_scorer.runs.record import Run
from studies import frame
from studies.originals import Material, add_arguments, joined, material_of, one

DRAWS = 2000
FULL_DRAWS = 30
FEW_RETRAINED = 64
MIXES = ((1, 8), (2, 4), (2, 8), (4, 4), (16, 1), (4, 8), (8, 4), (8, 8))  # K, R
MANY_RUNS = 64
PARTS = ((1, 16), (4, 4), (1, 64), (2, 32), (4, 16), (2, 64), (4, 32), (4, 64))  # K, R of a board of many runs
BLOCKS = 8  # of so many runs, from each original
COLUMNS = ("mix", "cost", "originals", "runs", "retrained", "pairs_ordered", "rank_correlation")


def main() -> None:
    """Draw evaluations of every mix and hold their orders against the fullest one."""
    parser = frame.parser("studies.mixes", __doc__)
    add_arguments(parser)
    parser.add_argument("--run", type=Path, help="the --out folder of a leaderboard of several originals")
    args = parser.parse_args()
    if args.run:
        run = Run.open(args.run)
        note = f"{len(run.readable)} entries, {run.record.n_originals} originals."
        found = rows_of_parts(run) if run.record.n_models >= MANY_RUNS else rows_of(run)
        frame.publish("studies.mixes", args.results, COLUMNS, list(found), None, [note])
        return
    material = material_of(args)
    note = f"{len(material.entries)} entries, {material.n_originals} originals, {args.runs} runs from each."
    frame.publish("studies.mixes", args.results, COLUMNS, list(rows(material)), None, [note])


def rows(material: Material, seed: int = 0) -> Iterator[tuple[object, ...]]:
    """Yield a row for each mix and number of retrained models."""
    truth = np.stack([material.scores(entry) for entry in material.entries])
    everything = material.retrained
    few = everything.part(0, FEW_RETRAINED)
    for retrained in (few, everything):
        sizes = {n_runs for _, n_runs in MIXES} - {1}
        blocks = {n: _of_blocks(material.entries.values(), n, retrained) for n in sizes}
        for size, n_runs in MIXES:
            generator = np.random.default_rng(seed)
            found = []
            for _ in range(DRAWS if n_runs > 1 else FULL_DRAWS):
                chosen = generator.permutation(material.n_originals)[:size]
                if n_runs > 1:
                    block = generator.integers(blocks[n_runs].shape[2], size=size)
                    scores = blocks[n_runs][:, chosen, block].mean(axis=1)
                else:
                    scores = _full(material, chosen, retrained, generator)
                found.append(agreement(scores, np.delete(truth, chosen, axis=1).mean(axis=1)))
            ordered, correlation = np.mean(found, axis=0)
            name = f"{size} x {n_runs}, {retrained.n_models}"
            yield name, size * n_runs, size, n_runs, retrained.n_models, float(ordered), float(correlation)


def rows_of(run: Run, seed: int = 0) -> Iterator[tuple[object, ...]]:
    """Yield a row for each K up to half of the originals of a board."""
    scores = np.array([[final_score(models, run.retrained).score for models in run.sets(e)] for e in run.readable])
    n_runs, retrained = run.record.n_models, run.retrained.n_models
    half = scores.shape[1] // 2
    for size in (2**power for power in range(half.bit_length())):
        generator = np.random.default_rng(seed)
        found = []
        for _ in range(DRAWS):
            drawn = generator.permutation(scores.shape[1])
            found.append(agreement(scores[:, drawn[:size]].mean(axis=1), scores[:, drawn[-half:]].mean(axis=1)))
        ordered, correlation = np.mean(found, axis=0)
        name = f"{size} x {n_runs}, {retrained}"
        yield name, size * n_runs, size, n_runs, retrained, float(ordered), float(correlation)


def rows_of_parts(run: Run, seed: int = 0) -> Iterator[tuple[object, ...]]:
    """Yield a row for each mix and number of retrained models, against the order of the whole board."""
    sets = {entry: run.sets(entry) for entry in run.readable}
    truth = [np.mean([final_score(models, run.retrained).score for models in each]) for each in sets.values()]
    for retrained in (run.retrained.part(0, FEW_RETRAINED), run.retrained):
        sizes = {n_runs for _, n_runs in PARTS}
        blocks = {n: _of_blocks(sets.values(), n, retrained, BLOCKS) for n in sizes}
        for size, n_runs in PARTS:
            generator = np.random.default_rng(seed)
            _, n_originals, n_blocks = blocks[n_runs].shape
            found = []
            for _ in range(DRAWS):
                chosen = generator.permutation(n_originals)[:size]
                block = generator.integers(n_blocks, size=size)
                found.append(agreement(blocks[n_runs][:, chosen, block].mean(axis=1), np.array(truth)))
            ordered, correlation = np.mean(found, axis=0)
            name = f"{size} x {n_runs}, {retrained.n_models}"
            yield name, size * n_runs, size, n_runs, retrained.n_models, float(ordered), float(correlation)


def agreement(scores: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Return the share of pairs that have the same order in both, and the rank correlation.

    >>> agreement(np.array([3.0, 2.0, 1.0]), np.array([3.0, 1.0, 2.0]))
    (0.6666666666666666, 0.5)
    """
    pairs = list(combinations(range(len(scores)), 2))
    same = np.mean([(scores[i] > scores[j]) == (truth[i] > truth[j]) for i, j in pairs])
    ranks = (values.argsort().argsort() for values in (scores, truth))
    return float(same), float(np.corrcoef(*ranks)[0, 1])


def _of_blocks(
    entries: Iterable[Sequence[ModelSet]], n_runs: int, retrained: ModelSet, most: int | None = None
) -> np.ndarray:
    """Return the scores of sets of `n_runs` that share no run, ``[n_entries, n_originals, n_blocks]``.

    Args:
        entries: for each entry the runs from each original.
        most: blocks from each original.
    """
    return np.array(
        [
            [
                [
                    final_score(models.part(start, start + n_runs), retrained).score
                    for start in range(0, models.n_models - n_runs + 1, n_runs)[:most]
                ]
                for models in sets
            ]
            for sets in entries
        ]
    )


def _full(
    material: Material, chosen: np.ndarray, retrained: ModelSet, generator: np.random.Generator
) -> np.ndarray:
    """Return the score of each entry by one run from each of the chosen originals, scored together."""
    scores = []
    for sets in material.entries.values():
        runs = [one(sets[k], int(generator.integers(sets[k].n_models))) for k in chosen]
        scores.append(final_score(joined(runs), retrained).score)
    return np.array(scores)


if __name__ == "__main__":
    frame.exit_with(main)
