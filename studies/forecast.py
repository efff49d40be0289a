"""How far off is a forecast of F at 512 from 10, 32, 64 or 128 models?

    python -m studies.forecast
    python -m studies.forecast --run runs/n512 --results results/forecast-n512.json

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
from local_scorer.runs.record import CEILING, Run
from local_scorer.statistics.forecast import LEAST_MODELS, forecast
from studies import frame
from studies.simulated import CASES, ForgetSet, model_set

COLUMNS = (
    "case", "n_models", "repetitions", "truth", "forecast", "bias", "error", "error_as_measured", "inside",
)  # fmt: skip
MOST_BLOCKS = 8
FEWEST_MODELS = 4  # no law can be fitted to fewer


@dataclass(frozen=True)
class Trial:
    """One forecast: F at N as measured, forecast with its interval, the mean truth and a fresh evaluation."""

    measured: float
    forecast: float
    low: float
    high: float
    truth: float
    fresh: float


def main() -> None:
    """Forecast from every number of models."""
    parser = frame.parser("studies.forecast", __doc__)
    parser.add_argument("--models", type=int, nargs="+", default=[10, 32, 64, 128])
    parser.add_argument("--examples", type=int, default=40)
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--target", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", type=Path, help="the --out folder of a leaderboard with many models")
    args = parser.parse_args()
    if min(args.models) < FEWEST_MODELS:
        raise ValueError(f"--models must be at least {FEWEST_MODELS}, found {min(args.models)}.")
    rows = []
    for name, n_models, trials in of_run(args.run, args.models) if args.run else simulated(args):
        print(f"{name}, N={n_models}", file=sys.stderr)
        rows.append(row(name, n_models, trials))
    notes = [f"The tool itself makes no forecast below N={LEAST_MODELS}."]
    frame.publish("studies.forecast", args.results, COLUMNS, rows, None, notes)


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
    run = Run.open(root)
    for name in (*run.readable, CEILING):
        unlearned = run.models(name)
        truth = final_score(unlearned, run.retrained).forgetting_quality
        for n_models in counts:
            blocks = min(unlearned.n_models, run.retrained.n_models) // n_models
            found = []
            for block in range(min(blocks, MOST_BLOCKS)):
                parts = (_block(models, block, n_models) for models in (unlearned, run.retrained))
                found.append(trial(*parts, truth, truth, run.record.n_models))
            if found:
                yield name, n_models, found


def trial(unlearned: ModelSet, retrained: ModelSet, truth: float, fresh: float, target: int) -> Trial:
    """Forecast once, also where the tool would refuse."""
    made = forecast(unlearned, retrained, target, least_models=FEWEST_MODELS)
    measured = final_score(unlearned, retrained).forgetting_quality
    return Trial(measured, made.quality, made.quality_low, made.quality_high, truth, fresh)


def row(name: str, n_models: int, trials: list[Trial]) -> tuple[object, ...]:
    """Return one row of the table; what cannot be said, where F is 0, is None."""
    measured, made, low, high, truth, fresh = (
        np.array([getattr(trial, field.name) for trial in trials]) for field in fields(Trial)
    )
    bias = float(made.mean() / truth.mean() - 1) if truth.mean() else None
    inside = float(np.mean((low <= fresh) & (fresh <= high)))
    means = float(truth.mean()), float(made.mean())
    return (name, n_models, len(trials), *means, bias, _error(made, truth), _error(measured, truth), inside)


def _error(values: np.ndarray, truth: np.ndarray) -> float | None:
    with np.errstate(divide="ignore", invalid="ignore"):
        error = float(np.sqrt(np.mean(np.log(values / truth) ** 2)))
    return error if np.isfinite(error) else None


def _block(models: ModelSet, block: int, n_models: int) -> ModelSet:
    chosen = slice(block * n_models, (block + 1) * n_models)
    arrays = {f.name: getattr(models, f.name)[chosen] for f in fields(models) if f.name != "labels"}
    return ModelSet(labels=models.labels, **arrays)


if __name__ == "__main__":
    frame.exit_with(main)
