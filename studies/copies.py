"""Is a forget picture that also stands in the retain set easier to "forget"? F of each entry on either kind.

    python -m studies.copies --run runs/mufac32raw --data data/mufac32raw

A model retrained without the forget set has still seen such a picture, so unlearning it takes no change. The
copies are found on the prepared pictures, equal or near, as `data_prep mufac` finds them on the raw ones.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from data_prep import dataset, duplicates
from local_scorer import metric
from local_scorer.metric.score import ModelSet, something_to_forget, statistic
from local_scorer.report import board as report
from local_scorer.runs.store import RunFolder, write_atomically

RESAMPLES = 2000


def main() -> int:
    """Print F on forget pictures with and without a copy in the retain set, for each entry of a run."""
    parser = argparse.ArgumentParser(prog="python -m studies.copies", description=__doc__.partition("\n")[0])
    parser.add_argument("--run", type=Path, required=True, help="the --out folder of a leaderboard")
    parser.add_argument("--data", type=Path, required=True, help="the data set that it ran on")
    parser.add_argument("--out", type=Path, help="also write the text here")
    args = parser.parse_args()
    folder, data = RunFolder(args.run), dataset.load(args.data)
    record = report.load_record(folder)
    if record.data["fingerprint"] != data.fingerprint:
        print(f"error: {args.run} ran on another data set than {args.data}.", file=sys.stderr)
        return 1
    copied = has_copy(data)
    if copied.all() or not copied.any():
        print(
            f"error: {copied.sum()} of {len(copied)} forget pictures have a copy: no two kinds.", file=sys.stderr
        )
        return 1
    original, retrained = (report.models_of(folder, keys) for keys in ([record.original], record.retrained))
    sets = {entry["name"]: entry["keys"] for entry in record.entries if entry["keys"]} | {
        report.CEILING: record.ceiling
    }
    lines = [
        f"python -m studies.copies --run {args.run} --data {args.data}",
        f"{copied.sum()} of {len(copied)} forget pictures have a copy in the retain set. N={record.n_models}.",
        "To forget (median over pictures, in standard deviations of the retrained models): "
        f"{something_to_forget(*(_only(models, copied) for models in (original, retrained))):.2f} with a copy, "
        f"{something_to_forget(*(_only(models, ~copied) for models in (original, retrained))):.2f} without.",
        "F with a 95 % interval over pictures; share: of resamples of pictures in which F is higher with a copy.",
        "",
        f"{'':22}  {'official rules':^45}  {'notebook rules':^45}",
        f"{'entry':22}" + 2 * f"  {'with a copy':>19} {'without':>19} {'share':>5}",
    ]
    for name, keys in sets.items():
        models, line = report.models_of(folder, keys), f"{name:22}"
        for rules in report.RULES:
            earned = points(models, retrained, rules)
            ends = [interval(part) for part in (earned[copied], earned[~copied])]
            line += "".join(f"  {mean:6.4f} {low:5.3f}-{high:5.3f}" for mean, low, high in ends)
            line += f" {share_higher(earned[copied], earned[~copied]):5.0%}"
        lines.append(line)
    text = "\n".join(lines)
    print(text)
    if args.out:
        write_atomically(args.out, (text + "\n").encode())
    return 0


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
    return float(earned.mean()), *np.quantile(means, [0.025, 0.975])


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
    try:
        sys.exit(main())
    except ValueError as error:
        sys.exit(f"error: {error}")
