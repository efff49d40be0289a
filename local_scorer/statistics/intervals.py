"""Intervals on F and on the score: by how much would they move if the evaluation were repeated?

Two things are drawn by chance, and each gives an interval of its own:

- ``models``: the unlearned and the retrained models. Interval of the mean score over repetitions of the whole
  evaluation at this N on this forget set.
- ``examples``: the forget examples. Interval of the mean score of these very models over forget sets of this
  size. Examples count as independent; where several pictures show one person, it is too narrow.
- ``both``: models and forget set drawn anew.

A bootstrap of F itself would be wrong: models drawn twice make ties, and a maximum over thresholds reacts to
them. So the models are redrawn smoothly, only the variance of the redrawn F is used, and the intervals lie
around the F that was measured:

    new models = mean + (redrawn models - mean + h x noise) / sqrt(1 + h^2),  h = (4 / 3N)^(1/5)

The noise has the models' own covariance over examples and accuracies, so that a model that is odd on one
example is odd on the others. Corrections are needed, checked together by ``studies/coverage.py``:

- Redrawn sets differ more than the real ones do, so that their mean F, m, lies below F. What examples do each
  by itself adds up like counts, with a variance in proportion to F: x F / m. What models do to all examples
  alike raises or lowers F by a factor: x (F / m)^2.
- With few models, examples seem to be related by chance, which widens the spread of F. The same redrawing on
  models shuffled within each example measures that part; it is taken off. From 64 models on it is negligible.
- A high F comes with a high variance, so the interval is one of ln F: F x exp(-+ t sd / F), with t the quantile
  of Student's distribution with N - 1 degrees of freedom.

With V the variance of F over models, W the mean variance of an example's points, s^2 the variance of the
points over n examples: V(both) = V + (s^2 - W) / n, since s^2 already holds W once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from local_scorer import metric
from local_scorer.metric.score import ModelSet, final_score, statistic

LEVEL = 0.95
BLOCK_ELEMENTS = 2**20  # confidences redrawn at a time
ENOUGH_TO_IGNORE_CHANCE = 64  # models, from which on chance relations between examples are negligible


@dataclass(frozen=True)
class Interval:
    """A central interval of the score and of F."""

    score_low: float
    score_high: float
    quality_low: float
    quality_high: float


@dataclass(frozen=True)
class Intervals:
    """Intervals at the level `LEVEL`; see the module for what each is of."""

    models: Interval
    examples: Interval
    both: Interval
    n_models: int
    n_examples: int
    n_resamples: int


@dataclass(frozen=True)
class Redraws:
    """Scores under redrawn models and examples, moved so that they lie around the measured ones.

    Attributes:
        score, quality: as measured.
        quality_models, quality_examples, quality_both: F ``[n_resamples]``, by what was redrawn; not clipped
            at 0, since they are read by their spread.
        score_models, score_examples, score_both: the same for the score.
        n_models: the smaller of the numbers of unlearned and of retrained models.
        n_examples: forget examples.
        seed: what the redraws were made from; equal seeds redraw the same retrained models and examples.
    """

    score: float
    quality: float
    quality_models: np.ndarray
    quality_examples: np.ndarray
    quality_both: np.ndarray
    score_models: np.ndarray
    score_examples: np.ndarray
    score_both: np.ndarray
    n_models: int
    n_examples: int
    seed: int


def score_intervals(
    unlearned: ModelSet, retrained: ModelSet, rules: str = "official", seed: int = 0, resamples: int | None = None
) -> Intervals:
    """Return the intervals of one entry; arguments and errors as for :func:`redraw`."""
    return intervals_of(redraw(unlearned, retrained, rules, seed, resamples=resamples))


def default_resamples(n_models: int, rules: str = "official") -> int:
    """Return how many redraws are worth their time: their number sets the error of the interval's width.

    >>> default_resamples(10), default_resamples(64), default_resamples(512)
    (200, 100, 40)
    """
    if rules == "notebook":
        return 20  # a logistic regression for each example and redraw
    if n_models < 64:
        return 200
    return 100 if n_models < 512 else 40


def redraw(
    unlearned: ModelSet,
    retrained: ModelSet,
    rules: str = "official",
    seed: int = 0,
    entry: int = 0,
    resamples: int | None = None,
) -> Redraws:
    """Redraw models and forget examples.

    Args:
        seed: of the redraws of retrained models and examples.
        entry: number of the entry, so that the unlearned models of two entries are redrawn independently.
        resamples: number of redraws, at least 2; :func:`default_resamples` by default.

    Raises:
        ValueError: as for :func:`local_scorer.metric.score.final_score`, or fewer than 2 resamples.
    """
    resamples = default_resamples(unlearned.n_models, rules) if resamples is None else resamples
    if resamples < 2:
        raise ValueError(f"A spread needs at least 2 resamples, found {resamples}.")
    measured = final_score(unlearned, retrained, rules)
    n_models = min(unlearned.n_models, retrained.n_models)
    ours, theirs = _finite_or_nan(statistic(unlearned, rules)), _finite_or_nan(statistic(retrained, rules))
    earned = _points(ours, theirs, rules)
    with_chance = np.empty((resamples, len(earned)))
    by_chance = np.empty_like(with_chance) if n_models < ENOUGH_TO_IGNORE_CHANCE else None
    ratios = np.empty(resamples)
    weights = np.empty_like(with_chance)
    block = max(1, BLOCK_ELEMENTS // ours.size)
    for start in range(0, resamples, block):
        indices = range(start, min(start + block, resamples))
        related, unrelated = [], []
        for index in indices:
            shared = np.random.default_rng([seed, index, 0])
            own = np.random.default_rng([seed, index, 1, entry])
            mix_ours, mix_theirs = _mixing(len(ours), own), _mixing(len(theirs), shared)
            weights[index] = shared.multinomial(len(earned), np.full(len(earned), 1 / len(earned))) / len(earned)
            ratios[index] = _ratio(mix_ours, mix_theirs, unlearned, retrained)
            related.append((_mixed(mix_ours, ours), _mixed(mix_theirs, theirs)))
            if by_chance is not None:
                shuffled = own.permuted(ours, axis=0), shared.permuted(theirs, axis=0)
                unrelated.append((_mixed(mix_ours, shuffled[0]), _mixed(mix_theirs, shuffled[1])))
        with_chance[indices.start : indices.stop] = _points_of_many(related, rules)
        if by_chance is not None:
            by_chance[indices.start : indices.stop] = _points_of_many(unrelated, rules)

    noise, common = _variances(with_chance, by_chance)
    raw = with_chance.mean(axis=1)
    scale = measured.forgetting_quality / raw.mean() if measured.forgetting_quality > 0 else 1.0
    noise *= scale
    common *= scale**2
    variance = noise / len(earned) + common
    shrink = np.sqrt(variance / raw.var(ddof=1)) if variance > 0 else 0.0
    moved = shrink * (raw - raw.mean())
    between = earned.var(ddof=1) if len(earned) > 1 else 0.0
    own_share = np.sqrt(max(0.0, 1 - noise / between)) if between > 0 else 0.0
    by_examples = weights @ earned - measured.forgetting_quality
    quality = measured.forgetting_quality
    models, examples, both = quality + moved, quality + by_examples, quality + moved + own_share * by_examples
    ratio = measured.retain_ratio * measured.test_ratio
    return Redraws(
        measured.score, quality, models, examples, both,
        models * ratios, examples * ratio, both * ratios,
        n_models, len(earned), seed,
    )  # fmt: skip


def redraw_all(entries: Mapping[str, ModelSet], retrained: ModelSet) -> dict[str, Redraws]:
    """Redraw every entry with the same redraws of retrained models and forget examples."""
    return {name: redraw(models, retrained, entry=n) for n, (name, models) in enumerate(entries.items())}


def intervals_of(redraws: Redraws, level: float = LEVEL) -> Intervals:
    """Turn redraws into intervals of the logarithm; of a score of 0, nothing but 0 can be said.

    Raises:
        ValueError: the level is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"The level of an interval lies between 0 and 1, found {level}.")
    models, examples = redraws.n_models - 1, max(redraws.n_examples - 1, 1)
    freedom = {"models": models, "examples": examples, "both": min(models, examples)}
    highest = redraws.score / redraws.quality if redraws.quality > 0 else 0.0  # F is at most 1
    found = {}
    for source, degrees in freedom.items():
        quantile = student_quantile(degrees, (1 + level) / 2)
        ends = []
        for name, centre, most in (("score", redraws.score, highest), ("quality", redraws.quality, 1.0)):
            if source != "models" and redraws.n_examples < 2:  # one picture says nothing of others
                ends += [0.0, most]
                continue
            deviation = float(getattr(redraws, f"{name}_{source}").std(ddof=1))
            factor = float(np.exp(quantile * deviation / centre)) if centre > 0 else 1.0
            ends += [centre / factor, min(centre * factor, most)]
        found[source] = Interval(*ends)
    return Intervals(
        **found,
        n_models=redraws.n_models,
        n_examples=redraws.n_examples,
        n_resamples=len(redraws.score_models),
    )


