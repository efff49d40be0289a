"""From N models, what would the score be at 512?

Each forget example gets a law of its confidence under either kind of model; models are drawn from these laws,
and the official rules score them. What is plugged in decides:

- The difference of two sample means is never 0: at N=10 a perfect method looks shifted by 0.45 standard
  deviations. Shifts and log ratios of spreads are therefore shrunk across examples (empirical Bayes): only
  what two halves of the models agree on counts as real. They are drawn from what is then believed of each
  example, not set to its mean: points are far from linear in them.
- The shape is that of the standardised confidences of both kinds of model together (apart, they differ by luck,
  and attacks would find it), or, with fewer than `ENOUGH_FOR_SHAPE` models, the normal distribution.

The interval is for one evaluation at that number of models: the jackknife over groups of models says how sure
the laws are, the draws how far a single evaluation strays.

Below `LEAST_MODELS` models no forecast is made: see docs/results/n512.md for how far it would be off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from local_scorer import metric
from local_scorer.metric.score import ModelSet, final_score, statistic
from local_scorer.statistics.intervals import student_quantile

LEAST_MODELS = 32
ENOUGH_FOR_SHAPE = 64
COMPETITION_MODELS = 512
JACKKNIFE_GROUPS = 8
MOST_EXAMPLES = 200  # forget examples that are drawn; more would only cost time
SPLITS = 20  # of the models into two halves
LEAST_SPREAD = 1e-3  # confidence units; a kind of model that does not vary at all still has a law


@dataclass(frozen=True)
class Forecast:
    """The score that one evaluation with `n_models` models would give.

    Attributes:
        score, score_low, score_high: forecast and its 95 % interval.
        quality, quality_low, quality_high: the same for F.
        n_models: what is forecast.
        from_models: what it is forecast from.
    """

    score: float
    score_low: float
    score_high: float
    quality: float
    quality_low: float
    quality_high: float
    n_models: int
    from_models: int


@dataclass(frozen=True)
class Laws:
    """Laws of the confidences of some forget examples under the official rules.

    Attributes:
        centre, spread: mean and standard deviation under the retrained models, ``[n_examples]``.
        shift, shift_error: mean difference in retrained standard deviations as believed, and how unsure.
        log_spread, log_spread_error: the same for the log ratio of standard deviations.
        shape: standardised confidences to draw from; empty for the normal law.
        lost: share of forget examples with a confidence that is not finite, or without any spread in one kind
            of model: they earn nothing.
    """

    centre: np.ndarray
    spread: np.ndarray
    shift: np.ndarray
    shift_error: np.ndarray
    log_spread: np.ndarray
    log_spread_error: np.ndarray
    shape: np.ndarray
    lost: float

    def points(self, n_models: int, generator: np.random.Generator) -> np.ndarray:
        """Return the points of each example in one evaluation, the official rules: ``[n_examples]``."""
        shape = (n_models, len(self.centre))
        shift = self.shift + self.shift_error * generator.normal(size=shape[1])
        ratio = np.exp(self.log_spread + self.log_spread_error * generator.normal(size=shape[1]))
        unlearned = shift + ratio * _drawn(self.shape, shape, generator)
        retrained = _drawn(self.shape, shape, generator)
        eps = metric.epsilons(self.centre + self.spread * unlearned, self.centre + self.spread * retrained)
        return metric.points(eps, n_models)


def fit(unlearned: np.ndarray, retrained: np.ndarray) -> Laws:
    """Fit laws to confidences, ``[n_models, n_examples]`` each.

    Raises:
        ValueError: fewer than 4 models, or different examples.
    """
    if min(len(unlearned), len(retrained)) < 4 or unlearned.shape[1:] != retrained.shape[1:]:
        raise ValueError(
            "Laws are fitted to confidences [n_models, n_examples] of the same examples, at least 4 models; found "
            f"{unlearned.shape} and {retrained.shape}."
        )
    usable = np.isfinite(unlearned).all(axis=0) & np.isfinite(retrained).all(axis=0)
    usable &= (np.ptp(unlearned, axis=0) > 0) & (np.ptp(retrained, axis=0) > 0)
    lost = 1 - usable.mean()
    chosen = np.flatnonzero(usable)
    if len(chosen) > MOST_EXAMPLES:
        chosen = chosen[np.linspace(0, len(chosen) - 1, MOST_EXAMPLES).astype(int)]
    ours, theirs = unlearned[:, chosen], retrained[:, chosen]
    sd_ours, sd_theirs = _deviation(ours), _deviation(theirs)
    z_ours, z_theirs = (ours - ours.mean(axis=0)) / sd_ours, (theirs - theirs.mean(axis=0)) / sd_theirs

    shift, log_ratio = _contrast(ours, theirs)
    halves = [_halves(ours, theirs, np.random.default_rng([index])) for index in range(SPLITS)]
    shift, shift_error = _shrunk(shift, [(one[0], other[0]) for one, other in halves])
    log_spread, log_spread_error = _shrunk(log_ratio, [(one[1], other[1]) for one, other in halves])
    with_shape = min(len(ours), len(theirs)) >= ENOUGH_FOR_SHAPE
    shape = np.concatenate((z_ours, z_theirs), axis=None) if with_shape else np.empty(0)
    return Laws(
        centre=theirs.mean(axis=0),
        spread=sd_theirs,
        shift=shift,
        shift_error=shift_error,
        log_spread=log_spread,
        log_spread_error=log_spread_error,
        shape=shape,
        lost=float(lost),
    )


def expected_quality(
    laws: Laws, n_models: int, generator: np.random.Generator, repetitions: int = 1
) -> tuple[float, float]:
    """Return F that the laws give at `n_models`, and the variance of one evaluation's F around it."""
    if not len(laws.centre):
        return 0.0, 0.0
    points = np.array([laws.points(n_models, generator) for _ in range(repetitions)])
    kept = 1 - laws.lost
    noise = points.var(axis=1, ddof=1).mean() if points.shape[1] > 1 else points.var()
    return float(kept * points.mean()), float(kept**2 * noise / points.shape[1])


