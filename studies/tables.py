"""Write the tables and the figures in prose of README.md and docs/ from the data in results/.

    python -m studies.tables

A page marks where they go: everything up to the next ``end`` is replaced.

    <!-- table: builtin64 notebook --> ... <!-- end -->
    <!-- value: builtin64 | finetune | score --> ... <!-- end -->

A table is a file or a board below results/, or one of those that `TABLES` puts together. A value is named by
table, first cell of its row, and column.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from local_scorer.execution import presets
from local_scorer.runs.store import write_atomically
from studies import boards, frame
from studies.frame import RESULTS, ROOT, Results

ENTRIES = ROOT / "kaggle_submission"
MARK = re.compile(r"(<!-- (table|value): (.+?) -->)(.*?)(<!-- end -->)", re.DOTALL)
BOARDS = {  # those in the index of the methods
    "builtin-all": "[built-in, N=8 x 8](../results/builtin.md#all-entries)",
    "builtin-n512": "[built-in, N=4 x 512](../results/n512.md)",
    "mufac32": "[MUFAC, N=10](../results/mufac32.md)",
    "mufac32raw": "[MUFAC as published, N=10](../results/mufac32raw.md)",
}
CURVES = {  # rows of the table in docs/reading-a-score.md: shift and spread
    "perfect unlearning": (0.0, 1.0),
    "shift of 0.5 standard deviations": (0.5, 1.0),
    "shift of 1": (1.0, 1.0),
    "shift of 2": (2.0, 1.0),
    "spread of one half": (0.0, 0.5),
    "spread of twice": (0.0, 2.0),
}
CURVES_N = (10, 64, 512)


def main() -> None:
    """Write every table anew and name the pages that changed."""
    argparse.ArgumentParser(
        prog="python -m studies.tables",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    for path in pages():
        before = path.read_text(encoding="utf-8")
        after = filled(before)
        if after != before:
            write_atomically(path, after.encode())
            print(path.relative_to(ROOT))


def pages() -> list[Path]:
    """Return the pages that may hold tables."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def filled(page: str) -> str:
    """Return the text of a page with its tables and figures written anew.

    Raises:
        ValueError: a mark names something that does not exist.
    """

    def written(mark: re.Match[str]) -> str:
        text = value(mark[3]) if mark[2] == "value" else f"\n{table(mark[3])}\n"
        return mark[1] + text + mark[5]

    return MARK.sub(written, page)


def value(name: str) -> str:
    """Return one figure, such as that of "builtin64 | finetune | score"."""
    source, row, column = (part.strip() for part in name.split("|"))
    results = results_of(source)
    found = [line for line in results.rows if str(line[0]).removesuffix(boards.CHANGED) == row]
    if len(found) != 1 or column not in results.columns:
        raise ValueError(f"No single value {name!r} below results/.")
    return frame.written(column, found[0][results.columns.index(column)])


def table(name: str) -> str:
    """Return a table as Markdown, with a line below it that says how it was made."""
    first, *rest = name.split(" ")
    if first in TABLES:
        return TABLES[first](*rest)
    return markdown(results_of(name))


def results_of(name: str) -> Results:
    """Return a file or a board below results/, such as "coverage" or "builtin64 notebook"."""
    first, *rules = name.split(" ")
    if (RESULTS / first / "board.json").is_file():
        return boards.table(RESULTS / first, *rules)
    path = RESULTS / f"{first}.json"
    if not path.is_file():
        raise ValueError(f"There is neither {path} nor a board {first} in results/.")
    return frame.load(path)


def markdown(results: Results) -> str:
    """Return all rows of some results, and what made them."""
    made = [f"N={results.n_models}"] if results.n_models else []
    made += [part for part in (results.machine, results.date) if part]
    made += [f"torch {results.versions['torch']}"] if "torch" in results.versions else []
    said = f"{', '.join(made)}: `{results.command}`" if made else results.command
    parts = [grid(*frame.cells(results)), " ".join(results.notes), said[0].upper() + said[1:]]
    return "\n\n".join(part for part in parts if part)


