"""What others measure on the same models, one number each; none of them enters the score.

- Forget accuracy, beside the retrained models' own.
- The starting kit's membership attack: a logistic regression on the losses of forget and test pictures, its
  accuracy over 10 stratified shuffles; the ideal is the retrained models' value, about one half.
- NoMUS of the MUFAC authors: (test accuracy + 1 - 2 |attack accuracy - 1/2|) / 2. They attack forget against
  a set of unseen pictures apart from the test set; here the test set stands for it.
- Shift and spread of the confidences on the forget set: the two ways in which an entry loses points.
- What N models can support: epsilon from upper confidence bounds of the error rates in place of the rates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import repeat

import numpy as np

from local_scorer import metric
from local_scorer.metric.score import ModelSet, statistic
from local_scorer.metric.search import OFFICIAL_DELTA
from local_scorer.statistics.shift import median_of_finite, shift, spread

N_SPLITS = 10
LEAST_PICTURES = 10  # of forget and of test set, for the membership attack
AUDITED_MODELS = 10  # the membership attack is fitted ten times a model; more models only cost time
BOUND_LEVEL = 0.95
NEWTON_STEPS = 25


@dataclass(frozen=True)
class Behaviour:
    """What some models of one kind do, each number a mean over `n_models`.

    Attributes:
        forget_accuracy: share of the forget set predicted right.
        attack_accuracy: of the starting kit's membership attack.
        nomus: the MUFAC authors' measure.
    """

    forget_accuracy: float
    attack_accuracy: float
    nomus: float
    n_models: int


@dataclass(frozen=True)
class Distance:
    """How the confidences of unlearned models lie beside those of retrained ones.

    Attributes:
        median_shift: median over examples of the shift; see :mod:`local_scorer.statistics.shift`.
        mean_absolute_shift: mean over examples of its size; about 0.36 at N=10 for perfect unlearning.
        median_spread: median over examples of the spread.
        supported_epsilon: median over examples of :func:`supported_epsilon` for the strongest attack. That
            attack was picked on the same models, so that the true epsilon of most examples is smaller still.
        largest_supported_epsilon: what an attack without any error would support at this N.
        n_models, n_examples: what these are taken over.
    """

    median_shift: float
    mean_absolute_shift: float
    median_spread: float
    supported_epsilon: float
    largest_supported_epsilon: float
    n_models: int
    n_examples: int


def behaviour(models: ModelSet, most_models: int | None = None) -> Behaviour:
    """Audit models one by one.

    Args:
        models: with logits and labels of the forget and of the test set.
        most_models: audit only so many of them, the first ones.

    Raises:
        ValueError: there is no model, or a forget or test set has fewer than 10 pictures.
    """
    if not models.n_models:
        raise ValueError("An audit needs at least one model; found none.")
    forget, test = models.logits[:most_models], models.test_logits[:most_models]
    losses = _losses(forget, models.labels), _losses(test, models.test_labels)
    attacks = np.array([_attack_accuracy(*of_one) for of_one in zip(*losses, strict=True)])
    test_accuracy = (test.argmax(axis=2) == models.test_labels).mean(axis=1)
    return Behaviour(
        forget_accuracy=float((forget.argmax(axis=2) == models.labels).mean(axis=1).mean()),
        attack_accuracy=float(attacks.mean()),
        nomus=float(np.mean((test_accuracy + 1 - 2 * np.abs(attacks - 0.5)) / 2)),
        n_models=len(forget),
    )


def behaviour_of(models: ModelSet) -> Behaviour | None:
    """Audit up to `AUDITED_MODELS` models; None if the forget or the test set is too small."""
    if min(len(models.labels), len(models.test_labels)) < LEAST_PICTURES:
        return None
    return behaviour(models, AUDITED_MODELS)


def distance_of(models: ModelSet, retrained: ModelSet) -> Distance | None:
    """Compare the confidences of an entry with the retrained models'; None if none is finite."""
    try:
        return distance(statistic(models, "official"), statistic(retrained, "official"))
    except ValueError:  # a broken model: its row says so by its score
        return None


def mean_distance(found: Sequence[Distance | None]) -> Distance | None:
    """Return the mean of each number over originals; None if one of them is missing."""
    known = [apart for apart in found if apart is not None]
    if len(known) < len(found):
        return None
    names = [part.name for part in fields(Distance)]
    means = {name: float(np.mean([getattr(apart, name) for apart in known])) for name in names}
    return Distance(**means | {name: int(means[name]) for name in ("n_models", "n_examples")})


def distance(unlearned: np.ndarray, retrained: np.ndarray) -> Distance:
    """Compare confidences, ``[n_models, n_examples]`` each; examples that are not finite throughout are left out.

    Raises:
        ValueError: fewer than 2 models, different examples, or no finite example.
    """
    if min(len(unlearned), len(retrained)) < 2 or unlearned.shape[1:] != retrained.shape[1:]:
        raise ValueError(
            "Confidences must be [n_models, n_examples] of the same examples, with at least 2 models; found "
            f"{unlearned.shape} and {retrained.shape}."
        )
    finite = np.isfinite(unlearned).all(axis=0) & np.isfinite(retrained).all(axis=0)
    if not finite.any():
        raise ValueError("No forget example has finite confidences under all models: nothing can be compared.")
    ours, theirs = unlearned[:, finite], retrained[:, finite]
    shifts = shift(ours, theirs)
    missed, taken = _errors(ours, theirs)
    errors = zip(missed, repeat(len(ours)), taken, repeat(len(theirs)), strict=False)
    supported = [supported_epsilon(*of_example) for of_example in errors]
    n_models = min(len(ours), len(theirs))
    return Distance(
        median_shift=median_of_finite(shifts),
        mean_absolute_shift=_mean_of_finite(np.abs(shifts)),
        median_spread=median_of_finite(spread(ours, theirs)),
        supported_epsilon=float(np.median(supported)),
        largest_supported_epsilon=supported_epsilon(0, n_models, 0, n_models),
        n_models=n_models,
        n_examples=int(finite.sum()),
    )