def forecast(
    unlearned: ModelSet,
    retrained: ModelSet,
    n_models: int = COMPETITION_MODELS,
    seed: int = 0,
    least_models: int = LEAST_MODELS,
) -> Forecast | None:
    """Forecast the official score at `n_models`; None with fewer than `least_models` models.

    There is none from `n_models` on either, since that is measured, nor of an entry with broken models: how many
    of others would break is not known.

    Raises:
        ValueError: as for :func:`local_scorer.metric.score.final_score`.
    """
    measured = final_score(unlearned, retrained)
    smaller = min(unlearned.n_models, retrained.n_models)
    if not least_models <= smaller < n_models or not np.isfinite(unlearned.logits).all():
        return None
    ours, theirs = statistic(unlearned, "official"), statistic(retrained, "official")
    quality, noise = expected_quality(fit(ours, theirs), n_models, np.random.default_rng([seed, n_models]), 2)
    ratio = measured.retain_ratio * measured.test_ratio
    n_groups = min(JACKKNIFE_GROUPS, smaller // 2)
    spread = np.sqrt(_jackknife(unlearned, retrained, n_groups, n_models, seed) + noise * np.array([1, ratio**2]))
    half_quality, half_score = student_quantile(n_groups - 1, 0.975) * spread
    score = quality * ratio
    return Forecast(
        score=score,
        score_low=max(0.0, score - half_score),
        score_high=score + half_score,
        quality=quality,
        quality_low=max(0.0, quality - half_quality),
        quality_high=quality + half_quality,
        n_models=n_models,
        from_models=smaller,
    )


def _jackknife(unlearned: ModelSet, retrained: ModelSet, n_groups: int, n_models: int, seed: int) -> np.ndarray:
    """Return the variances of F and score at `n_models`, each group left out once: ``[2]``."""
    ours, theirs = statistic(unlearned, "official"), statistic(retrained, "official")
    without = np.empty((n_groups, 2))
    for group in range(n_groups):
        keep_ours = np.arange(len(ours)) % n_groups != group
        keep_theirs = np.arange(len(theirs)) % n_groups != group
        laws = fit(ours[keep_ours], theirs[keep_theirs])
        value, _ = expected_quality(laws, n_models, np.random.default_rng([seed, n_models]))
        without[group] = value, value * _ratio_without(unlearned, retrained, keep_ours, keep_theirs)
    return (n_groups - 1) * without.var(axis=0)


def _deviation(values: np.ndarray) -> np.ndarray:
    return np.maximum(values.std(axis=0, ddof=1), LEAST_SPREAD)


def _contrast(ours: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean difference in retrained standard deviations, and log ratio of standard deviations.

    `shift.shift` and `shift.spread` describe the models at hand. A law that is drawn from needs finite values
    for models that agree, hence the least spread, and a shift that is right on average, hence the factor.
    """
    sd_ours, sd_theirs = _deviation(ours), _deviation(theirs)
    # The mean of 1 / sd lies above 1 over the true sd: by 1 / (1 - 3 / (4n - 5)) for a normal law.
    bias = 1 - 3 / (4 * len(theirs) - 5)
    return bias * (ours.mean(axis=0) - theirs.mean(axis=0)) / sd_theirs, np.log(sd_ours / sd_theirs)


def _halves(
    ours: np.ndarray, theirs: np.ndarray, generator: np.random.Generator
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return the contrasts of two random halves that share no model."""
    ours, theirs = generator.permutation(ours), generator.permutation(theirs)
    middle = len(ours) // 2, len(theirs) // 2
    return _contrast(ours[: middle[0]], theirs[: middle[1]]), _contrast(ours[middle[0] :], theirs[middle[1] :])


def _shrunk(values: np.ndarray, halves: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of what is believed of each value, `[n_examples]` each.

    What two halves of the models agree on is real; the rest is luck, also where examples share it.
    """
    if len(values) < 2:
        return values, np.zeros_like(values)
    mean = values.mean()
    agreed_mean = np.mean([one.mean() * other.mean() for one, other in halves])
    agreed = np.mean([np.mean((one - one.mean()) * (other - other.mean())) for one, other in halves])
    centre = mean * np.sqrt(np.clip(agreed_mean / mean**2, 0, 1)) if mean else 0.0
    variance = values.var()
    trust = float(np.clip(agreed / variance, 0, 1)) if variance > 0 else 0.0
    return centre + trust * (values - mean), np.full(len(values), np.sqrt(trust * (1 - trust) * variance))


def _drawn(shape_of: np.ndarray, shape: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
    return generator.choice(shape_of, size=shape) if len(shape_of) else generator.normal(size=shape)


def _ratio_without(
    unlearned: ModelSet, retrained: ModelSet, keep_ours: np.ndarray, keep_theirs: np.ndarray
) -> float:
    product = 1.0
    for name in ("retain_accuracy", "test_accuracy"):
        product *= getattr(unlearned, name)[keep_ours].mean() / getattr(retrained, name)[keep_theirs].mean()
    return float(product)