def grid(header: Sequence[str], *rows: Sequence[str]) -> str:
    """Return a Markdown table, its columns of numbers to the right.

    >>> print(grid(["entry", "score"], ["ssd", "0.05"]))
    | entry | score |
    |---|--:|
    | ssd | 0.05 |
    """
    columns = list(zip(*rows, strict=True))
    rule = ["--:" if all(re.match(r"[-+\d]", cell) for cell in column) else "---" for column in columns]
    lines = [header, *rows]
    text = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines]
    return "\n".join([text[0], f"|{'|'.join(rule)}|", *text[1:]])


def of_method(name: str) -> str:
    """Return what one entry scored on every board that has it."""
    rows = [
        [f"{board.name}, {rules} rules", *row]
        for board in sorted(path.parent for path in RESULTS.glob("*/board.json"))
        for claim in boards.claims(board)
        if claim["entry"] in (name, presets.name_with(name, "tuned"))
        for rules, row in _scores(claim)
    ]
    if not rows:
        return "Not measured yet."
    header = ["board", "N", "score", "95 % interval", "of the ceiling", "F", "retain", "test", "time"]
    said = f"{boards.CHANGED} The entry's code has changed since." if any("†" in row[2] for row in rows) else ""
    return grid(header, *rows) + f"\n\nEach board with its conditions: [results](../README.md#results).{said}"


def _scores(claim: dict[str, object]) -> Iterator[tuple[str, list[str]]]:
    for rules, found in claim["rules"].items():
        score = frame.written("score", found["score"]) + (boards.CHANGED if boards.has_changed(claim) else "")
        ends = (found["score_low"], found["score_high"])
        interval = "-" if None in ends else " to ".join(frame.written("score_interval", end) for end in ends)
        parts = [("share_of_ceiling", found), ("forgetting_quality", found)]
        parts += [(part, claim) for part in ("retain_ratio", "test_ratio", "time_ratio")]
        rest = [frame.written(part, where[part]) for part, where in parts]
        n_originals = claim.get("n_originals", 1)
        n_models = str(claim["n_models"]) if n_originals == 1 else f"{n_originals} x {claim['n_models']}"
        yield rules, [n_models, score, interval, *rest]


def methods() -> str:
    """Return the index of the methods: what each does, where it comes from, and its official scores."""
    header = ["method", "what it does", "source", *BOARDS.values()]
    return grid(header, *(_method(path) for path in sorted(ENTRIES.glob("[!_]*.py"))))


def _method(path: Path) -> list[str]:
    about = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))).split("\n\n")
    does = re.split(r"(?<=[.])\s", " ".join(about[0].split()))[0]
    source = next((part for part in about if part.startswith("Source: ")), "Source: -")
    source = " ".join(source.removeprefix("Source: ").partition("\nResults: ")[0].split())
    cells = [f"[{path.stem}]({path.stem}.md)", does, source[:1].upper() + source[1:]]
    for board in BOARDS:
        file = RESULTS / board / f"{path.stem}.json"
        cells.append(next(_scores(boards.read(file)))[1][1] if file.is_file() else "-")
    return cells


def against_n() -> str:
    """Return F of simulated entries against N, from results/curves.json."""
    curves = results_of("curves")
    found = {(row[0], row[1], row[2]): row[3] for row in curves.rows}
    rows = [
        [name, *(frame.written("quality", found[(n_models, *case)]) for n_models in CURVES_N)]
        for name, case in CURVES.items()
    ]
    return grid(["F under the official rules", *(f"N = {n_models}" for n_models in CURVES_N)], *rows)


def across(*names: str) -> str:
    """Return the official scores of several boards side by side, with their intervals, best first on the last."""
    claims = [boards.claims(RESULTS / name) for name in names]
    found = [{claim["entry"]: next(_scores(claim))[1] for claim in each} for each in claims]
    order = [row[0].removesuffix(boards.CHANGED) for row in boards.table(RESULTS / names[-1]).rows]
    cells = [[f"{scores[entry][1]} ({scores[entry][2]})" for scores in found] for entry in order]
    header = [f"N={boards.about(RESULTS / name)['n_models']}" for name in names]
    return grid(["entry", *header], *([entry, *row] for entry, row in zip(order, cells, strict=True)))


