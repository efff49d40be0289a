"""How far do scores move with the original, do intervals hold that, and what does the full set-up say?

    python -m studies.originals --out runs/originals

Every entry runs from every original; what is missing of that, and of the retrained models, is done first and can
be interrupted. Three tables follow:

- originals.json: K originals are drawn out of all; the truth is the mean over the others. That mean has an error
  of its own: "held, exact truth" takes the distance by 1 / sqrt(1 + K / others), as it were to a truth without
  one.
- originals-groups.json: the originals in groups of four that share none; each group is an evaluation.
- originals-setups.json: the competition's set-up, N runs from one original, beside the full one, one run from
  each of N. "Range" is the lowest and the highest of repeated evaluations.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from local_scorer import reference
from local_scorer.execution import contract, pool
from local_scorer.execution.job import Job
from local_scorer.execution.local import LocalEngine
from local_scorer.metric.score import ModelSet, final_score
from local_scorer.runs.record import CEILING, FLOOR, model_set
from local_scorer.runs.store import RunFolder
from local_scorer.statistics.originals import mean_over_originals, told_apart
from studies import frame

ENTRIES = frame.ROOT / "kaggle_submission"
BLOCK = 4  # runs from every original and of every entry that are done before the next ones
GROUP = 4  # originals
SIZES = (2, 4, 8)  # K
DRAWS = 1000  # of K originals
FULL_EVALUATIONS = 20  # of the full set-up, each with runs drawn anew
UNUSED = ("test_logits", "test_labels", "retain_confidence", "validation_confidence", "machines")


@dataclass(frozen=True)
class Material:
    """Models of one study.

    Attributes:
        entries: name -> for each original the set of runs from it.
        originals, retrained, ceiling: the models themselves.
        first_runs: name -> one run from each of `originals`, of which there may be more than in `entries`.
    """

    entries: dict[str, list[ModelSet]]
    originals: ModelSet
    retrained: ModelSet
    ceiling: ModelSet
    first_runs: dict[str, ModelSet]

    @property
    def n_originals(self) -> int:
        return len(next(iter(self.entries.values())))

    def scores(self, entry: str) -> np.ndarray:
        """Return the score from each original, ``[n_originals]``."""
        return np.array([final_score(models, self.retrained).score for models in self.entries[entry]])


def main() -> None:
    """Do the runs that are missing, and write the tables."""
    parser = frame.parser("studies.originals", __doc__)
    add_arguments(parser)
    args = parser.parse_args()
    material = material_of(args)
    notes = [
        f"{material.n_originals} originals, {args.runs} runs of each entry from each, "
        f"{material.retrained.n_models} retrained models."
    ]
    scores = {entry: material.scores(entry) for entry in material.entries}
    n_examples = material.retrained.n_examples
    for file, columns, rows, more in (
        ("", COVERAGE, coverage(scores, n_examples), ["Every row draws from the same originals."]),
        ("-groups", GROUPS, groups(scores, n_examples), [leaders(scores)]),
        ("-setups", SETUPS, setups(material, scores), []),
    ):
        path = args.results.with_stem(args.results.stem + file)
        frame.publish("studies.originals", path, columns, list(rows), args.runs, notes + more)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("entries", nargs="*", default=["ssd", "contrastive", "gisa", "finetune"])
    parser.add_argument("--data", type=Path, default=Path("data/synthetic"))
    parser.add_argument("--originals", type=int, default=24)
    parser.add_argument("--full", type=int, default=40, help="originals of the full set-up")
    parser.add_argument("--runs", type=int, default=16, help="from each original")
    parser.add_argument("--retrained", type=int, default=512)
    parser.add_argument("--ceiling", type=int, default=160, help="retrained models more")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/originals"), help="run folder")


def material_of(args: argparse.Namespace) -> Material:
    """Do what is missing, and read all of it."""
    base, folder = reference.base_job(args.data, "quick", 16, 0, "cpu"), RunFolder(args.out)
    trained = {
        role: [replace(base, role=role, index=index) for index in range(count)]
        for role, count in (("original", args.full), ("retrained", args.retrained), ("ceiling", args.ceiling))
    }
    runs = {entry: runs_of(entry, base, args.originals, args.runs, folder) for entry in args.entries}
    first = {entry: runs_of(entry, base, args.full, 1, folder) for entry in args.entries}
    _do_all([job for jobs in trained.values() for job in jobs], [runs, first], folder, args.workers)
    sets = {name: _read(jobs, folder) for name, jobs in runs.items()}
    return Material(
        entries={
            name: [models.part(start, start + args.runs) for start in range(0, models.n_models, args.runs)]
            for name, models in sets.items()
        },
        originals=_read(trained["original"], folder),
        retrained=_read(trained["retrained"], folder),
        ceiling=_read(trained["ceiling"], folder),
        first_runs={name: _read(jobs, folder) for name, jobs in first.items()},
    )


def runs_of(entry: str, base: Job, n_originals: int, n_runs: int, folder: RunFolder) -> list[Job]:
    """Return the runs of an entry, those from the first original first."""
    source = contract.read_source(ENTRIES / f"{entry}.py")
    digest = contract.source_hash(source)
    folder.keep_entry(source, digest)
    run = replace(base, role="unlearned", entry=entry, entry_hash=digest)
    return [replace(run, index=index, original=number) for number in range(n_originals) for index in range(n_runs)]


def _do_all(trained: Sequence[Job], runs: Sequence[dict[str, list[Job]]], folder: RunFolder, workers: int) -> None:
    unlearned = list(dict.fromkeys(job for jobs in runs for of_entry in jobs.values() for job in of_entry))
    unlearned.sort(key=lambda job: job.index // BLOCK)
    jobs = [*trained, *unlearned]
    with LocalEngine(folder, "cpu", workers) as engine:
        progress = pool.Progress(len(jobs), sum(job.is_done(folder) for job in jobs), engine.slots)
        try:
            pool.run(trained, folder, engine, progress, later=unlearned)
            failures = pool.run(unlearned, folder, engine, progress)
        finally:
            progress.close()
    for job, failure in failures.items():
        raise RuntimeError(f"{job.entry} failed in run {job.index}: {failure.reason}")


def _read(jobs: Sequence[Job], folder: RunFolder) -> ModelSet:
    models = model_set([folder.load_result(job.key) for job in jobs])
    empty = {part.name: part.default_factory() for part in fields(ModelSet) if part.name in UNUSED}
    return replace(models, **empty)


COVERAGE = ("entry", "originals", "score", "spread_of_originals", "factor", "held", "held_exact")


def coverage(scores: dict[str, np.ndarray], n_examples: int, seed: int = 0) -> Iterator[tuple[object, ...]]:
    """Yield for each entry and K how often the interval of K originals holds the mean over the others.

    Entries that earn nothing from any original are left out: their truth is not known beyond that.
    """
    for entry, values in scores.items():
        if not values.any():
            continue
        spread = float(values.std(ddof=1) / values.mean())
        generator = np.random.default_rng(seed)
        for size in SIZES:
            drawn = []
            for _ in range(DRAWS):
                chosen = generator.permutation(len(values))[:size]
                found = mean_over_originals(values[chosen], n_examples)
                drawn.append((found.low, found.high, chosen))
            yield (entry, size, float(values.mean()), spread, *_held(values, drawn))


def _held(values: np.ndarray, drawn: Sequence[tuple[float, float, Sequence[int]]]) -> tuple[float, float, float]:
    """Return the median ratio of an interval's upper end to the score, and how often it holds the truth."""
    held, exact, factors = [], [], []
    for low, high, chosen in drawn:
        others = np.delete(values, chosen)
        mine, truth = values[chosen].mean(), others.mean()
        nearer = mine + (truth - mine) / np.sqrt(1 + len(chosen) / len(others))
        held.append(low <= truth <= high)
        exact.append(low <= nearer <= high)
        factors.append(high / mine if mine > 0 else 1.0)
    return float(np.median(factors)), float(np.mean(held)), float(np.mean(exact))


