"""What keeps an entry below the ceiling: where its confidences lie, how far they spread, or lost accuracy?

    python -m studies.limits --run runs/builtin64

Each entry's confidences are mended in one respect and scored again: on every forget example its mean is moved to
that of the retrained models ("F moved"), its standard deviation is made theirs ("F widened"), or both. Such
confidences cannot be had without the retrained models: this explains a score, and is none.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from local_scorer import metric
from local_scorer.metric.score import final_score, statistic
from local_scorer.report import board as report
from local_scorer.runs.store import RunFolder, write_atomically


def main() -> int:
    """Print one line for each entry of a run, best score first."""
    parser = argparse.ArgumentParser(prog="python -m studies.limits", description=__doc__.partition("\n")[0])
    parser.add_argument("--run", type=Path, required=True, help="the --out folder of a leaderboard")
    parser.add_argument("--out", type=Path, help="also write the text here")
    args = parser.parse_args()
    folder = RunFolder(args.run)
    record = report.load_record(folder)
    retrained = report.models_of(folder, record.retrained)
    entries = [(entry["name"], entry["keys"]) for entry in record.entries if entry["keys"]]
    theirs = statistic(retrained, "official")
    width = max(len(name) for name, _ in [*entries, (report.CEILING, [])])
    found = []
    for name, keys in [*entries, (report.CEILING, record.ceiling)]:
        models = report.models_of(folder, keys)
        ours = statistic(models, "official")
        score = final_score(models, retrained)
        shift, distance, spread = _shift_and_spread(ours, theirs)
        mended = [
            quality(mend(ours, theirs, **how), theirs)
            for how in ({"mean": True}, {"spread": True}, {"mean": True, "spread": True})
        ]
        line = (
            f"{name:{width}}  {score.score:6.4f}  {score.retain_ratio * score.test_ratio:8.3f}  "
            f"{shift:+5.2f}  {distance:7.2f}  {spread:6.2f}  {score.forgetting_quality:6.4f}  "
            f"{mended[0]:7.4f}  {mended[1]:9.4f}  {mended[2]:6.4f}"
        )
        found.append((score.score, line))
    lines = [
        f"python -m studies.limits --run {args.run}",
        f"N={record.n_models}. Medians over forget examples: shift and its size in the retrained models' standard",
        "deviations, spread as a ratio of standard deviations.",
        "",
        f"{'entry':{width}}   score  accuracy  shift  |shift|  spread       F  F moved  F widened  F both",
        *(line for _, line in sorted(found, reverse=True)),
    ]
    text = "\n".join(lines)
    print(text)
    if args.out:
        write_atomically(args.out, (text + "\n").encode())
    return 0


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


def _shift_and_spread(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float, float]:
    spread = theirs.std(axis=0)
    shift = (ours.mean(axis=0) - theirs.mean(axis=0)) / spread
    medians = (np.median(values) for values in (shift, np.abs(shift), ours.std(axis=0) / spread))
    return tuple(float(median) for median in medians)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ValueError as error:
        sys.exit(f"error: {error}")
