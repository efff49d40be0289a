"""Leaderboards from finished arrays: rows, CSV and JSON. Needs no torch and no data set.

``run.json`` in the run folder says which finished jobs make up the run; everything else is in their files.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from local_scorer.metric import score
from local_scorer.metric.score import TIME_LIMIT, ModelSet
from local_scorer.runs.store import Failure, RunFolder, write_atomically
from local_scorer.statistics import reading
from local_scorer.statistics.audits import Behaviour, Distance
from local_scorer.statistics.forecast import Forecast
from local_scorer.statistics.intervals import Intervals
from local_scorer.statistics.reading import Tie
from local_scorer.statistics.ties import Comparison

SCHEMA = 1
RULES = ("official", "notebook")
FLOOR, CEILING = "no unlearning", "retrained"  # entries' names of the two reference rows


@dataclass(frozen=True)
class RunRecord:
    """Which jobs make up a run: the content of ``run.json``.

    Attributes:
        data: name, fingerprint, number of pictures per split and class names of the prepared dataset.
        settings: recipe, width, seed, device, workers, picture size.
        original: key of the job that trained the original.
        retrained, ceiling: keys of the two sets of N retrained models.
        entries: per entry, name, source hash and the keys of its N runs.
        provenance: environment and command.
    """

    rules: str
    n_models: int
    data: dict[str, Any]
    settings: dict[str, Any]
    original: str
    retrained: list[str]
    ceiling: list[str]
    entries: list[dict[str, Any]]
    provenance: dict[str, Any]
    schema: int = SCHEMA


@dataclass(frozen=True)
class Row:
    """One line of the leaderboard.

    Attributes:
        entry: name of the entry's file, or one of the reference rows `FLOOR` and `CEILING`.
        status: "scored", "rejected" (over the time limit) or "failed".
        reason: why it was rejected or failed, else empty.
        score: final score; None unless scored.
        score_low, score_high: 95 % interval of the mean score over repetitions with other models, on this forget
            set; None under the notebook rules, for the floor, and for a score of 0.
        share_of_ceiling: score as a share of the row "retrained".
        forgetting_quality: F.
        retain_accuracy, forget_accuracy, test_accuracy: mean over models, shares from 0 to 1.
        retain_ratio, test_ratio: mean accuracy over that of the retrained models.
        seconds: mean wall-clock seconds of ``unlearning()`` (of training, for "retrained"); None for checkpoints
            made elsewhere, as are the two ratios below.
        time_ratio: mean wall-clock seconds over those of retraining; the limit is 0.2.
        cpu_time_ratio: the same in CPU seconds.
        n_models: models that were scored.
        intervals: of score and F, by what is redrawn: models, forget examples, or both.
        forecast: of score and F with 512 models; None below `forecast.LEAST_MODELS` models.
        distance, behaviour: audits beside the score; see `audits`.
        details: the last lines of an entry's exception.
    """

    entry: str
    status: str
    reason: str = ""
    score: float | None = None
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
    cpu_time_ratio: float | None = None
    n_models: int = 0
    intervals: Intervals | None = None
    forecast: Forecast | None = None
    distance: Distance | None = None
    behaviour: Behaviour | None = None
    details: str = ""

    @property
    def is_reference(self) -> bool:
        return self.entry in (FLOOR, CEILING)


@dataclass(frozen=True)
class Leaderboard:
    """All that ``leaderboard.json`` holds; `rows` are sorted by score, rejected and failed ones last.

    Attributes:
        to_forget: see `score.something_to_forget`; in standard deviations of the retrained models.
        notes: sentences that a reader of the table needs.
        ties: groups of entries that cannot be told apart.
        comparisons: for every pair, the share of redraws in which the better one wins.
    """

    data: dict[str, Any]
    rules: str
    n_models: int
    to_forget: float
    notes: tuple[str, ...]
    provenance: dict[str, Any]
    rows: tuple[Row, ...]
    ties: tuple[Tie, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    schema: int = SCHEMA

    @property
    def all_scored(self) -> bool:
        return all(row.status == "scored" for row in self.rows)


def save_record(folder: RunFolder, record: RunRecord) -> None:
    write_atomically(folder.root / "run.json", (json.dumps(asdict(record), indent=2) + "\n").encode())


def load_record(folder: RunFolder) -> RunRecord:
    """Read ``run.json``.

    Raises:
        ValueError: there is none, or it cannot be read.
    """
    path = folder.root / "run.json"
    if not path.is_file():
        raise ValueError(
            f"{folder.root} holds no run: it has no run.json. "
            "Make one with 'python -m local_scorer leaderboard --out DIR'."
        )
    try:
        record = RunRecord(**json.loads(path.read_text()))
        _check_record(record)
    except (ValueError, TypeError, KeyError, AttributeError) as error:  # ValueError: not JSON, not UTF-8
        raise ValueError(f"{path} cannot be read ({error}). Run the leaderboard again.") from error
    if record.schema != SCHEMA:
        raise ValueError(f"{path} has schema {record.schema}, this version reads {SCHEMA}. Run it again.")
    return record


def _check_record(record: RunRecord) -> None:
    """Touch everything that is needed later, so that a damaged record is refused in one place."""
    if not (record.retrained and record.ceiling and isinstance(record.original, str)):
        raise ValueError("it names no models")
    for key in [*record.retrained, *record.ceiling, *(key for entry in record.entries for key in entry["keys"])]:
        key.encode()
    _ = [entry["name"] for entry in record.entries], record.provenance.keys()
    _ = record.data["name"], record.data["counts"]["forget"], record.data["counts"]["retain"]
    _ = [record.settings[name] for name in ("size", "width", "device")], record.settings["recipe"]["name"]


def collect(folder: RunFolder, record: RunRecord, rules: str | None = None) -> Leaderboard:
    """Score every entry of a run from its stored arrays.

    Args:
        rules: "official" or "notebook"; the run's own by default.

    Raises:
        ValueError: results of the original or the retrained models are missing or damaged.
    """
    rules = rules or record.rules
    if rules not in RULES:
        raise ValueError(f"Unknown rules {rules!r}: expected one of {', '.join(RULES)}.")
    original = models_of(folder, [record.original])
    retrained = models_of(folder, record.retrained)
    second = models_of(folder, record.ceiling)
    reference = _Reference(
        retrained,
        rules,
        ceiling=score.final_score(second, retrained, rules).score,
        wall_seconds=float(np.mean([retrained.wall_seconds, second.wall_seconds])),
        cpu_seconds=float(np.mean([retrained.cpu_seconds, second.cpu_seconds])),
    )
    rows = [
        _scored_row(CEILING, second, reference),
        _scored_row(FLOOR, original.repeated(record.n_models), reference),
        *(_entry_row(folder, entry, reference) for entry in record.entries),
    ]
    keys = {entry["name"]: entry["keys"] for entry in record.entries} | {CEILING: record.ceiling}
    rows, pairs, ties = _with_readings(folder, rows, keys, reference)
    rows.sort(key=lambda row: (row.score is None, -(row.score or 0.0), row.status, row.entry))
    to_forget = score.something_to_forget(original, retrained)
    notes = [
        note
        for note in (
            score.small_n_note(record.n_models),
            score.zero_spread_note(rules),
            _worker_note(folder, record),
        )
        if note
    ]
    if not to_forget >= 0.5:  # NaN too
        notes.insert(0, "There is hardly anything to forget here, so these scores rank nothing.")
    return Leaderboard(
        record.data, rules, record.n_models, to_forget, tuple(notes),
        {**record.provenance, "settings": record.settings}, tuple(rows), ties, pairs,
    )  # fmt: skip


def to_json(board: Leaderboard) -> str:
    """Return ``leaderboard.json``: schema, data, rules, n_models, to_forget, notes, provenance, rows."""
    return json.dumps(_without_nan(asdict(board)), indent=2, ensure_ascii=False) + "\n"


def to_csv(board: Leaderboard) -> str:
    """Return ``leaderboard.csv``: one line a row, columns as the plain fields of `Row` except the details."""
    nested = ("intervals", "forecast", "distance", "behaviour", "details")
    names = [field.name for field in fields(Row) if field.name not in nested]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*names, "rules"])
    for row in board.rows:
        values = _without_nan([getattr(row, name) for name in names])
        writer.writerow(["" if value is None else value for value in values] + [board.rules])
    return buffer.getvalue()


def write(folder: RunFolder, board: Leaderboard, suffix: str = "") -> list[Path]:
    """Write leaderboard.csv and .json, `suffix` before the dot, into the run folder; return their paths."""
    paths = []
    for ending, text in ((".csv", to_csv(board)), (".json", to_json(board))):
        path = folder.root / f"leaderboard{suffix}{ending}"
        write_atomically(path, text.encode())
        paths.append(path)
    return paths


def models_of(folder: RunFolder, keys: Sequence[str]) -> ModelSet:
    """Stack the stored results of some jobs, one model each.

    Raises:
        ValueError: one of them is missing or damaged.
    """
    try:
        results = [folder.load_result(key) for key in keys]
    except FileNotFoundError as error:
        raise ValueError(
            f"{error.filename} is missing: the run is not finished. Run the same leaderboard command again."
        ) from error
    return ModelSet(
        logits=np.stack([result.logits["forget"] for result in results]),
        labels=results[0].labels["forget"],
        retain_accuracy=np.array([result.accuracy["retain"] for result in results]),
        forget_accuracy=np.array([result.accuracy["forget"] for result in results]),
        test_accuracy=np.array([result.accuracy["test"] for result in results]),
        wall_seconds=np.array([result.wall_seconds for result in results]),
        cpu_seconds=np.array([result.cpu_seconds for result in results]),
    )


@dataclass(frozen=True)
class _Reference:
    """What every row is held against; seconds are means over both sets of retrained models."""

    retrained: ModelSet
    rules: str
    ceiling: float
    wall_seconds: float
    cpu_seconds: float


def _with_readings(
    folder: RunFolder, rows: Sequence[Row], keys: dict[str, list[str]], reference: _Reference
) -> tuple[list[Row], tuple[Comparison, ...], tuple[Tie, ...]]:
    """Add intervals, forecasts and audits to the rows that have models of their own."""
    if reference.rules != "official":
        return list(rows), (), ()
    evaluated = {
        row.entry: models_of(folder, keys[row.entry]) for row in rows if row.n_models and row.entry in keys
    }
    scored = {row.entry: evaluated[row.entry] for row in rows if row.entry in evaluated and row.score is not None}
    redraws = reading.redraw_all(scored, reference.retrained)
    intervals = reading.intervals_of(redraws)
    forecasts = reading.forecasts(scored, reference.retrained)
    pairs, ties = reading.ties(redraws, scored, reference.retrained)
    found = []
    for row in rows:
        if row.entry in evaluated:
            results = [folder.load_result(key) for key in keys[row.entry][: reading.AUDITED_MODELS]]
            row = replace(
                row,
                distance=reading.distance_of(evaluated[row.entry], reference.retrained),
                behaviour=reading.behaviour_of(results),
            )
        if row.entry in scored and row.score > 0:  # of no points at all, no spread can be told
            of_score = intervals[row.entry].models
            row = replace(
                row,
                score_low=of_score.score_low,
                score_high=of_score.score_high,
                intervals=intervals[row.entry],
            )
        if row.entry in scored:
            row = replace(row, forecast=forecasts[row.entry])
        found.append(row)
    return found, pairs, ties


def _entry_row(folder: RunFolder, entry: dict[str, Any], reference: _Reference) -> Row:
    if entry.get("error"):
        return Row(entry["name"], "failed", entry["error"])
    missing = [key for key in entry["keys"] if not folder.result_path(key).is_file()]
    for key in missing:
        failure = folder.load_failure(key)
        if failure:
            return _failed_row(entry, entry["keys"].index(key), failure, reference.wall_seconds)
    if missing:
        reason = f"Not finished: {len(missing)} of its {len(entry['keys'])} runs are missing."
        return Row(entry["name"], "failed", reason)
    return _scored_row(entry["name"], models_of(folder, entry["keys"]), reference)


def _failed_row(entry: dict[str, Any], index: int, failure: Failure, retraining_seconds: float) -> Row:
    run = f"run {index + 1} of {len(entry['keys'])}"
    if failure.kind == "time-out" and failure.seconds is not None:
        ratio = score.time_ratio(failure.seconds, retraining_seconds)
        reason = (
            f"Stopped in {run} after {failure.seconds:.1f} s, {ratio:.0%} of the {retraining_seconds:.1f} s "
            f"that retraining takes; the limit is {TIME_LIMIT:.0%}. Make it faster."
        )
        return Row(entry["name"], "rejected", reason, seconds=failure.seconds, time_ratio=ratio)
    reason = f"[{failure.kind}, {run}] {failure.reason}"
    return Row(entry["name"], "failed", reason, details=failure.details)


def _scored_row(name: str, models: ModelSet, reference: _Reference) -> Row:
    result = score.final_score(models, reference.retrained, reference.rules)
    seconds = 0.0 if name == FLOOR else float(models.wall_seconds.mean())
    cpu_seconds = 0.0 if name == FLOOR else float(models.cpu_seconds.mean())
    ratio = score.time_ratio(seconds, reference.wall_seconds)
    rejected = name != CEILING and ratio > TIME_LIMIT
    broken = int((~np.isfinite(models.logits).all(axis=(1, 2))).sum())
    reason = ""
    if broken:
        reason = f"{broken} of {models.n_models} models answer with NaN or infinity on forget pictures."
    if math.isnan(seconds):
        reason = f"Made elsewhere, in a time that is not known: the limit of {TIME_LIMIT:.0%} was not checked."
    if rejected:
        reason = (
            f"unlearning() took {ratio:.1%} of the time of retraining, the limit is {TIME_LIMIT:.0%}. "
            f"Without the limit its score would be {result.score:.4f}."
        )
    return Row(
        entry=name,
        status="rejected" if rejected else "scored",
        reason=reason,
        score=None if rejected else result.score,
        share_of_ceiling=result.score / reference.ceiling if reference.ceiling > 0 and not rejected else None,
        forgetting_quality=result.forgetting_quality,
        retain_accuracy=float(models.retain_accuracy.mean()),
        forget_accuracy=float(models.forget_accuracy.mean()),
        test_accuracy=float(models.test_accuracy.mean()),
        retain_ratio=result.retain_ratio,
        test_ratio=result.test_ratio,
        seconds=_known(seconds),
        time_ratio=_known(ratio),
        cpu_time_ratio=_known(score.time_ratio(cpu_seconds, reference.cpu_seconds)),
        n_models=models.n_models,
    )


def _worker_note(folder: RunFolder, record: RunRecord) -> str | None:
    """Say so if entries and retrained models were timed with different numbers of workers."""
    finished = [
        [key for key in keys if folder.result_path(key).is_file()]
        for keys in (record.retrained, [key for entry in record.entries for key in entry["keys"]])
    ]
    counts = [{folder.load_result(key).header.get("workers") for key in keys} for keys in finished]
    if len(counts[0] | counts[1]) <= 1 or not counts[1]:
        return None
    return (
        f"Retrained models were timed with {_listed(counts[0])} worker(s), entries with "
        f"{_listed(counts[1])}: compare times with care (cpu_time_ratio suffers less), or use another --out."
    )


def _listed(counts: set[Any]) -> str:
    return " and ".join(str(count) for count in sorted(counts, key=str))


def _known(seconds: float) -> float | None:
    return None if math.isnan(seconds) else seconds


def _without_nan(value: Any) -> Any:
    """Replace NaN and infinity, which JSON does not know, by null."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
