"""How far off is a forecast of F at 512 from 10, 32, 64 or 128 models?

    python -m studies.forecast --run runs/n512 --results results/forecast-n512.json

The run is one of a leaderboard with many models. Its F at all its models is the truth, for every entry and the
ceiling; forecasts start from disjoint blocks of its models.

bias: mean of forecast over truth, less 1. error: root mean square of ln(forecast / truth). As measured: the
error if F at N were taken for F at 512. inside: share of 95 % intervals that hold the truth.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from local_scorer.metric.score import ModelSet, final_score
from local_scorer.runs.record import CEILING, Run
from local_scorer.statistics.forecast import LEAST_MODELS, forecast
from studies import frame

COLUMNS = (
    "case", "n_models", "repetitions", "truth", "forecast", "bias", "error", "error_as_measured", "inside",
)  # fmt: skip
MOST_BLOCKS = 8
FEWEST_MODELS = 4  # no law can be fitted to fewer


@dataclass(frozen=True)
class Trial:
    """One forecast: F at N as measured, forecast with its interval, and the truth."""

    measured: float
    forecast: float
    low: float
    high: float
    truth: float


def main() -> None:
    """Forecast from every number of models."""
    parser = frame.parser("studies.forecast", __doc__)
    parser.add_argument("--run", type=Path, required=True, help="the --out folder of a long leaderboard")
    parser.add_argument("--models", type=int, nargs="+", default=[10, 32, 64, 128])
    args = parser.parse_args()
    if min(args.models) < FEWEST_MODELS:
        raise ValueError(f"--models must be at least {FEWEST_MODELS}, found {min(args.models)}.")
    rows = []
    for name, n_models, trials in of_run(args.run, args.models):
        print(f"{name}, N={n_models}", file=sys.stderr)
        rows.append(row(name, n_models, trials))
    notes = [f"The tool itself makes no forecast below N={LEAST_MODELS}."]
    frame.publish("studies.forecast", args.results, COLUMNS, rows, None, notes)


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
                found.append(trial(*parts, truth, run.record.n_models))
            if found:
                yield name, n_models, found


def trial(unlearned: ModelSet, retrained: ModelSet, truth: float, target: int) -> Trial:
    """Forecast once, also where the tool would refuse."""
    made = forecast(unlearned, retrained, target, least_models=FEWEST_MODELS)
    measured = final_score(unlearned, retrained).forgetting_quality
    return Trial(measured, made.quality, made.quality_low, made.quality_high, truth)


def row(name: str, n_models: int, trials: list[Trial]) -> tuple[object, ...]:
    """Return one row of the table; what cannot be said, where F is 0, is None."""
    measured, made, low, high, truth = (
        np.array([getattr(trial, field.name) for trial in trials]) for field in fields(Trial)
    )
    bias = float(made.mean() / truth.mean() - 1) if truth.mean() else None
    inside = float(np.mean((low <= truth) & (truth <= high)))
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
