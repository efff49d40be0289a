"""What keeps an entry below the ceiling: where its confidences lie, how far they spread, or lost accuracy?

    python -m studies.limits --run runs/builtin64

Each entry's confidences are mended in one respect and scored again: on every forget example its mean is moved to
that of the retrained models ("F moved"), its standard deviation is made theirs ("F widened"), or both. Such
confidences cannot be had without the retrained models: this explains a score, and is none. Of several originals
the means are given.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from local_scorer import metric
from local_scorer.metric.score import ModelSet, final_score, statistic
from local_scorer.runs.record import CEILING, Run
from studies import frame

COLUMNS = (
    "entry", "score", "accuracy", "shift", "distance", "spread", "forgetting_quality", "quality_moved",
    "quality_widened", "quality_both",
)  # fmt: skip
NOTE = (
    "Medians over forget examples; shift and its size in standard deviations of the retrained models, spread as a "
    "ratio of standard deviations."
)


def main() -> None:
    """Measure every entry of a run, best score first."""
    parser = frame.parser("studies.limits", __doc__)
    parser.add_argument("--run", type=Path, required=True, help="the --out folder of a leaderboard")
    args = parser.parse_args()
    run = Run.open(args.run)
    rows = []
    for name in (*run.readable, CEILING):
        measured = np.mean([limits(models, run.retrained) for models in run.sets(name)], axis=0)
        rows.append((name, *map(float, measured)))
    rows.sort(key=lambda row: -row[1])
    frame.publish("studies.limits", args.results, COLUMNS, rows, run.record.n_models, [NOTE])


def limits(models: ModelSet, retrained: ModelSet) -> tuple[float, ...]:
    """Return all columns but the first for the models from one original."""
    ours, theirs = (statistic(each, "official") for each in (models, retrained))
    score = final_score(models, retrained)
    mended = [
        quality(mend(ours, theirs, **how), theirs)
        for how in ({"mean": True}, {"spread": True}, {"mean": True, "spread": True})
    ]
    accuracy = score.retain_ratio * score.test_ratio
    moved = shift_and_spread(ours, theirs)
    return (score.score, accuracy, *moved, score.forgetting_quality, *mended)


def mend(ours: np.ndarray, theirs: np.ndarray, mean: bool = False, spread: bool = False) -> np.ndarray:
    """Return our confidences ``[n_models, n_examples]`` with their mean, their standard deviation, or both.

    >>> mend(np.array([[0.0], [2.0]]), np.array([[5.0], [9.0]]), mean=True, spread=True).ravel()
    array([5., 9.])
    """
    centre = ours.mean(axis=0)
    factor = theirs.std(axis=0) / np.maximum(ours.std(axis=0), 1e-12) if spread else 1.0
    return (theirs.mean(axis=0) if mean else centre) + factor * (ours - centre)


def quality(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return F under the official rules."""
    return metric.forgetting_quality(metric.epsilons(ours, theirs), len(ours))


def shift_and_spread(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float, float]:
    """Return the medians of the shift, of its size and of the ratio of standard deviations over examples.

    Deviations are divided by N as in `mend`, so that widened confidences have a spread of 1 for any numbers of
    models; `local_scorer.statistics.shift` divides by N - 1.
    """
    spread = theirs.std(axis=0)
    shift = (ours.mean(axis=0) - theirs.mean(axis=0)) / spread
    medians = (np.median(values) for values in (shift, np.abs(shift), ours.std(axis=0) / spread))
    return tuple(float(median) for median in medians)


if __name__ == "__main__":
    frame.exit_with(main)
