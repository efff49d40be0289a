"""Leaderboards from finished arrays: rows, CSV and JSON. Needs no torch and no data set.

``run.json`` in the run folder says which finished jobs make up the run; everything else is in their files.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from local_scorer.metric import score
from local_scorer.report.rows import Reference, Row, entry_row, reference_of, scored_row
from local_scorer.runs.record import CEILING, FLOOR, Data, Run, RunSettings
from local_scorer.runs.store import Environment, Header, RunFolder, write_atomically
from local_scorer.statistics import audits, forecast, intervals, klom, originals, shift, ties
from local_scorer.statistics.ties import Comparison, Tie

SCHEMA = 1
RULES = ("official", "notebook")
FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")
ONE_ORIGINAL = (
    "All runs start from one original, which is drawn by chance too, and the intervals leave that out: from "
    "another one, scores can differ by several times their width. --originals 4 measures it."
)


@dataclass(frozen=True)
class Provenance:
    """The command that made a board, where, with which settings, and what kept its entries apart."""

    command: str
    environment: Environment
    settings: RunSettings
    isolation: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Leaderboard:
    """All that ``leaderboard.json`` holds; `rows` are sorted by score, rejected and failed ones last.

    Attributes:
        setup: "competition", N runs from each original; or "full", one from each of N.
        n_originals: originals that each entry ran from.
        n_retrained: retrained models that all are compared with.
        to_forget: see `shift.something_to_forget`; in standard deviations of the retrained models.
        notes: sentences that a reader of the table needs.
        ties: groups of entries that cannot be told apart.
        comparisons: for every pair, the share of redraws in which the better one wins.
    """

    data: Data
    rules: str
    n_models: int
    to_forget: float
    notes: tuple[str, ...]
    provenance: Provenance
    rows: tuple[Row, ...]
    ties: tuple[Tie, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    setup: str = "competition"
    n_originals: int = 1
    n_retrained: int = 0
    schema: int = SCHEMA

    @property
    def all_scored(self) -> bool:
        return all(row.status == "scored" for row in self.rows)

    @property
    def floor_models(self) -> str:
        """What the models of the floor are."""
        return "the N originals as they are" if self.setup == "full" else "N copies of the original"


def collect(run: Run, rules: str | None = None, time_limit: bool = True) -> Leaderboard:
    """Score every entry of a run from its stored arrays.

    Args:
        rules: "official" or "notebook"; the run's own by default.
        time_limit: False, for study, scores what is over the time limit and came to its end.

    Raises:
        ValueError: results of the original or the retrained models are missing or damaged.
    """
    record = run.record
    rules = rules or record.rules
    if rules not in RULES:
        raise ValueError(f"Unknown rules {rules!r}: expected one of {', '.join(RULES)}.")
    reference = reference_of(run, rules, time_limit)
    rows = [scored_row(run, name, reference) for name in (CEILING, FLOOR)]
    rows += [entry_row(run, entry, reference) for entry in record.entries]
    with_statistics = _with_statistics if record.n_sets == 1 else _over_originals
    rows, pairs, tied = with_statistics(run, rows, reference)
    rows.sort(key=lambda row: (row.score is None, -(row.score or 0.0), row.status, row.entry))
    to_forget = shift.something_to_forget(run.original, run.retrained)
    return Leaderboard(
        data=record.data,
        rules=rules,
        n_models=record.n_models,
        setup=record.setup,
        n_originals=record.n_originals,
        n_retrained=run.retrained.n_models,
        to_forget=to_forget,
        notes=_notes(run, rules, to_forget, reference),
        provenance=Provenance(
            command=record.provenance.command,
            environment=record.provenance.environment,
            settings=record.settings,
            isolation=record.provenance.isolation,
        ),
        rows=tuple(rows),
        ties=tied,
        comparisons=pairs,
    )


def to_json(board: Leaderboard) -> str:
    """Return ``leaderboard.json``: schema, data, rules, n_models, to_forget, notes, provenance, rows."""
    return json.dumps(_without_nan(asdict(board)), indent=2, ensure_ascii=False) + "\n"


def to_csv(board: Leaderboard) -> str:
    """Return ``leaderboard.csv``: one line a row, columns as the plain fields of `Row` except the details."""
    nested = ("intervals", "forecast", "distance", "behaviour", "klom", "details", "scores")
    names = [field.name for field in fields(Row) if field.name not in nested]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*names, "rules"])
    for row in board.rows:
        values = _without_nan([getattr(row, name) for name in names])
        writer.writerow(["" if value is None else _harmless(value) for value in values] + [board.rules])
    return buffer.getvalue()


def _harmless(value: Any) -> Any:
    """Put an apostrophe before text that a spreadsheet would take for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_SIGNS) else value


