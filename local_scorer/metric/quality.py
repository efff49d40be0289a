"""Forgetting quality from confidences: how well an attacker tells unlearned from retrained models.

For each forget example there are two samples of numbers: its confidence under the unlearned models and
under the retrained ones. Attacks predict from one number which kind of model gave it. The false positive and
false negative rates of an attack bound the epsilon of (epsilon, delta)-unlearning from below:

    epsilon = max(ln(1 - delta - fpr) - ln(fnr), ln(1 - delta - fnr) - ln(fpr))

An example's epsilon is that of its strongest attack; it earns 1, 1/2, 1/4, ... points by steps of 0.5 in
epsilon; forgetting quality F is the mean over the examples.

Two sets of rules:

- ``official``: what the scorer released by the organisers of the NeurIPS 2023 Machine Unlearning competition
  computes (google-deepmind/unlearning_evaluation, metric.py), its grid of thresholds, its float32 rates and
  its rounding included.
- ``notebook``: what Maria Gorinova's public notebook "Machine Unlearning: Evaluation on CIFAR-10" computes.

Their scores are not comparable. Neither needs torch.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from local_scorer.metric.attacks import (
    Attack,
    Errors,
    notebook_epsilons,
    official_errors,
    strongest_official_attack,
)

Rules = Literal["official", "notebook"]

BIN_WIDTH = 0.5
NOTEBOOK_BINS = 13


def logit_scaled_confidence(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return ln(p + 1e-45) - ln(q + 1e-45), p the probability of the label, q the sum of the others.

    exp is taken in the logits' precision, as the released scorer does, so that float32 saturates at ±103.616.
    float16 logits are widened to float32 first: in float16 the confidence would saturate at a gap of 20.

    Args:
        logits: ``[n, n_classes]`` or ``[n_models, n, n_classes]``; not modified.
        targets: int ``[n]``, the true classes.

    Returns:
        float64 ``[n]`` or ``[n_models, n]``; NaN where a logit is NaN or +inf.

    Raises:
        ValueError: if the shapes do not fit or a target is no class index.

    >>> logit_scaled_confidence(np.log([[3.0, 1.0], [1.0, 4.0]]), np.array([0, 0])).round(6) + 0.0
    array([ 1.098612, -1.386294])
    """
    logits = _checked_logits(logits)
    targets = np.asarray(targets)
    n, n_classes = logits.shape[-2:]
    if targets.shape != (n,) or not np.issubdtype(targets.dtype, np.integer):
        raise ValueError(
            f"targets must be {n} integers, one for each example of the logits; "
            f"found shape {targets.shape} and type {targets.dtype}."
        )
    if n and not 0 <= targets.min() <= targets.max() < n_classes:
        raise ValueError(
            f"targets must lie in 0..{n_classes - 1}, the classes of the logits; "
            f"found {targets.min()}..{targets.max()}."
        )
    probabilities = _exp_below_max(logits).astype(np.float64)
    probabilities /= probabilities.sum(axis=-1, keepdims=True)
    rows = np.arange(n)
    p = probabilities[..., rows, targets]
    probabilities[..., rows, targets] = 0.0
    q = probabilities.sum(axis=-1)
    return np.log(p + 1e-45) - np.log(q + 1e-45)


def own_prediction_loss(logits: np.ndarray) -> np.ndarray:
    """Return -ln of the largest probability, the notebook's statistic: cross-entropy against the own argmax.

    Rows that are NaN throughout count as equal logits, as in the notebook. Precision as in
    :func:`logit_scaled_confidence`.

    Args:
        logits: ``[n, n_classes]`` or ``[n_models, n, n_classes]``; not modified.

    Returns:
        float64 ``[n]`` or ``[n_models, n]``; NaN where only part of a row is NaN.

    Raises:
        ValueError: if the shape does not fit.

    >>> own_prediction_loss(np.log([[3.0, 1.0], [1.0, 4.0]])).round(6)
    array([0.287682, 0.223144])
    """
    logits = _checked_logits(logits)
    all_nan = np.isnan(logits).all(axis=-1, keepdims=True)
    return np.log(_exp_below_max(np.where(all_nan, 0, logits)).sum(axis=-1)).astype(np.float64)


