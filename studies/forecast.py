"""How far off is a forecast of F at 512 from 10, 32, 64 or 128 models?

    python -m studies.forecast --out docs/results/forecast.txt
    python -m studies.forecast --run runs/synthetic512

Without --run: simulated confidences, where the truth is the mean F of evaluations at 512 on the same forget set.
With --run: a run folder of a leaderboard with many models. Its F at all its models is the truth, for every
entry and the ceiling; forecasts start from disjoint blocks of its models.

bias: mean of forecast over truth, less 1. error: root mean square of ln(forecast / truth). As measured: the
error if F at N were taken for F at 512. inside: share of 95 % intervals that hold F of a fresh evaluation.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from local_scorer.metric.score import ModelSet, final_score
from local_scorer.report import board as report
from local_scorer.runs.store import RunFolder, write_atomically
from local_scorer.statistics.forecast import LEAST_MODELS, forecast
from studies.simulated import CASES, ForgetSet, model_set

HEADER = (
    f"{'case':18} {'N':>4} {'reps':>4} {'truth':>7} {'forecast':>8} "
    f"{'bias':>6} {'error':>6} {'as measured':>11} {'inside':>7}"
)


@dataclass(frozen=True)
class Trial:
    """One forecast: F at N as measured, forecast with its interval, the mean truth and a fresh evaluation."""

    measured: float
    forecast: float
    low: float
    high: float
    truth: float
    fresh: float


def main() -> int:
    """Print the table and write it if asked."""
    parser = argparse.ArgumentParser(prog="python -m studies.forecast", description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=int, nargs="+", default=[10, 32, 64, 128])
    parser.add_argument("--examples", type=int, default=40)
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--target", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", type=Path, help="a run folder, such as runs/synthetic512")
    parser.add_argument("--out", type=Path, help="also write the text here")
    args = parser.parse_args()
    command = ["python -m studies.forecast", "--models", *map(str, args.models)]
    if args.run:
        command += ["--run", str(args.run)]
    else:
        command += ["--examples", str(args.examples), "--repetitions", str(args.repetitions)]
        command += ["--target", str(args.target), "--seed", str(args.seed)]
    lines = [" ".join(command), f"The tool itself makes no forecast below N={LEAST_MODELS}.", "", HEADER]
    print("\n".join(lines), flush=True)
    rows = of_run(args.run, args.models) if args.run else simulated(args)
    for name, n_models, trials in rows:
        lines.append(line(name, n_models, trials))
        print(lines[-1], flush=True)
    if args.out:
        write_atomically(args.out, ("\n".join(lines) + "\n").encode())
    return 0


def simulated(args: argparse.Namespace) -> Iterator[tuple[str, int, list[Trial]]]:
    """Forecast from simulated evaluations; every repetition has a forget set of its own."""
    for case in CASES:
        generator = np.random.default_rng([args.seed, *case.name.encode()])
        trials: dict[int, list[Trial]] = {n_models: [] for n_models in args.models}
        for _ in range(args.repetitions):
            examples = ForgetSet.drawn(case, args.examples, generator)
            truths = [examples.quality(args.target, generator) for _ in range(4)]
            for n_models, found in trials.items():
                sets = (model_set(c, generator) for c in examples.evaluation(n_models, generator))
                found.append(trial(*sets, float(np.mean(truths[1:])), truths[0], args.target))
        for n_models, found in trials.items():
            yield case.name, n_models, found


def of_run(root: Path, counts: list[int]) -> Iterator[tuple[str, int, list[Trial]]]:
    """Forecast from blocks of the models of a run to all of them.

    Raises:
        ValueError: the folder holds no finished run.
    """
    folder = RunFolder(root)
    record = report.load_record(folder)
    retrained = report.models_of(folder, record.retrained)
    keys = {report.CEILING: record.ceiling} | {entry["name"]: entry.get("keys", []) for entry in record.entries}
    for name, own in keys.items():
        if not own or not all(folder.result_path(key).is_file() for key in own):
            continue
        unlearned = report.models_of(folder, own)
        truth = final_score(unlearned, retrained).forgetting_quality
        for n_models in counts:
            blocks = range(min(unlearned.n_models, retrained.n_models) // n_models)
            found = [
                trial(
                    *(_block(models, block, n_models) for models in (unlearned, retrained)),
                    truth,
                    truth,
                    record.n_models,
                )
                for block in list(blocks)[:8]
            ]
            if found:
                yield name, n_models, found


def trial(unlearned: ModelSet, retrained: ModelSet, truth: float, fresh: float, target: int) -> Trial:
    """Forecast once, also where the tool would refuse."""
    made = forecast(unlearned, retrained, target, least_models=4)
    measured = final_score(unlearned, retrained).forgetting_quality
    return Trial(measured, made.quality, made.quality_low, made.quality_high, truth, fresh)


def line(name: str, n_models: int, trials: list[Trial]) -> str:
    """Return one row of the table."""
    measured, made, low, high, truth, fresh = (
        np.array([getattr(trial, field.name) for trial in trials]) for field in fields(Trial)
    )
    inside = np.mean((low <= fresh) & (fresh <= high))
    return (
        f"{name:18} {n_models:>4} {len(trials):>4} {truth.mean():>7.4f} {made.mean():>8.4f} "
        f"{made.mean() / truth.mean() - 1 if truth.mean() else np.nan:>+6.0%} {_error(made, truth):>6.2f} "
        f"{_error(measured, truth):>11.2f} {inside:>7.0%}"
    )


def _error(values: np.ndarray, truth: np.ndarray) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.sqrt(np.mean(np.log(values / truth) ** 2)))


def _block(models: ModelSet, block: int, n_models: int) -> ModelSet:
    chosen = slice(block * n_models, (block + 1) * n_models)
    arrays = {f.name: getattr(models, f.name)[chosen] for f in fields(models) if f.name != "labels"}
    return ModelSet(labels=models.labels, **arrays)


if __name__ == "__main__":
    sys.exit(main())
