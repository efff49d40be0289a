"""Speed of the official metric against a threshold-by-threshold transcription, as a ratio in one run.

    python -m benchmarks.metric --models 10 64 512 --examples 200 --slow-examples 3

Confidences are drawn from N(0, 1) for both kinds of model, the case of perfect unlearning. The two must agree
on every example that both score; the exit code is 1 if they do not. Use one thread (OMP_NUM_THREADS=1).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from local_scorer.metric import epsilons, forgetting_quality
from local_scorer.statistics.intervals import redraw
from studies.simulated import model_set
from tests.oracles import slow_metric

REDRAWS = 1000


@dataclass(frozen=True)
class Timing:
    """One row of the table; times in milliseconds an example."""

    n_models: int
    slow_ms: float
    fast_ms: float
    equal: bool
    quality: float


def main() -> int:
    """Time both, print the table, return 0 if they agree."""
    summary, _, details = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.metric",
        description=summary,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models", type=int, nargs="+", default=[10, 64, 512], help="N, models of each kind")
    parser.add_argument("--examples", type=int, default=200, help="S, the examples that ours is timed on")
    parser.add_argument("--slow-examples", type=int, default=3, help="those that the transcription scores")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    print(
        f"python -m benchmarks.metric --models {' '.join(map(str, args.models))} --examples {args.examples} "
        f"--slow-examples {args.slow_examples} --seed {args.seed}"
    )
    print(f"S = {args.examples} examples, transcription {args.slow_examples}; times an example\n")
    print(f"{'N':>5} {'transcription':>14} {'ours':>10} {'ratio':>8} {'equal':>6} {'F':>7}")
    timings = []
    for n_models in args.models:
        row = measure(n_models, args.examples, args.slow_examples, args.seed)
        timings.append(row)
        print(
            f"{row.n_models:>5} {row.slow_ms:>11.1f} ms {row.fast_ms:>7.3f} ms "
            f"{row.slow_ms / row.fast_ms:>7.0f}x {'yes' if row.equal else 'NO':>6} {row.quality:>7.4f}"
        )
    n_models = min(args.models)
    seconds = seconds_of_redraws(n_models, args.examples, args.seed)
    print(
        f"\nIntervals: {REDRAWS} redraws of N={n_models} with {args.examples} examples, {seconds:.1f} CPU seconds"
    )
    return 0 if all(row.equal for row in timings) else 1


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
    return Timing(
        n_models=n_models,
        slow_ms=slow_seconds / slow.size * 1e3,
        fast_ms=fast_seconds / fast.size * 1e3,
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
    sys.exit(main())
