"""Tune entries, all under one budget: random search over the space that an entry's page declares.

    python -m data_prep synthetic --seed 1 --out data/synthetic1
    python -m local_scorer reference make --data data/synthetic1 --seed 1 --models 64 --originals 4 --pack PACK
    python -m studies.tuning salun ssd --data data/synthetic1 --reference PACK

Trial 0 is the entry as published. The best score inside the limit wins, and the entry as published where no other
one is better. Each entry gets a file below results/tuning/, and its values stand in the preset `tuned`. A study
that was cut goes on where it was: finished runs are used again. Tune on data that you do not report.
"""

from __future__ import annotations

import ast
import math
import random
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from local_scorer import run
from local_scorer.execution import presets
from local_scorer.execution.entries import FOLDER, shipped_entries
from local_scorer.execution.local import LocalEngine
from local_scorer.report.board import Leaderboard
from local_scorer.report.rows import Row
from local_scorer.runs.pack import Pack
from local_scorer.runs.store import RunFolder
from studies import frame, variants
from studies.frame import RESULTS, ROOT

SPACE = re.compile(r"<!-- search space -->\n((?:\|.*\n)+)")
LINE = re.compile(r"\| `(\w+)` \| (?:`(.+)`|(\S+) to (\S+), (log|log odds|integer)) \|")
TOGETHER = 2  # entries on a board, so that they share the trainings for the clock
MARGIN = 0.19  # of retraining's time: a draw above it might be over the limit in another measurement
COLUMNS = (
    "trial", "settings", "score", "score_low", "score_high", "forgetting_quality", "forget_accuracy",
    "retain_ratio", "test_ratio", "time_ratio", "status", "chosen",
)  # fmt: skip


def main() -> None:
    """Tune entries in the order given, a few at a time."""
    parser = frame.parser("studies.tuning", __doc__, "tuning")
    parser.set_defaults(results=RESULTS / "tuning")
    add = parser.add_argument
    add("entries", nargs="*", metavar="ENTRY", help="names in kaggle_submission/ (default: all)")
    add("--data", type=Path, required=True, help="a prepared data set that is not reported")
    add("--reference", type=Path, required=True, metavar="PACK", help="a pack of that data")
    add("--originals", type=int, default=4, metavar="K")
    add("--models", type=int, default=3, metavar="N", help="runs from each original")
    add("--trials", type=int, default=8, help="of each entry, as published included")
    add("--seed", type=int, default=0, help="of the draws")
    add("--workers", type=int, default=0)
    add("--preset", type=Path, default=presets.PRESETS / "tuned.json", metavar="FILE", help="where the values go")
    add("--out", type=Path, default=Path("runs/tuning"), help="run folder")
    args = parser.parse_args()
    made = Pack(args.reference).header
    settings = run.Settings(
        args.data, n_models=args.models, n_originals=args.originals, reference=args.reference,
        recipe=made.recipe["name"], width=made.width, seed=made.seed,
    )  # fmt: skip
    names = args.entries or [path.stem for path in shipped_entries()]
    trials = {name: drawn(name, args.trials, args.seed) for name in names}  # a wrong space is found before any run
    folder = RunFolder(args.out)
    for start in range(0, len(names), TOGETHER):
        group = {name: trials[name] for name in names[start : start + TOGETHER]}
        files = [variants.written(trial, args.out / "trials") for each in group.values() for trial in each]
        with LocalEngine(folder, settings.device, args.workers) as engine:
            command = "python -m studies.tuning " + shlex.join(sys.argv[1:])
            board = run.run(settings, files, folder, engine, command, show_progress=False)
        for name, each in group.items():
            _keep(name, each, board, args.results, args.preset)


