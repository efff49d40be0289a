"""Score variants of entries: the same file with other values in its SETTINGS. For ablations and for tuning.

    python -m studies.variants "gisa LR=1e-4,1e-3 ADAPT=tensor,none" "finetune LR=1e-3" --data data/synthetic1

A variant is the name of an entry and the settings that differ; several values of a setting, with commas, give
every combination, and a comma inside round brackets belongs to its value. Finished runs of the same run folder
are used again. A pack has to be of the same data, recipe and width. Tune on data that you do not report. With
``--over-limit`` variants are scored as if there were no time limit, and end at twice the time of retraining.
"""

from __future__ import annotations

import ast
import itertools
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from local_scorer import run
from local_scorer.execution import presets
from local_scorer.execution.local import LocalEngine
from local_scorer.report.board import Leaderboard, collect
from local_scorer.runs.pack import Pack
from local_scorer.runs.record import Run
from local_scorer.runs.store import RunFolder, write_atomically
from studies import frame

COMMA = re.compile(r",(?![^(]*\))")  # between values, not inside the brackets of one
ENTRIES = Path(__file__).resolve().parent.parent / "kaggle_submission"
COLUMNS = (
    "variant", "score", "score_low", "score_high", "forgetting_quality", "forget_accuracy", "retain_ratio",
    "test_ratio", "time_ratio", "status",
)  # fmt: skip


def main() -> None:
    """Score the variants, best first."""
    parser = frame.parser("studies.variants", __doc__)
    parser.add_argument("variants", nargs="+", metavar="VARIANT", help='such as "gisa LR=1e-4,1e-3 ADAPT=none"')
    parser.add_argument("--data", type=Path, default=Path("data/synthetic"))
    parser.add_argument("--reference", type=Path, metavar="PACK", help="with originals and retrained models")
    parser.add_argument("--originals", type=int, default=1, metavar="K")
    parser.add_argument("--models", type=int, default=10, metavar="N", help="runs from each original")
    parser.add_argument("--recipe", default="quick")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--over-limit", action="store_true", help="score also what is over the time limit")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/variants"), help="run folder")
    args = parser.parse_args()
    seed = Pack(args.reference).header.seed if args.reference else 0
    settings = run.Settings(
        args.data, n_models=args.models, n_originals=args.originals, reference=args.reference, recipe=args.recipe,
        width=args.width, seed=seed, over_limit=args.over_limit,
    )  # fmt: skip
    folder = RunFolder(args.out)
    command = "python -m studies.variants " + shlex.join(sys.argv[1:])
    names = [name for text in args.variants for name in expanded(text)]
    files = [written(name, args.out / "variants") for name in names]
    with LocalEngine(folder, settings.device, args.workers) as engine:
        board = run.run(settings, files, folder, engine, command)
    if args.over_limit:
        board = collect(Run.open(folder), time_limit=False)
    notes = [f"Tie: {tie}" for tie in board.ties]
    if args.originals > 1:
        notes = [f"Each ran {args.models} times from each of {args.originals} originals.", *notes]
    notes += ["The time limit is left out."] if args.over_limit else []
    frame.publish("studies.variants", args.results, COLUMNS, list(rows(board)), board.n_models, notes)


def expanded(text: str) -> list[str]:
    """Return every combination of the values in `text`.

    >>> expanded("gisa LR=1e-4,1e-3 ADAPT=none")
    ['gisa LR=1e-4 ADAPT=none', 'gisa LR=1e-3 ADAPT=none']
    >>> expanded("forget_free_cycles CYCLES=(2,1,1,1)")
    ['forget_free_cycles CYCLES=(2,1,1,1)']

    Raises:
        ValueError: a part is not NAME=VALUE.
    """
    entry, *parts = text.split()
    choices = []
    for part in parts:
        name, equals, values = part.partition("=")
        if not equals or not values:
            raise ValueError(f"Expected NAME=VALUE after the entry's name, found {part!r}.")
        choices.append([f"{name}={value}" for value in COMMA.split(values)])
    return [" ".join([entry, *combination]) for combination in itertools.product(*choices)]


def written(variant: str, folder: Path) -> Path:
    """Write the file of one variant, such as "gisa LR=1e-3", into `folder` and return its path.

    Raises:
        ValueError: there is no such entry, or it has no such setting.
    """
    entry = variant.split()[0]
    original = ENTRIES / f"{entry}.py"
    if not original.is_file():
        raise ValueError(f"There is no entry {entry!r} in {ENTRIES.name}/.")
    try:
        source = presets.rewritten(original.read_text(encoding="utf-8"), values_of(variant))
    except ValueError as error:
        raise ValueError(f"{original.name} has {error}.") from error
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{variant}.py"
    write_atomically(path, source.encode())
    return path


def values_of(variant: str) -> dict[str, str]:
    """Return the settings of a variant as they stand in Python.

    >>> values_of("gisa LR=1e-3 ADAPT=none")
    {'LR': '1e-3', 'ADAPT': "'none'"}
    """
    parts = (part.partition("=") for part in variant.split()[1:])
    return {name: literal(value) for name, _, value in parts}


def literal(text: str) -> str:
    """Return `text` as it stands in a Python file: as a number, True, False or None, else as a string.

    >>> literal("1e-3"), literal("True"), literal("none")
    ('1e-3', 'True', "'none'")
    """
    try:
        ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return repr(text)
    return text


def rows(board: Leaderboard) -> Iterator[tuple[object, ...]]:
    """Yield a row for each variant: its score with the interval over models, and what it is made of."""
    for row in board.rows:
        status = f"{row.status}: {row.reason}" if row.status == "failed" else row.status
        yield (row.entry, *(getattr(row, column) for column in COLUMNS[1:-1]), status)


if __name__ == "__main__":
    frame.exit_with(main)