def write(folder: RunFolder, board: Leaderboard, suffix: str = "") -> list[Path]:
    """Write leaderboard.csv and .json, `suffix` before the dot, into the run folder; return their paths."""
    paths = []
    for ending, text in ((".csv", to_csv(board)), (".json", to_json(board))):
        path = folder.root / f"leaderboard{suffix}{ending}"
        write_atomically(path, text.encode(errors="replace"))
        paths.append(path)
    return paths


def _with_statistics(
    run: Run, rows: Sequence[Row], reference: Reference
) -> tuple[list[Row], tuple[Comparison, ...], tuple[Tie, ...]]:
    """Add intervals, forecasts and audits to the rows that have models of their own.

    All are of the official rules: the notebook's logistic regressions are too slow to be redrawn.
    """
    if reference.rules != "official":
        return list(rows), (), ()
    retrained = reference.retrained
    copies = FLOOR if run.record.setup == "competition" else None  # without a spread of their own
    evaluated = {row.entry: run.models(row.entry) for row in rows if row.n_models and row.entry != copies}
    scored = {row.entry: evaluated[row.entry] for row in rows if row.entry in evaluated and row.score is not None}
    redraws = intervals.redraw_all(scored, retrained)
    pairs = ties.comparisons(redraws)
    found = []
    for row in rows:
        if row.entry in evaluated:
            models = evaluated[row.entry]
            row = replace(
                row,
                distance=audits.distance_of(models, retrained),
                behaviour=audits.behaviour_of(models),
                klom=klom.klom_of(models, retrained),
            )
        if row.entry in scored:
            row = replace(row, forecast=forecast.forecast(scored[row.entry], retrained))
            if len(row.scores) > 1:  # the ceiling of a pack, in several sets
                of_mean = originals.mean_over_originals(row.scores, reference.retrained.n_examples)
                row = replace(row, score_low=of_mean.low, score_high=of_mean.high)
            elif row.score > 0:  # of no points at all, no spread can be told
                of = intervals.intervals_of(redraws[row.entry])
                ends = of.models.score_low, of.models.score_high
                row = replace(row, score_low=ends[0], score_high=ends[1], intervals=of)
        found.append(row)
    return found, pairs, ties.ties(pairs, ties.by_score(redraws), run.record.n_models)


def _over_originals(
    run: Run, rows: Sequence[Row], reference: Reference
) -> tuple[list[Row], tuple[Comparison, ...], tuple[Tie, ...]]:
    """Add intervals of the mean over originals, and audits: distance is the mean over them, others are of one."""
    found = []
    moves = _moves(run, rows, reference)
    for row in rows:
        if len(row.scores) > 1 and row.entry != FLOOR and row.score is not None:
            of_mean = originals.mean_over_originals(
                row.scores, reference.retrained.n_examples, moves=moves.get(row.entry, originals.AS_GIVEN)
            )
            row = replace(row, score_low=of_mean.low, score_high=of_mean.high)
        elif row.entry == CEILING and row.score and reference.rules == "official":  # one set, trained here
            of = intervals.score_intervals(run.models(CEILING), reference.retrained).models
            row = replace(row, score_low=of.score_low, score_high=of.score_high)
        if reference.rules == "official" and row.n_models and row.entry != FLOOR:
            sets = run.sets(row.entry)
            apart = [audits.distance_of(models, reference.retrained) for models in sets]
            row = replace(
                row,
                distance=audits.mean_distance(apart),
                behaviour=audits.behaviour_of(sets[0]),
                klom=klom.klom_of(sets[0], reference.retrained),
            )
        found.append(row)
    scores = {row.entry: row.scores for row in found if row.score is not None and not row.is_reference}
    pairs = ties.comparisons_over_originals(scores, moves)
    best_first = sorted(scores, key=lambda name: (-float(np.mean(scores[name])), name))
    return found, pairs, ties.ties(pairs, best_first, run.record.n_models, run.record.n_originals)


