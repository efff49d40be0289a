"""The rows of a board: what each entry, and the two references, scored, and why some did not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from local_scorer.metric import clock, score
from local_scorer.metric.clock import TIME_LIMIT
from local_scorer.metric.score import ModelSet, Score
from local_scorer.report import times
from local_scorer.runs.record import CEILING, FLOOR, Entry, Run
from local_scorer.runs.store import Failure
from local_scorer.statistics.audits import Behaviour, Distance
from local_scorer.statistics.forecast import Forecast
from local_scorer.statistics.intervals import Intervals
from local_scorer.statistics.klom import Klom


@dataclass(frozen=True)
class Row:
    """One line of the leaderboard.

    Attributes:
        entry: name of the entry's file, or one of the reference rows `FLOOR` and `CEILING`.
        status: "scored", "rejected" (over the time limit) or "failed".
        reason: why it was rejected or failed, else empty.
        score: final score; None unless scored.
        score_without_limit: of a rejected row that was measured to its end, the score that it would have had.
        score_low, score_high: 95 % interval of the mean score over repetitions with other models, on this forget
            set; with several originals, of the mean over other originals. None for the floor; with one original
            also under the notebook rules and for a score of 0.
        scores: the score from each original, whose mean is `score`; of the ceiling, that of each set of N models.
        share_of_ceiling: score as a share of the row "retrained".
        forgetting_quality: F.
        retain_accuracy, forget_accuracy, test_accuracy: mean over models, shares from 0 to 1.
        retain_ratio, test_ratio: mean accuracy over that of the retrained models.
        seconds: mean wall-clock seconds of ``unlearning()`` (of training, for "retrained"); None for checkpoints
            made elsewhere, as are the ratios below.
        time_ratio: median over the runs of their time as a share of retraining; the limit is 0.2. See
            `metric.clock`.
        time_low, time_high: its 95 % interval; where it holds the limit, `reason` says so.
        clock: what `time_ratio` is of: "cpu" seconds, or "wall" for a GPU and for a run that was stopped.
        cpu_time_ratio, wall_time_ratio: the ratio by each clock.
        n_models: models that were scored.
        intervals: of score and F, by what is redrawn: models, forget examples, or both.
        forecast: of score and F with 512 models; None below `forecast.LEAST_MODELS` models.
        distance, behaviour, klom: audits beside the score; see `audits` and `klom`.
        details: the last lines of an entry's exception.
    """

    entry: str
    status: str
    reason: str = ""
    score: float | None = None
    score_without_limit: float | None = None
    score_low: float | None = None
    score_high: float | None = None
    share_of_ceiling: float | None = None
    forgetting_quality: float | None = None
    retain_accuracy: float | None = None
    forget_accuracy: float | None = None
    test_accuracy: float | None = None
    retain_ratio: float | None = None
    test_ratio: float | None = None
    seconds: float | None = None
    time_ratio: float | None = None
    time_low: float | None = None
    time_high: float | None = None
    clock: str | None = None
    cpu_time_ratio: float | None = None
    wall_time_ratio: float | None = None
    n_models: int = 0
    intervals: Intervals | None = None
    forecast: Forecast | None = None
    distance: Distance | None = None
    behaviour: Behaviour | None = None
    klom: Klom | None = None
    details: str = ""
    scores: tuple[float, ...] = ()

    @property
    def is_reference(self) -> bool:
        return self.entry in (FLOOR, CEILING)

    @property
    def is_near_limit(self) -> bool:
        return not self.is_reference and clock.is_near(self.time_low, self.time_high)


@dataclass(frozen=True)
class Reference:
    """What every row is held against.

    Attributes:
        ceiling_scores: those of each set of further retrained models.
        time_limit: whether rows over the time limit are rejected.
    """

    retrained: ModelSet
    rules: str
    ceiling_scores: tuple[Score, ...]
    time_limit: bool = True

    @property
    def ceiling(self) -> float:
        return _mean(found.score for found in self.ceiling_scores)

    @property
    def ceiling_quality(self) -> float:
        return _mean(found.forgetting_quality for found in self.ceiling_scores)


def reference_of(run: Run, rules: str, time_limit: bool = True) -> Reference:
    """Return what the rows of a run are held against."""
    retrained = run.retrained
    return Reference(retrained, rules, _scores(run.sets(CEILING), retrained, rules), time_limit)


def entry_row(run: Run, entry: Entry, reference: Reference) -> Row:
    """Return the row of an entry, whatever became of its runs."""
    if entry.error:
        return Row(entry.name, "failed", entry.error)
    missing = run.missing(entry.name)
    failed = run.failure(entry.name)
    if missing and not failed:
        reason = f"Not finished: {len(missing)} of its {len(entry.keys)} runs are missing."
        return Row(entry.name, "failed", reason)
    try:
        if failed:
            return _failed_row(entry, *failed, times.training_seconds(run, entry.name, "wall"))
        run.sets(entry.name), run.timed_beside(entry.name)
    except ValueError as error:  # a damaged result
        return Row(entry.name, "failed", str(error))
    return scored_row(run, entry.name, reference)


def _failed_row(entry: Entry, index: int, failure: Failure, retraining_seconds: float) -> Row:
    run = f"run {index + 1} of {len(entry.keys)}"
    if failure.kind == "time-out" and failure.seconds is not None:
        ratio = failure.seconds / retraining_seconds
        reason = (
            f"Stopped in {run} after {failure.seconds:.1f} s, {ratio:.0%} of the {retraining_seconds:.1f} s "
            f"(wall clock) that retraining takes; the limit is {TIME_LIMIT:.0%}. Make it faster"
            + (", or give --over-limit to see what it would score" if ratio < clock.STUDIED_TO else "")
            + ". On a busy machine, or with a recipe that trains briefly, give --again or a longer --recipe."
        )
        return Row(entry.name, "rejected", reason, seconds=failure.seconds, time_ratio=ratio, clock="wall")
    reason = f"[{failure.kind}, {run}] {failure.reason}"
    return Row(entry.name, "failed", reason, details=failure.details)


def scored_row(run: Run, name: str, reference: Reference) -> Row:
    """Return the row of an entry or a reference whose models are all there; it may be over the time limit."""
    sets = run.sets(name)
    results = reference.ceiling_scores if name == CEILING else _scores(sets, reference.retrained, reference.rules)
    total = _mean(result.score for result in results)
    taken, seconds = times.times_of(run, name), times.seconds_of(run, name)
    rejected = reference.time_limit and times.is_rejected(name, taken)
    broken = sum(int((~np.isfinite(models.logits).all(axis=(1, 2))).sum()) for models in sets)
    n_models = sum(models.n_models for models in sets)
    quality = _mean(result.forgetting_quality for result in results)
    reasons = [times.reason(name, taken, seconds)]
    if rejected:
        reasons.append(f"Without the limit its score would be {total:.4f}.")
    elif broken:
        reasons.insert(0, f"{broken} of {n_models} models answer with NaN or infinity on forget pictures.")
    elif total == 0 and name not in (FLOOR, CEILING):
        reasons.append(_why_zero(sets, quality, reference))
    return Row(
        entry=name,
        status="rejected" if rejected else "scored",
        reason=" ".join(filter(None, reasons)),
        score=None if rejected else total,
        score_without_limit=total if rejected else None,
        share_of_ceiling=total / reference.ceiling if reference.ceiling > 0 and not rejected else None,
        forgetting_quality=quality,
        retain_accuracy=_mean(models.retain_accuracy.mean() for models in sets),
        forget_accuracy=_mean(models.forget_accuracy.mean() for models in sets),
        test_accuracy=_mean(models.test_accuracy.mean() for models in sets),
        retain_ratio=_mean(result.retain_ratio for result in results),
        test_ratio=_mean(result.test_ratio for result in results),
        seconds=_known(seconds),
        time_ratio=_known(taken.deciding.ratio),
        time_low=_known(taken.deciding.low),
        time_high=_known(taken.deciding.high),
        clock=taken.clock,
        cpu_time_ratio=_known(taken.cpu.ratio),
        wall_time_ratio=_known(taken.wall.ratio),
        n_models=sets[0].n_models,
        scores=tuple(result.score for result in results),
    )


def _why_zero(sets: Sequence[ModelSet], quality: float, reference: Reference) -> str:
    if quality > 0:
        return "Score 0: it predicts no retain picture right, or no test picture."
    equal = [not np.ptp(score.statistic(models, reference.rules), axis=0).any() for models in sets]
    if reference.rules == "official" and all(equal):
        return (
            "Score 0: all its runs give the same answers, so that epsilon is 50 on every forget picture. "
            "Let chance into it, such as the order of batches or dropout."
        )
    return "Score 0: on every forget picture its answers are told from the retrained models': none earns points."


def _scores(sets: Sequence[ModelSet], retrained: ModelSet, rules: str) -> tuple[Score, ...]:
    return tuple(score.final_score(models, retrained, rules) for models in sets)


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _known(seconds: float) -> float | None:
    return None if math.isnan(seconds) else seconds
