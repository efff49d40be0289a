"""The frame of every study and benchmark: its arguments, the run it looks at, and a file of results.

A file of results says how it was made: command, machine, date and versions.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import NoReturn

from local_scorer.runs import store

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"

# How a column is headed and written, in print and in docs/; others as they are.
COLUMNS = {
    "score": ("score", ".4f"),
    "score_interval": ("95 % interval", ".3f"),
    "other_score": ("other processor", ".4f"),
    "other_interval": ("95 % interval", ".3f"),
    "equal": ("equal", ".0%"),
    "share_of_ceiling": ("of the ceiling", ".0%"),
    "share_of_ceiling_interval": ("range", ".0%"),
    "score_spread": ("spread", ".0%"),
    "forgetting_quality": ("F", ".4f"),
    "retain_accuracy": ("retain accuracy", ".3f"),
    "forget_accuracy": ("forget accuracy", ".3f"),
    "test_accuracy": ("test accuracy", ".3f"),
    "retain_ratio": ("retain", ".3f"),
    "test_ratio": ("test", ".3f"),
    "time_ratio": ("time", ".1%"),
    "n_models": ("N", "d"),
    "n_examples": ("examples", "d"),
    "quality": ("F", ".4f"),
    "standard_error": ("standard error", ".4f"),
    "originals": ("originals", "d"),
    "spread_of_originals": ("spread of originals", ".0%"),
    "factor": ("factor", ".2f"),
    "held": ("held", ".1%"),
    "held_as_given": ("held, as given", ".1%"),
    "jackknife": ("jackknife", ".0%"),
    "pairs_ordered": ("pairs in order", ".1%"),
    "rank_correlation": ("rank correlation", ".2f"),
    "rank_correlation_interval": ("95 % interval", ".2f"),
    "held_exact": ("held, exact truth", ".1%"),
    "one_original_high": ("from one original, at most", ".3f"),
    "four_originals_low": ("from four, at least", ".3f"),
    "four_originals_high": ("from four, at most", ".3f"),
    "competition_high": ("competition, at most", ".3f"),
    "one_original_interval": ("from one original", ".3f"),
    "four_originals_interval": ("from four", ".3f"),
    "competition": ("competition", ".4f"),
    "competition_interval": ("range", ".3f"),
    "full": ("full", ".4f"),
    "full_interval": ("range", ".3f"),
    "full_largest": ("full, N=40", ".4f"),
    "shift": ("shift", "+.2f"),
    "distance": ("size of shift", ".2f"),
    "spread": ("spread", ".2f"),
    "accuracy": ("accuracy", ".3f"),
    "quality_moved": ("F moved", ".4f"),
    "quality_widened": ("F widened", ".4f"),
    "quality_both": ("F both", ".4f"),
    "with_copy": ("F with a copy", ".4f"),
    "with_copy_interval": ("95 % interval", ".3f"),
    "without_copy": ("F without", ".4f"),
    "without_copy_interval": ("95 % interval", ".3f"),
    "share_higher": ("higher with a copy", ".0%"),
    "substitute_quality": ("F, one model", ".4f"),
    "substitute_score": ("score, one model", ".4f"),
    "substitute_score_interval": ("its range", ".4f"),
    "substitute_place_interval": ("place, one model", "d"),
    "models_quality": ("F, models", ".1%"),
    "models_score": ("score, models", ".1%"),
    "models_width": ("width, models", ".2f"),
    "both_quality": ("F, both", ".1%"),
    "both_score": ("score, both", ".1%"),
    "both_width": ("width, both", ".2f"),
    "truth": ("true F", ".4f"),
    "forecast": ("forecast", ".4f"),
    "bias": ("bias", "+.0%"),
    "error": ("error", ".2f"),
    "error_as_measured": ("error as measured", ".2f"),
    "inside": ("inside", ".0%"),
    "monte_carlo_error": ("Monte-Carlo error", ".1%"),
    "transcription_ms": ("transcription, ms", ".1f"),
    "ours_ms": ("ours, ms", ".3f"),
    "ratio": ("ratio", ".2f"),
    "plain_seconds": ("plain, s", ".3f"),
    "toolkit_seconds": ("toolkit, s", ".3f"),
    "batches_seconds": ("batches, s", ".3f"),
    "pictures_seconds": ("pictures, s", ".3f"),
    "cpu_ms": ("CPU, ms", ".1f"),
}

SMALL = 0.01  # with one decimal more


@dataclass(frozen=True)
class Results:
    """A table of measured numbers, and what it takes to read and to repeat it: a file below results/.

    Attributes:
        command, machine, date, versions: what made it, on which processor, when and with which software; machine
            and date are None where the numbers are quoted.
        n_models: N, the models behind each number; None where the table has a column of it or no models.
        notes: sentences that belong to the table, such as ties.
        columns, rows: the numbers as measured; a column X_low is followed by X_high.
    """

    command: str
    machine: str | None
    date: str | None
    versions: dict[str, str]
    n_models: int | None
    columns: list[str]
    rows: list[list[object]]
    notes: list[str] = field(default_factory=list)


def parser(study: str, doc: str, file: str = "") -> argparse.ArgumentParser:
    """Return a parser for `study`, such as "studies.coverage", with its docstring as help and ``--results``."""
    summary, _, details = doc.partition("\n")
    file = f"{file or study.partition('.')[2]}.json"
    made = argparse.ArgumentParser(
        prog=f"python -m {study}",
        description=summary,
        epilog=details.strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "--results", type=Path, default=RESULTS / file, metavar="FILE",
        help=f"where the numbers are written (default: results/{file})",
    )  # fmt: skip
    return made


def publish(
    study: str,
    path: Path,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    n_models: int | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Print the rows, and write them with where, when and how they were made.

    Raises:
        ValueError: there are none.
    """
    if not rows:
        raise ValueError("Nothing was measured, so nothing is written: is the run finished, with enough models?")
    here = store.environment()
    versions = {"python": platform.python_version()}
    versions |= {name: version for name, version in here.packages.items() if version}
    results = Results(
        command=shlex.join(["python", "-m", study, *sys.argv[1:]]),
        machine=f"{here.cores} cores of {here.processor}",
        date=datetime.now(timezone.utc).date().isoformat(),
        versions=versions,
        n_models=n_models,
        columns=list(columns),
        rows=[list(row) for row in rows],
        notes=list(notes),
    )
    header, *lines = cells(results)
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    for line in (header, *lines):
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    for note in results.notes:
        print(note)
    save(results, path)
    print(f"Written: {path}")