GROUPS = (
    "entry", "one_original_low", "one_original_high", "four_originals_low", "four_originals_high", "groups",
    "groups_held",
)  # fmt: skip


def groups(scores: dict[str, np.ndarray], n_examples: int) -> Iterator[tuple[object, ...]]:
    """Yield for each entry the range of its scores from one original and from each group of four."""
    for entry, values in scores.items():
        parts = _parts(len(values))
        found = [mean_over_originals(values[part], n_examples) for part in parts]
        held = [
            one.low <= np.delete(values, part).mean() <= one.high for one, part in zip(found, parts, strict=True)
        ]
        means = [one.mean for one in found]
        yield entry, values.min(), values.max(), min(means), max(means), len(parts), sum(map(bool, held))


def leaders(scores: dict[str, np.ndarray]) -> str:
    """Say how often each entry leads, and how often a group of four tells two entries apart, or wrongly."""
    n_originals = len(next(iter(scores.values())))
    pairs = [(a, b) for a in scores for b in scores if scores[a].mean() > scores[b].mean()]
    apart = wrong = 0
    for part in _parts(n_originals):
        for better, worse in pairs:
            if told_apart(scores[better][part], scores[worse][part]):
                apart += 1
                wrong += bool(scores[better][part].mean() < scores[worse][part].mean())
    count = len(pairs) * len(_parts(n_originals))
    return (
        f"The entry that leads, by evaluations: from one original {_counted(scores, 1)}; from four "
        f"{_counted(scores, GROUP)}. "
        f"Groups of four told {apart} of {count} pairs apart, {wrong} of them against the order of all originals."
    )