def _moves(run: Run, rows: Sequence[Row], reference: Reference) -> dict[str, np.ndarray]:
    """Return how scores move with the retrained models, by row; of the ceiling's many sets a few say it.

    Not under the notebook rules, whose logistic regressions are too slow to be done again.
    """
    if reference.rules != "official":
        return {}
    return {
        row.entry: originals.moves_with_retrained(
            run.sets(row.entry)[: run.record.n_originals], reference.retrained
        )
        for row in rows
        if row.score is not None and row.entry != FLOOR
    }


def _notes(run: Run, rules: str, to_forget: float, reference: Reference) -> tuple[str, ...]:
    """Return the sentences that a reader of the table needs, the weightiest first."""
    notes = [_worker_note(run), _mixture_note(run)]
    if run.record.setup == "competition":
        notes.insert(0, score.zero_spread_note(rules))
    notes.insert(0, score.small_n_note(run.record.n_models, run.record.n_sets))
    if run.record.n_originals == 1:
        notes.insert(1, ONE_ORIGINAL)
    if rules == "official":
        n_retrained = reference.retrained.n_models
        notes.insert(0, score.low_ceiling_note(reference.ceiling_quality, run.record.n_models, n_retrained))
    if run.record.n_sets > 1:
        notes.append(_retrained_note(run, rules))
    if not to_forget >= 0.5:  # NaN too
        notes.insert(0, "There is hardly anything to forget here, so these scores rank nothing.")
    return tuple(note for note in notes if note)


def _worker_note(run: Run) -> str | None:
    """Say so if entries and retrained models were timed with different numbers of workers."""
    own = [key for entry in run.record.entries for key in entry.keys]
    timed = run.record.calibration or run.record.retrained
    counts = [{header.workers for header in run.headers(keys)} for keys in (timed, own)]
    if len(counts[0] | counts[1]) <= 1 or not counts[1]:
        return None
    return (
        f"Retrained models were timed with {_listed(counts[0])} worker(s), entries with "
        f"{_listed(counts[1])}: compare times with care (CPU seconds suffer less), or use another --out."
    )


def _retrained_note(run: Run, rules: str) -> str:
    """Say whether intervals over originals hold the draw of the retrained models too."""
    count = run.retrained.n_models
    whose = "are those of the reference pack, the same on all its boards" if run.pack else "were trained here"
    if rules == "official":
        held = "The intervals hold their draw as well as that of the originals."
    else:
        held = "The intervals are over originals and take them as given, although they are drawn by chance too."
    return (
        f"The {count} retrained models {whose}. {held} More or fewer of them move score and ceiling: compare "
        "boards that have the same."
    )


def _mixture_note(run: Run) -> str | None:
    """Say so if the results of a board come from several kinds of machine or several versions."""
    headers = run.headers(run.keys)
    machines = {header.machine for header in headers}
    versions = {", ".join(f"{name} {number}" for name, number in _versions(header)) for header in headers}
    kinds = [("kinds of machine", machines), ("versions", versions)]
    mixed = [f"{len(found)} {what} ({'; '.join(sorted(found))})" for what, found in kinds if len(found) > 1]
    if not mixed:
        return None
    return (
        f"This board mixes results of {' and '.join(mixed)}. Models trained elsewhere differ from those trained "
        "here by more than the seed, and times are compared within one kind of machine only. For one of all, use "
        "another --out."
    )


def _versions(header: Header) -> list[tuple[str, str]]:
    """Return the versions that decide what a training gives."""
    packages = header.environment.packages
    return [(name, str(packages.get(name))) for name in ("torch", "torchvision") if packages.get(name)]


def _listed(counts: set[Any]) -> str:
    return " and ".join(str(count) for count in sorted(counts, key=str))


def _without_nan(value: Any) -> Any:
    """Replace NaN and infinity, which JSON does not know, by null."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