def exit_with(main: Callable[[], None]) -> NoReturn:
    """Run a study and leave; a user's mistake is one sentence."""
    try:
        main()
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")
    sys.exit(0)


def save(results: Results, path: Path) -> None:
    """Write results as JSON, one row a line."""
    parts = {part.name: getattr(results, part.name) for part in fields(Results)}
    rows = ",\n".join(f"    {json.dumps(row, ensure_ascii=False)}" for row in parts.pop("rows"))
    head = json.dumps(parts, indent=2, ensure_ascii=False).removesuffix("\n}")
    store.write_atomically(path, f'{head},\n  "rows": [\n{rows}\n  ]\n}}\n'.encode())


def load(path: Path) -> Results:
    """Read a file that `save` wrote."""
    return Results(**json.loads(path.read_text(encoding="utf-8")))


def cells(results: Results) -> list[list[str]]:
    """Return the header and the rows as text, columns X_low and X_high as one interval."""
    columns = list(_shown(results.columns))
    header = [COLUMNS.get(name, (name.replace("_", " "), ""))[0] for name, _ in columns]
    return [header, *([_cell(name, [row[i] for i in places]) for name, places in columns] for row in results.rows)]


def _shown(columns: Sequence[str]) -> Iterator[tuple[str, list[int]]]:
    for place, name in enumerate(columns):
        if name.endswith("_low"):
            yield f"{name.removesuffix('_low')}_interval", [place, place + 1]
        elif not name.endswith("_high"):
            yield name, [place]


def _cell(name: str, values: Sequence[object]) -> str:
    return " to ".join(dict.fromkeys(written(name, value) for value in values))


def written(name: str, value: object) -> str:
    """Return one value as it stands in its column.

    >>> written("score", 0.05), written("time_ratio", 0.2), written("pictures", 13068), written("score", None)
    ('0.0500', '20.0%', '13,068', '-')
    """
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return format(value, ",")
    form = COLUMNS.get(name, ("", ""))[1]
    return format(value, ".4f" if form == ".3f" and 0 < abs(value) < SMALL else form)