def epsilons(unlearned: np.ndarray, retrained: np.ndarray, rules: Rules = "official") -> np.ndarray:
    """Return the epsilon of each forget example; larger is easier to tell apart, 0 is not at all.

    Answers where the published code stops with an error:

    - official: an example with a NaN or infinite confidence has epsilon 50: it shows a broken model. Where no
      threshold of the grid counts (all values within 0.01, or both samples constant), epsilon is 50 if the
      ranges do not overlap and 0 if they do.
    - notebook: an example with a NaN or infinite loss has epsilon inf. Below 11 pooled values (N <= 5), or
      where a test set of 10 % lacks a class, there is no logistic regression: the thresholds alone decide.

    Args:
        unlearned: ``[n_models, n_examples]`` under the unlearned models, :func:`logit_scaled_confidence` for
            the official rules, :func:`own_prediction_loss` for the notebook's.
        retrained: the same under the retrained models; the number of models may differ.
        rules: ``official`` or ``notebook``.

    Returns:
        float64 ``[n_examples]``, in [0, 50] under the official rules and in [0, inf] under the notebook's.

    Raises:
        ValueError: if the shapes do not fit, there are fewer than 2 models, or the rules are unknown.

    >>> unlearned = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])
    >>> retrained = np.array([[1.5, 5.5], [2.5, 6.5], [3.5, 7.5]])
    >>> epsilons(unlearned, retrained).round(5)
    array([ 0.69313, 50.     ])
    """
    _check_rules(rules)
    unlearned, retrained = _checked_samples(unlearned, retrained)
    if rules == "notebook":
        return notebook_epsilons(unlearned, retrained)
    return official_errors(unlearned, retrained).epsilon


def points(eps: np.ndarray, n_models: int = 512, rules: Rules = "official") -> np.ndarray:
    """Return the points of each example: 1, 1/2, 1/4, ... for epsilon below 0.5, 1.0, 1.5, ...

    Official: the steps end at ceil(ln(n_models - 1)), and beyond them an example earns 0; with 2 models there
    is no step at all, and every example earns 0. Notebook: 13 bins whatever the number of models; the last is
    open, so that even epsilon = inf earns 2**-12.

    Args:
        eps: ``[n_examples]``, from :func:`epsilons`.
        n_models: number of unlearned models that the epsilons were estimated from.
        rules: ``official`` or ``notebook``.

    Returns:
        float64 ``[n_examples]``.

    Raises:
        ValueError: if an epsilon is negative or NaN, there are fewer than 2 models, or the rules are unknown.

    >>> points(np.array([0.0, 0.5, 1.2, 6.2, 50.0])).tolist()
    [1.0, 0.5, 0.25, 0.000244140625, 0.0]
    >>> points(np.array([0.0, 0.5, 1.2, 6.2, np.inf]), rules="notebook").tolist()
    [1.0, 0.5, 0.25, 0.000244140625, 0.000244140625]
    """
    _check_rules(rules)
    eps = np.asarray(eps, dtype=np.float64)
    if eps.ndim != 1 or not (eps >= 0).all():
        raise ValueError(
            f"eps must be a list of non-negative numbers, one for each example, as epsilons() returns it; "
            f"found shape {eps.shape} with {np.count_nonzero(~(eps >= 0))} negative or NaN."
        )
    if n_models < 2:
        raise ValueError(f"Epsilon needs at least 2 models of each kind; found n_models={n_models}.")
    step = np.floor(eps / BIN_WIDTH)
    if rules == "notebook":
        return 0.5 ** np.minimum(step, NOTEBOOK_BINS - 1)
    n_steps = np.ceil(np.log(n_models - 1)) / BIN_WIDTH
    return np.where(step < n_steps, 0.5**step, 0.0)