@dataclass(frozen=True)
class Range:
    """Where a setting is drawn: evenly on a scale between two ends, or from a few choices."""

    setting: str
    low: float = 0.0
    high: float = 0.0
    scale: str = ""
    choices: tuple[object, ...] = ()

    def holds(self, value: object) -> bool:
        """Say whether a value could be drawn."""
        return value in self.choices if self.choices else self.low <= value <= self.high

    def draw(self, generator: random.Random) -> object:
        """Return a value, numbers with three digits."""
        if self.choices:
            return generator.choice(self.choices)
        if self.scale == "integer":  # each as likely as the log of what rounds to it is wide
            return round(math.exp(generator.uniform(math.log(self.low - 0.49), math.log(self.high + 0.49))))
        if self.scale == "log":
            return float(f"{math.exp(generator.uniform(math.log(self.low), math.log(self.high))):.3g}")
        odds = [math.log(end / (1 - end)) for end in (self.low, self.high)]
        return float(f"{1 / (1 + math.exp(-generator.uniform(*odds))):.3g}")


def space(name: str) -> list[Range]:
    """Return the search space that the page of an entry declares.

    Raises:
        ValueError: it has none, or a line of it cannot be read.
    """
    page = ROOT / "docs" / "methods" / f"{name}.md"
    found = SPACE.search(page.read_text(encoding="utf-8")) if page.is_file() else None
    if not found:
        raise ValueError(f"{page.relative_to(ROOT)} has no search space: see docs/methods/README.md.")
    ranges = []
    for line in found[1].splitlines()[2:]:
        read = LINE.fullmatch(line)
        if not read:
            raise ValueError(f"{page.relative_to(ROOT)}: the search space has a line that cannot be read: {line}")
        setting, choices, low, high, scale = read.groups()
        if choices:
            ranges.append(Range(setting, choices=ast.literal_eval(f"({choices},)")))
        else:
            ranges.append(Range(setting, float(low), float(high), scale))
    return ranges


def drawn(name: str, n_trials: int, seed: int) -> list[str]:
    """Return the trials of an entry as variants, all different; the first one is the entry as published."""
    ranges, generator = space(name), random.Random(f"{seed}/{name}")
    trials = {name: None}
    for _ in range(100 * n_trials):  # few choices may have fewer combinations
        if len(trials) < n_trials:
            parts = [f"{part.setting}={part.draw(generator)}" for part in ranges]
            trials[" ".join([name, *parts])] = None
    return list(trials)


def chosen(rows: Sequence[Row]) -> int:
    """Return which trial wins: the best one inside the limit by a margin, or the first where none is better."""
    scores = [row.score or 0.0 for row in rows]
    allowed = [place for place, row in enumerate(rows) if place == 0 or (row.time_ratio or 1.0) <= MARGIN]
    return max(allowed, key=lambda place: scores[place])  # the first of equals


def table(trials: Sequence[str], rows: Sequence[Row], winner: int) -> Iterator[tuple[object, ...]]:
    """Yield a row for each trial: its settings, what it scored, and whether it is the chosen one."""
    for place, (trial, row) in enumerate(zip(trials, rows, strict=True)):
        status = f"{row.status}: {row.reason}" if row.status == "failed" else row.status
        values = (getattr(row, column) for column in COLUMNS[2:-2])
        yield (place, trial.partition(" ")[2] or "as published", *values, status, place == winner)


def _keep(name: str, trials: Sequence[str], board: Leaderboard, results: Path, preset: Path) -> None:
    """Write the trials of an entry, and the values of the chosen one into the preset."""
    of_trial = {row.entry: row for row in board.rows}
    rows = [of_trial[trial] for trial in trials]
    winner = chosen(rows)
    results.mkdir(parents=True, exist_ok=True)
    lines = list(table(trials, rows, winner))
    notes = [f"Each trial ran {board.n_models} times from each of {board.n_originals} originals."]
    frame.publish("studies.tuning", results / f"{name}.json", COLUMNS, lines, board.n_models, notes)
    source = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    values = presets.settings_of(presets.rewritten(source, variants.values_of(trials[winner])))
    values = {part: value for part, value in values.items() if value != presets.settings_of(source)[part]}
    known = presets.load(preset) if preset.is_file() else {}
    presets.save(preset, known | {name: values})


if __name__ == "__main__":
    frame.exit_with(main)
