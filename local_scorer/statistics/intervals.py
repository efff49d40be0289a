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
- Where laws are skewed, or structure is smooth over the forget set, the spread is found somewhat too small: half
  widths are taken by 1.1.

With V the variance of F over models, W the mean variance of an example's points, s^2 the variance of the
points over n examples: V(both) = V + (s^2 - W) / n, since s^2 already holds W once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from local_scorer import metric
from local_scorer.metric.score import ModelSet, final_score, statistic

LEVEL = 0.95
WIDENED = 1.1  # factor on half widths; see the module
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
    drawn = _evaluate_anew(unlearned, retrained, rules, seed, entry, resamples)
    quality, ratio = measured.forgetting_quality, measured.retain_ratio * measured.test_ratio
    by_models, own_share = _moved(drawn, quality)
    by_examples = drawn.weights @ drawn.measured - quality
    models, examples = quality + by_models, quality + by_examples
    both = quality + by_models + own_share * by_examples
    return Redraws(
        score=measured.score,
        quality=quality,
        quality_models=models,
        quality_examples=examples,
        quality_both=both,
        score_models=models * drawn.ratios,
        score_examples=examples * ratio,
        score_both=both * drawn.ratios,
        n_models=min(unlearned.n_models, retrained.n_models),
        n_examples=len(drawn.measured),
        seed=seed,
    )


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
    return Intervals(
        models=_interval(redraws, "models", models, level),
        examples=_interval(redraws, "examples", examples, level),
        both=_interval(redraws, "both", min(models, examples), level),
        n_models=redraws.n_models,
        n_examples=redraws.n_examples,
        n_resamples=len(redraws.score_models),
    )


def _interval(redraws: Redraws, source: str, degrees: int, level: float) -> Interval:
    """Return the interval of what `source` redraws, with that many degrees of freedom."""
    highest = redraws.score / redraws.quality if redraws.quality > 0 else 0.0  # F is at most 1
    if source != "models" and redraws.n_examples < 2:  # one picture says nothing of others
        return Interval(score_low=0.0, score_high=highest, quality_low=0.0, quality_high=1.0)
    quantile = student_quantile(degrees, (1 + level) / 2)

    def ends(name: str, centre: float, most: float) -> tuple[float, float]:
        deviation = float(getattr(redraws, f"{name}_{source}").std(ddof=1))
        factor = float(np.exp(WIDENED * quantile * deviation / centre)) if centre > 0 else 1.0
        return centre / factor, min(centre * factor, most)

    score_low, score_high = ends("score", redraws.score, highest)
    quality_low, quality_high = ends("quality", redraws.quality, 1.0)
    return Interval(score_low=score_low, score_high=score_high, quality_low=quality_low, quality_high=quality_high)


@dataclass(frozen=True)
class _Drawn:
    """Points of one evaluation and of those with redrawn models.

    Attributes:
        measured: points of the real models, ``[n_examples]``.
        redrawn: points of redrawn models, ``[n_resamples, n_examples]``.
        unrelated: the same of models shuffled within each example; None where chance relations are negligible.
        weights: share of each example in a redrawn forget set, ``[n_resamples, n_examples]``.
        ratios: RA_U / RA_R x TA_U / TA_R of redrawn models, ``[n_resamples]``.
    """

    measured: np.ndarray
    redrawn: np.ndarray
    unrelated: np.ndarray | None
    weights: np.ndarray
    ratios: np.ndarray


def _evaluate_anew(
    unlearned: ModelSet, retrained: ModelSet, rules: str, seed: int, entry: int, resamples: int
) -> _Drawn:
    """Evaluate the models, and `resamples` redraws of them, block by block."""
    ours, theirs = _finite_or_nan(statistic(unlearned, rules)), _finite_or_nan(statistic(retrained, rules))
    measured = _points(ours, theirs, rules)
    by_chance = min(len(ours), len(theirs)) < ENOUGH_TO_IGNORE_CHANCE
    redrawn, unrelated, weights, ratios = [], [], [], []
    block = max(1, BLOCK_ELEMENTS // ours.size)
    for start in range(0, resamples, block):
        evaluations, shuffled = [], []
        for index in range(start, min(start + block, resamples)):
            shared = np.random.default_rng([seed, index, 0])
            own = np.random.default_rng([seed, index, 1, entry])
            mix_ours, mix_theirs = _mixing(len(ours), own), _mixing(len(theirs), shared)
            weights.append(_resampled_weights(len(measured), shared))
            ratios.append(_ratio(mix_ours, mix_theirs, unlearned, retrained))
            evaluations.append((_mixed(mix_ours, ours), _mixed(mix_theirs, theirs)))
            if by_chance:
                apart = own.permuted(ours, axis=0), shared.permuted(theirs, axis=0)
                shuffled.append((_mixed(mix_ours, apart[0]), _mixed(mix_theirs, apart[1])))
        redrawn.append(_points_of_many(evaluations, rules))
        if by_chance:
            unrelated.append(_points_of_many(shuffled, rules))
    return _Drawn(
        measured=measured,
        redrawn=np.concatenate(redrawn),
        unrelated=np.concatenate(unrelated) if by_chance else None,
        weights=np.array(weights),
        ratios=np.array(ratios),
    )


def _resampled_weights(n_examples: int, generator: np.random.Generator) -> np.ndarray:
    """Return the share of each example in a forget set drawn anew with replacement."""
    return generator.multinomial(n_examples, np.full(n_examples, 1 / n_examples)) / n_examples


def _moved(drawn: _Drawn, quality: float) -> tuple[np.ndarray, float]:
    """Correct the redrawn F for what redrawing itself adds; see the module.

    Returns:
        deviations of F over models from the measured `quality`, ``[n_resamples]``; and by how much the
        deviations over examples are to be shrunk beside them, since they hold the variance of the points too.
    """
    noise, common = _variances(drawn.redrawn, drawn.unrelated)
    raw = drawn.redrawn.mean(axis=1)
    scale = quality / raw.mean() if quality > 0 else 1.0
    noise *= scale
    common *= scale**2
    n_examples = len(drawn.measured)
    variance = noise / n_examples + common
    shrink = np.sqrt(variance / raw.var(ddof=1)) if variance > 0 else 0.0
    between = drawn.measured.var(ddof=1) if n_examples > 1 else 0.0
    own_share = np.sqrt(max(0.0, 1 - noise / between)) if between > 0 else 0.0
    return shrink * (raw - raw.mean()), own_share


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
    """Return a quantile of Student's t."""
    return float(stdtrit(degrees, probability))
