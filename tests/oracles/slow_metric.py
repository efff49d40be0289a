"""The metric written down step by step, with no thought of speed: the oracle for local_scorer.metric.

It tries threshold by threshold what the released scorer tries. It holds the intervals of one right end at a
time, where the released scorer holds all 160,000, and is faster for it. Where every threshold is discarded,
which stops the released scorer with an error, epsilon is NaN.
"""

from __future__ import annotations

import math

import numpy as np


def official_epsilons(unlearned: np.ndarray, retrained: np.ndarray) -> np.ndarray:
    """Return the official epsilon of each example of finite ``[n_models, n_examples]`` x 2."""
    return np.array([official_epsilon(u, r) for u, r in zip(unlearned.T, retrained.T, strict=True)])


def official_epsilon(unlearned: np.ndarray, retrained: np.ndarray) -> float:
    """Return the official epsilon of one example."""
    if np.median(retrained) > np.median(unlearned):
        positive, negative = retrained, unlearned
    else:
        positive, negative = unlearned, retrained
    ranges = sorted((float(np.ptp(positive)), float(np.ptp(negative))))
    if ranges[1] > 0 and ranges[0] / ranges[1] < 0.01:
        return 50.0

    kept = [
        epsilon
        for rates in (*interval_rates(positive, negative), threshold_rates(positive, negative))
        for epsilon in rates_to_epsilons(*rates)
    ]
    if not kept:
        return math.nan
    return float(min(max(kept), 50.0))


def interval_rates(positive: np.ndarray, negative: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (fpr, fnr) of the intervals, one pair of arrays a right end."""
    if np.ptp(positive) >= np.ptp(negative):
        positive, negative = negative, positive
    width = np.ptp(positive)
    lowest_right, highest_right = positive.min() + width - 2.0, positive.max() + 2.0
    rates = []
    for right in np.linspace(lowest_right, highest_right, math.ceil((highest_right - lowest_right) * 100)):
        left = np.linspace(right - width - 2.0, right - width + 2.0, 400)
        positive_inside = (left[None, :] <= positive[:, None]) & (positive[:, None] <= right)
        negative_inside = (left[None, :] <= negative[:, None]) & (negative[:, None] <= right)
        rates.append((share(negative_inside), share(~positive_inside)))
    return rates


def threshold_rates(positive: np.ndarray, negative: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (fpr, fnr) of the single thresholds."""
    pooled = np.concatenate((positive, negative))
    low, high = pooled.min(), pooled.max()
    thresholds = linspace32(low, high, math.ceil((high - low) * 100)).astype(np.float64)
    fpr = share(negative[:, None] >= thresholds[None, :])
    fnr = share(positive[:, None] < thresholds[None, :])
    return fpr, fnr


def linspace32(low: float, high: float, count: int) -> np.ndarray:
    """Return torch.linspace(low, high, count), which is float32."""
    if count == 1:
        return np.float32([low])
    low, high = np.float32(low), np.float32(high)
    values = []
    for i in range(count):
        step = float((high - low) / np.float32(count - 1))
        value = float(low) + step * i if i < count // 2 else float(high) - step * (count - 1 - i)
        values.append(np.float32(value))
    return np.array(values, dtype=np.float32)


def share(hits: np.ndarray) -> np.ndarray:
    """Return the share of models that hit, a float32 for each threshold."""
    return hits.astype(np.float32).mean(axis=0)


def rates_to_epsilons(fpr: np.ndarray, fnr: np.ndarray, delta: float = 1e-5) -> list[np.float32]:
    """Return the epsilons of the thresholds that count."""
    epsilons = []
    for fp, fn in sorted(set(zip(fpr.tolist(), fnr.tolist(), strict=True))):
        fp, fn = np.float32(fp), np.float32(fn)
        if fp == 0 and fn == 0:
            epsilons.append(np.float32(np.inf))
        elif fp != 0 and fn != 0:
            logs = [log(1 - delta - fp) - log(fn), log(1 - delta - fn) - log(fp)]
            logs = [value for value in logs if not np.isnan(value)]
            if logs:
                epsilons.append(max(*logs, np.float32(0)))
    return epsilons


def log(value: np.float32 | float) -> np.float32 | float:
    """Return the natural logarithm in the value's precision, NaN below 0 and -inf at 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(value)


def official_forgetting_quality(epsilons: np.ndarray, n_models: int) -> float:
    """Return F, bucket by bucket."""
    buckets = []
    start, points = 0.0, 1.0
    while start + 0.5 <= math.ceil(math.log(n_models - 1)):
        buckets.append((start + 0.5, points))
        start, points = start + 0.5, points / 2
    total = 0.0
    for epsilon in epsilons:
        total += next((points for end, points in buckets if epsilon < end), 0.0)
    return total / len(epsilons)


def notebook_epsilon(unlearned: np.ndarray, retrained: np.ndarray, delta: float = 0.01) -> float:
    """Return the notebook's epsilon of one example from its losses; at least 11 values in all."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedShuffleSplit

    losses = np.concatenate((retrained, unlearned))
    is_unlearned = np.array([0] * len(retrained) + [1] * len(unlearned))
    attacks = []
    for threshold in losses:
        attacks.append((np.mean(retrained > threshold), np.mean(unlearned <= threshold)))
    fprs, fnrs = [], []
    splitter = StratifiedShuffleSplit(n_splits=2, random_state=0)
    for train, test in splitter.split(losses[:, None], is_unlearned):
        model = LogisticRegression().fit(losses[train, None], is_unlearned[train])
        predicted = model.predict(losses[test, None])
        fprs.append(np.mean(predicted[is_unlearned[test] == 0] == 1))
        fnrs.append(np.mean(predicted[is_unlearned[test] == 1] == 0))
    attacks.append((np.mean(fprs), np.mean(fnrs)))

    epsilons = [0.0]
    for fpr, fnr in attacks:
        if fpr == 0 and fnr == 0:
            epsilons.append(math.inf)
        elif fpr != 0 and fnr != 0:
            logs = [log(1 - delta - fpr) - log(fnr), log(1 - delta - fnr) - log(fpr)]
            logs = [value for value in logs if not np.isnan(value)]
            epsilons.append(max(logs) if logs else math.inf)
    return float(max(epsilons))