def forgetting_quality(eps: np.ndarray, n_models: int = 512, rules: Rules = "official") -> float:
    """Return F, the mean points over the forget examples; arguments and errors as for :func:`points`.

    Perfect unlearning earns about 0.18 under the official rules at 512 models, not 1: the strongest of many
    attacks finds something in any two finite samples.

    >>> forgetting_quality(np.array([0.0, 0.5, 50.0]), n_models=512)
    0.5
    """
    earned = points(eps, n_models, rules)
    if not len(earned):
        raise ValueError("Forgetting quality needs at least one forget example; eps is empty.")
    return float(earned.mean())


def attack_errors(unlearned: np.ndarray, retrained: np.ndarray) -> Errors:
    """Return how many models the strongest official attack on each example takes for the other kind.

    Arguments and errors as for :func:`epsilons`.

    >>> found = attack_errors(np.array([[0.0], [1.0], [2.0]]), np.array([[1.5], [2.5], [3.5]]))
    >>> found.unlearned.tolist(), found.retrained.tolist()
    ([1], [1])
    """
    return official_errors(*_checked_samples(unlearned, retrained))


def strongest_attack(unlearned: np.ndarray, retrained: np.ndarray) -> Attack:
    """Return the strongest official attack on one example; an interval rather than an equal threshold.

    Args:
        unlearned: ``[n_models]``, the example's confidences under the unlearned models.
        retrained: ``[n_models]``, under the retrained models; the number may differ.

    Raises:
        ValueError: if the shapes do not fit or there are fewer than 2 models.

    >>> attack = strongest_attack(np.array([0.0, 1.0, 2.0]), np.array([1.5, 2.5, 3.5]))
    >>> attack.kind, attack.positive, round(attack.epsilon, 5), round(attack.fpr, 3), round(attack.fnr, 3)
    ('interval', 'unlearned', 0.69313, 0.333, 0.333)
    """
    unlearned, retrained = np.asarray(unlearned), np.asarray(retrained)
    if unlearned.ndim != 1 or retrained.ndim != 1:
        raise ValueError(
            "strongest_attack takes the confidences of one example, shape [n_models] twice; "
            f"found {unlearned.shape} and {retrained.shape}."
        )
    return strongest_official_attack(*_checked_samples(unlearned[:, None], retrained[:, None]))


def _checked_logits(logits: np.ndarray) -> np.ndarray:
    logits = np.asarray(logits)
    if logits.ndim not in (2, 3) or logits.shape[-1] < 2:
        raise ValueError(
            "logits must have shape [n, n_classes] or [n_models, n, n_classes] with at least 2 classes; "
            f"found {logits.shape}."
        )
    if logits.dtype == np.float16:
        return logits.astype(np.float32)
    return logits if np.issubdtype(logits.dtype, np.floating) else logits.astype(np.float64)


def _exp_below_max(logits: np.ndarray) -> np.ndarray:
    """Return exp of the logits' distance to their row's maximum, in their own precision."""
    with np.errstate(invalid="ignore"):  # inf - inf: NaN is the answer
        return np.exp(logits - logits.max(axis=-1, keepdims=True))


def _checked_samples(unlearned: np.ndarray, retrained: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    unlearned, retrained = np.asarray(unlearned, dtype=np.float64), np.asarray(retrained, dtype=np.float64)
    for name, sample in (("unlearned", unlearned), ("retrained", retrained)):
        if sample.ndim != 2:
            raise ValueError(f"{name} must have shape [n_models, n_examples]; found {sample.shape}.")
        if len(sample) < 2:
            raise ValueError(f"Epsilon needs at least 2 {name} models; found {len(sample)}.")
    if unlearned.shape[1] != retrained.shape[1]:
        raise ValueError(
            "unlearned and retrained must hold the same forget examples; "
            f"found {unlearned.shape[1]} and {retrained.shape[1]} of them."
        )
    return unlearned, retrained


def _check_rules(rules: str) -> None:
    if rules not in ("official", "notebook"):
        raise ValueError(f'Unknown rules {rules!r}; the rules are "official" and "notebook".')
