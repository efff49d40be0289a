"""Speed of the official metric against a threshold-by-threshold transcription, as a ratio in one run.

    python -m benchmarks.metric --models 10 64 512 --examples 200 --slow-examples 3

Confidences are drawn from N(0, 1) for both kinds of model, the case of perfect unlearning. The two must agree
on every example that both score; the exit code is 1 if they do not. Use one thread (OMP_NUM_THREADS=1).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import astuple, dataclass, fields

import numpy as np

from local_scorer.metric import epsilons, forgetting_quality
from local_scorer.statistics.intervals import redraw
from studies import frame
from studies.simulated import model_set
from tests.oracles import slow_metric

REDRAWS = 1000


@dataclass(frozen=True)
class Timing:
    """One row of the table; times in milliseconds an example."""

    n_models: int
    transcription_ms: float
    ours_ms: float
    ratio: float
    equal: bool
    quality: float


def main() -> None:
    """Time both, and refuse a table of unequal results."""
    parser = frame.parser("benchmarks.metric", __doc__, "speed-metric")
    parser.add_argument("--models", type=int, nargs="+", default=[10, 64, 512], help="N, models of each kind")
    parser.add_argument("--examples", type=int, default=200, help="S, the examples that ours is timed on")
    parser.add_argument("--slow-examples", type=int, default=3, help="those that the transcription scores")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    timings = [measure(n_models, args.examples, args.slow_examples, args.seed) for n_models in args.models]
    n_models = min(args.models)
    seconds = seconds_of_redraws(n_models, args.examples, args.seed)
    notes = [
        f"{args.examples} examples, {args.slow_examples} for the transcription; times an example.",
        f"{REDRAWS} redraws of N={n_models} with {args.examples} examples took {seconds:.1f} CPU seconds.",
    ]
    columns = [part.name for part in fields(Timing)]
    frame.publish("benchmarks.metric", args.results, columns, [astuple(row) for row in timings], None, notes)
    if not all(row.equal for row in timings):
        raise ValueError("The two do not agree.")


def seconds_of_redraws(n_models: int, n_examples: int, seed: int) -> float:
    """Time the redraws behind an interval, in CPU seconds."""
    generator = np.random.default_rng([seed, n_models])
    unlearned, retrained = (model_set(generator.normal(size=(n_models, n_examples)), generator) for _ in range(2))
    start = time.process_time()
    redraw(unlearned, retrained, resamples=REDRAWS)
    return time.process_time() - start


def measure(n_models: int, n_examples: int, n_slow: int, seed: int) -> Timing:
    """Time both on the same confidences."""
    generator = np.random.default_rng([seed, n_models])
    unlearned, retrained = generator.normal(size=(2, n_models, n_examples))
    epsilons(unlearned[:, :1], retrained[:, :1])  # fills the table of epsilons
    fast, fast_seconds = _timed(epsilons, unlearned, retrained)
    slow, slow_seconds = _timed(slow_metric.official_epsilons, unlearned[:, :n_slow], retrained[:, :n_slow])
    slow_ms, fast_ms = slow_seconds / slow.size * 1e3, fast_seconds / fast.size * 1e3
    return Timing(
        n_models=n_models,
        transcription_ms=slow_ms,
        ours_ms=fast_ms,
        ratio=slow_ms / fast_ms,
        equal=np.array_equal(slow, fast[: slow.size]),
        quality=forgetting_quality(fast, n_models),
    )


def _timed(
    function: Callable[..., np.ndarray], unlearned: np.ndarray, retrained: np.ndarray
) -> tuple[np.ndarray, float]:
    start = time.perf_counter()
    result = function(unlearned, retrained)
    return result, time.perf_counter() - start


if __name__ == "__main__":
    frame.exit_with(main)