def _counted(scores: dict[str, np.ndarray], size: int) -> str:
    first = [
        max(scores, key=lambda entry: scores[entry][part].mean())
        for part in _parts(len(next(iter(scores.values()))), size)
    ]
    return ", ".join(f"{entry} in {first.count(entry)}" for entry in scores if entry in first)


def _parts(n_originals: int, size: int = GROUP) -> list[np.ndarray]:
    return [np.arange(start, start + size) for start in range(0, n_originals - size + 1, size)]


SETUPS = (
    "entry", "competition", "competition_low", "competition_high", "full", "full_low", "full_high", "full_largest",
)  # fmt: skip


def setups(material: Material, scores: dict[str, np.ndarray], seed: int = 0) -> Iterator[tuple[object, ...]]:
    """Yield for each entry and reference its scores in both set-ups at one N, and in the largest full one."""
    generator = np.random.default_rng(seed)
    n_runs = next(iter(material.entries.values()))[0].n_models
    n_all = material.originals.n_models
    ceiling = [_scores_of_parts(material.ceiling, n, material.retrained) for n in (n_runs, n_all)]
    yield CEILING, *_mean_and_range(ceiling[0]), *_mean_and_range(ceiling[0]), float(np.mean(ceiling[1]))
    for entry, values in sorted(scores.items(), key=lambda item: -item[1].mean()):
        full = []
        for _ in range(FULL_EVALUATIONS):
            chosen = generator.permutation(material.n_originals)[:n_runs]
            runs = [one(material.entries[entry][k], int(generator.integers(n_runs))) for k in chosen]
            full.append(final_score(joined(runs), material.retrained).score)
        largest = final_score(material.first_runs[entry], material.retrained).score
        yield entry, *_mean_and_range(values), *_mean_and_range(full), largest
    floor = _scores_of_parts(material.originals, n_runs, material.retrained)
    copies = [
        final_score(one(material.originals, k).repeated(n_runs), material.retrained).score for k in range(GROUP)
    ]
    largest = final_score(material.originals, material.retrained).score
    yield FLOOR, *_mean_and_range(copies), *_mean_and_range(floor), largest


def one(models: ModelSet, number: int) -> ModelSet:
    """Return one model of a set."""
    return models.part(number, number + 1)


def joined(sets: Sequence[ModelSet]) -> ModelSet:
    """Return the models of several sets as one."""
    arrays = {
        part.name: np.concatenate([getattr(models, part.name) for models in sets])
        for part in fields(ModelSet)
        if part.name not in ("labels", "test_labels")
    }
    return replace(sets[0], **arrays)


def _scores_of_parts(models: ModelSet, size: int, retrained: ModelSet) -> list[float]:
    starts = range(0, models.n_models - size + 1, size)
    return [final_score(models.part(start, start + size), retrained).score for start in starts]


def _mean_and_range(values: Sequence[float]) -> tuple[float, float, float]:
    return float(np.mean(values)), float(np.min(values)), float(np.max(values))


if __name__ == "__main__":
    frame.exit_with(main)