def short(name: str) -> str:
    """Return a board without the parts of its scores, and of its notes only what explains a mark."""
    board = results_of(name)
    shown = ["entry", "score", "share_of_ceiling", "time_ratio"]
    places = [board.columns.index(column) for column in shown]
    rows = [[row[place] for place in places] for row in board.rows]
    notes = [note for note in board.notes if note.startswith(boards.CHANGED.strip())]
    return markdown(replace(board, columns=shown, rows=rows, notes=notes))


def beside_table1() -> str:
    """Return the entries of the report's Table 1 with what they have here, on the same split."""
    here = {claim["entry"]: claim for claim in boards.claims(RESULTS / "mufac32raw")}
    rows = []
    for name, *theirs in results_of("table1").rows:
        ours = here[name]
        row = [f"{number:.2f}" for number in theirs[:2]] + [f"{number:.4f}" for number in theirs[2:]]
        row += [f"{100 * ours[part]:.2f}" for part in ("retain_accuracy", "test_accuracy")]
        for rules in ("notebook", "official"):
            row += [f"{ours['rules'][rules][part]:.4f}" for part in ("forgetting_quality", "score")]
        rows.append([name, *row])
    header = ["entry", "retain %, report", "test %", "F", "score", "retain %, here", "test %"]
    return grid([*header, "F, notebook rules", "score", "F, official rules", "score"], *rows)


def tuned() -> str:
    """Return what tuning chose for each entry, and the scores as published and tuned: there, and on the board."""
    rows = []
    for path in sorted((RESULTS / "tuning").glob("*.json")):
        trials = frame.load(path)
        lines = [dict(zip(trials.columns, row, strict=True)) for row in trials.rows]
        (winner,) = (line for line in lines if line["chosen"])
        scored = sum(line["status"] == "scored" for line in lines)
        row = [f"[{path.stem}](../methods/{path.stem}.md)", f"{scored} of {len(lines)}", f"`{winner['settings']}`"]
        row += [frame.written("score", line["score"]) for line in (lines[0], winner)]
        for board, name in (("builtin-all", path.stem), ("builtin-tuned", presets.name_with(path.stem, "tuned"))):
            file = RESULTS / board / f"{name.replace(' ', '_')}.json"
            row.append(next(_scores(boards.read(file)))[1][1] if file.is_file() else "-")
        rows.append(row)
    header = ["entry", "scored", "chosen", "as published, there", "chosen, there", "as published, here"]
    all_entries, known = ENTRIES.glob("[!_]*.py"), RESULTS.glob("tuning/*.json")
    missing = {path.stem for path in all_entries} - {path.stem for path in known}
    said = f"Not tuned: {', '.join(sorted(missing))}." if missing else ""
    return "\n\n".join(filter(None, (grid([*header, "tuned, here"], *rows), said)))


def rooms() -> str:
    """Return the rooms of the house: what each is for, by its own words, and which others it imports."""
    rows = []
    for init in sorted(ROOT.glob("*/__init__.py")) + sorted(ROOT.glob("*/*/__init__.py")):
        room = init.parent.relative_to(ROOT)
        if room.parts[0] not in ("data_prep", "kaggle_submission", "local_scorer"):
            continue
        purpose = ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) or ""
        rows.append([f"`{room}/`", purpose.partition("\n\n")[0].replace("\n", " ")])
    return grid(["room", "what it is for"], *sorted(rows))


TABLES = {
    "across": across,
    "against-n": against_n,
    "beside-table1": beside_table1,
    "method": of_method,
    "methods": methods,
    "rooms": rooms,
    "short": short,
    "tuned": tuned,
}


if __name__ == "__main__":
    frame.exit_with(main)
