"""Is a forget picture that also stands in the retain set easier to "forget"? F of each entry on either kind.

    python -m studies.copies --run runs/mufac32raw --data data/mufac32raw

A model retrained without the forget set has still seen such a picture, so unlearning it takes no change. The
copies are found on the prepared pictures, equal or near, as `data_prep mufac` finds them on the raw ones.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_prep import dataset, duplicates
from local_scorer import metric
from local_scorer.metric.score import ModelSet, statistic
from local_scorer.report.board import RULES
from local_scorer.runs.record import CEILING, Run
from local_scorer.statistics.shift import something_to_forget
from studies import frame

RESAMPLES = 2000
COLUMNS = (
    "entry", "rules", "with_copy", "with_copy_low", "with_copy_high", "without_copy", "without_copy_low",
    "without_copy_high", "share_higher",
)  # fmt: skip


def main() -> None:
    """Compare F on forget pictures with and without a copy in the retain set, for each entry of a run."""
    parser = frame.parser("studies.copies", __doc__)
    parser.add_argument("--run", type=Path, required=True, help="the --out folder of a leaderboard")
    parser.add_argument("--data", type=Path, required=True, help="the data set that it ran on")
    args = parser.parse_args()
    run, data = Run.open(args.run), dataset.load(args.data)
    if run.record.data.fingerprint != data.fingerprint:
        raise ValueError(f"{args.run} ran on another data set than {args.data}.")
    copied = has_copy(data)
    if copied.all() or not copied.any():
        raise ValueError(f"{copied.sum()} of {len(copied)} forget pictures have a copy: no two kinds.")
    rows = []
    for rules in RULES:
        for name in (*run.readable, CEILING):
            earned = points(run.models(name), run.retrained, rules)
            parts = earned[copied], earned[~copied]
            rows.append((name, rules, *interval(parts[0]), *interval(parts[1]), share_higher(*parts)))
    with_copy, without = (
        something_to_forget(*(_only(models, chosen) for models in (run.original, run.retrained)))
        for chosen in (copied, ~copied)
    )
    notes = [
        f"{copied.sum()} of {len(copied)} forget pictures have a copy in the retain set.",
        "To forget (median over pictures, in standard deviations of the retrained models): "
        f"{with_copy:.2f} with a copy, {without:.2f} without.",
        "Intervals over pictures; the last column is the share of resamples of pictures in which F is higher with "
        "a copy.",
    ]
    frame.publish("studies.copies", args.results, COLUMNS, rows, run.record.n_models, notes)


def has_copy(data: dataset.PreparedDataset) -> np.ndarray:
    """Return whether each forget picture has an equal or near copy in the retain set, bool ``[n_forget]``."""
    rows = np.concatenate([data.rows("forget"), data.rows("retain")])
    pictures = [np.ascontiguousarray(data.images[row].transpose(1, 2, 0)) for row in rows]
    thumbnails = np.stack([duplicates.thumbnail(pixels) for pixels in pictures])
    _, group = duplicates.picture_groups([duplicates.pixel_hash(pixels) for pixels in pictures], thumbnails)
    n_forget = len(data.rows("forget"))
    return np.isin(group[:n_forget], group[n_forget:])


def points(models: ModelSet, retrained: ModelSet, rules: str) -> np.ndarray:
    """Return what each forget picture earns, ``[n_forget]``."""
    return metric.points(
        metric.epsilons(statistic(models, rules), statistic(retrained, rules), rules), models.n_models, rules
    )


def interval(earned: np.ndarray) -> tuple[float, float, float]:
    """Return the mean and the ends of its 95 % interval over redrawn pictures."""
    means = _resampled_means(earned, seed=0)
    return float(earned.mean()), *np.quantile(means, [0.025, 0.975]).tolist()


def share_higher(first: np.ndarray, second: np.ndarray) -> float:
    """Return the share of resamples in which the mean of the first is the higher one; a draw counts one half."""
    difference = _resampled_means(first, seed=0) - _resampled_means(second, seed=1)
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


def _resampled_means(values: np.ndarray, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.choice(values, size=(RESAMPLES, len(values))).mean(axis=1)


def _only(models: ModelSet, chosen: np.ndarray) -> ModelSet:
    """Return the same models on some of the forget pictures."""
    others = ("retain_accuracy", "forget_accuracy", "test_accuracy", "wall_seconds", "cpu_seconds")
    return ModelSet(
        models.logits[:, chosen], models.labels[chosen], **{name: getattr(models, name) for name in others}
    )


if __name__ == "__main__":
    frame.exit_with(main)