def _variances(with_chance: np.ndarray, by_chance: np.ndarray | None) -> tuple[float, float]:
    """Split the variance of F, from points ``[resamples, n]``.

    Returns:
        the mean variance of an example's points, of which 1 / n enters F; and what examples have in common.
    """
    noise, common = _split_variance(with_chance)
    if by_chance is not None:
        common -= max(0.0, _split_variance(by_chance)[1])
    return noise, max(0.0, common)


def _split_variance(earned: np.ndarray) -> tuple[float, float]:
    noise = float(earned.var(axis=0, ddof=1).mean())
    return noise, float(earned.mean(axis=1).var(ddof=1)) - noise / earned.shape[1]


def _mixing(n_models: int, generator: np.random.Generator) -> np.ndarray:
    """Return the matrix that makes new models, as deviations from the mean, of old ones: ``[n, n]``."""
    bandwidth = (4 / (3 * n_models)) ** 0.2
    noise = generator.normal(size=(n_models, n_models)) / np.sqrt(n_models - 1)
    chosen = np.zeros_like(noise)
    chosen[np.arange(n_models), generator.integers(n_models, size=n_models)] = 1
    return (chosen + bandwidth * noise) / np.sqrt(1 + bandwidth**2)


def _mixed(mixing: np.ndarray, values: np.ndarray) -> np.ndarray:
    mean = values.mean(axis=0)
    return mean + mixing @ (values - mean)