def _errors(ours: np.ndarray, theirs: np.ndarray) -> tuple[list[int], list[int]]:
    """Return how many of our and of their models the strongest attack on each example takes for the other kind.

    Where the rules name no attack, the range of the sample with the narrower one is taken.
    """
    found = metric.attack_errors(ours, theirs)
    our_narrow = np.ptp(ours, axis=0) <= np.ptp(theirs, axis=0)
    named = found.unlearned >= 0
    missed = np.where(named, found.unlearned, np.where(our_narrow, 0, _inside(ours, theirs)))
    taken = np.where(named, found.retrained, np.where(our_narrow, _inside(theirs, ours), 0))
    return missed.tolist(), taken.tolist()


def _inside(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return how many values lie within the range of the others, ``[n_examples]``."""
    return ((others.min(axis=0) <= values) & (values <= others.max(axis=0))).sum(axis=0)


def rate_upper(errors: int, n: int, level: float = BOUND_LEVEL) -> float:
    """Return the one-sided upper bound on an error rate of Clopper and Pearson (Biometrika, 1934).

    Args:
        errors: errors seen among `n`.

    Raises:
        ValueError: the counts are impossible.

    >>> round(rate_upper(0, 10), 4)  # 1 - 0.05 ** (1 / 10)
    0.2589
    """
    if not 0 <= errors <= n or n < 1:
        raise ValueError(f"Of n errors among at least 1 try, 0 to n can be wrong; found {errors} of {n}.")
    from scipy.special import betaincinv

    return 1.0 if errors == n else float(betaincinv(errors + 1, n - errors, level))


def supported_epsilon(
    false_positives: int, n_other: int, false_negatives: int, n_positive: int, level: float = BOUND_LEVEL
) -> float:
    """Return the epsilon of an attack at the upper bounds of both error rates, at least 0.

    It bounds the true epsilon from below, with confidence 2 x level - 1, for an attack chosen beforehand.

    >>> [round(supported_epsilon(0, n, 0, n), 2) for n in (10, 64, 512)]
    [1.05, 3.04, 5.14]
    """
    fpr, fnr = rate_upper(false_positives, n_other, level), rate_upper(false_negatives, n_positive, level)
    bounds = [
        np.log(1 - OFFICIAL_DELTA - a) - np.log(b) for a, b in ((fpr, fnr), (fnr, fpr)) if a < 1 - OFFICIAL_DELTA
    ]
    return float(max([0.0, *bounds]))


def _losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the cross-entropy of each picture; where it is not finite, the largest that float32 can tell.

    Args:
        logits: ``[n_models, n, n_classes]``.
        labels: ``[n]``.
    """
    logits = logits.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        logits = logits - logits.max(axis=2, keepdims=True)
        losses = np.log(np.exp(logits).sum(axis=2)) - logits[:, np.arange(len(labels)), labels]
    return np.nan_to_num(losses, nan=104.0, posinf=104.0).clip(0, 104)


def _attack_accuracy(forget: np.ndarray, test: np.ndarray) -> float:
    """Return how often a logistic regression on the loss tells forget from test; both sets of equal size."""
    from sklearn.model_selection import StratifiedShuffleSplit

    size = min(len(forget), len(test))
    if size < LEAST_PICTURES:
        raise ValueError(f"The membership attack needs 10 pictures to forget and 10 to test; found {size}.")
    generator = np.random.default_rng(0)
    losses = np.concatenate([generator.permutation(set_)[:size] for set_ in (forget, test)])
    labels = np.repeat((0.0, 1.0), size)
    splitter = StratifiedShuffleSplit(n_splits=N_SPLITS, random_state=0)
    splits = list(splitter.split(np.zeros((len(labels), 1)), labels))
    train, held_out = (np.array([split[side] for split in splits]) for side in (0, 1))
    slope, intercept = _logistic_regressions(losses[train], labels[train])
    predicted = slope[:, None] * losses[held_out] + intercept[:, None] > 0
    return float(np.mean(predicted == labels[held_out]))


def _logistic_regressions(values: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit one variable, many times at once: the optimum of scikit-learn's LogisticRegression().

    Newton's method on the sum of log losses plus slope^2 / 2.

    Args:
        values, labels: ``[n_fits, n]``; labels 0 or 1.

    Returns:
        slope and intercept, ``[n_fits]`` each.
    """
    slope, intercept = np.zeros(len(values)), np.zeros(len(values))
    for _ in range(NEWTON_STEPS):
        chance = 1 / (1 + np.exp(-(slope[:, None] * values + intercept[:, None]).clip(-500, 500)))
        weight = chance * (1 - chance) + 1e-12
        error = chance - labels
        gradient = (error * values).sum(axis=1) + slope, error.sum(axis=1)
        a, b, c = (weight * values**2).sum(axis=1) + 1, (weight * values).sum(axis=1), weight.sum(axis=1)
        determinant = a * c - b**2
        step = np.stack((c * gradient[0] - b * gradient[1], a * gradient[1] - b * gradient[0])) / determinant
        step /= np.maximum(1, np.abs(step).max(axis=0))  # at most 1 at a time, so that it cannot run away
        slope, intercept = slope - step[0], intercept - step[1]
    return slope, intercept


def _mean_of_finite(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else float("nan")