def _ratio(mix_ours: np.ndarray, mix_theirs: np.ndarray, unlearned: ModelSet, retrained: ModelSet) -> float:
    """Return RA_U / RA_R x TA_U / TA_R of redrawn models; linear in the retrained models' accuracies."""
    product = 1.0
    for name in ("retain_accuracy", "test_accuracy"):
        ours, theirs = getattr(unlearned, name), getattr(retrained, name)
        expected = theirs.mean()
        change = _mixed(mix_theirs, theirs).mean() / expected - 1
        product *= _mixed(mix_ours, ours).mean() / expected - ours.mean() / expected * change
    return float(product)


def _points(ours: np.ndarray, theirs: np.ndarray, rules: str) -> np.ndarray:
    return metric.points(metric.epsilons(ours, theirs, rules=rules), len(ours), rules=rules)


def _points_of_many(evaluations: list[tuple[np.ndarray, np.ndarray]], rules: str) -> np.ndarray:
    """Return the points of several evaluations, ``[n_evaluations, n_examples]``, in one call: that is faster."""
    ours, theirs = (np.concatenate(values, axis=1) for values in zip(*evaluations, strict=True))
    return _points(ours, theirs, rules).reshape(len(evaluations), -1)


def _finite_or_nan(values: np.ndarray) -> np.ndarray:
    """Make infinities NaN: both show a broken model, but arithmetic with infinities warns."""
    return np.where(np.isfinite(values), values, np.nan)


def student_quantile(degrees: int, probability: float) -> float:
    """Return a quantile of Student's t; scipy comes with scikit-learn."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, probability))
