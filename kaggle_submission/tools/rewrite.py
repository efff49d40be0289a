"""Fit a notebook for a rehearsal: the places of /kaggle, the 512 runs, and a GPU that is not there.

These are changes of text in code cells, each reported but those of places; all else runs as it is.
"""

from __future__ import annotations

import ast
from contextlib import suppress
from dataclasses import dataclass

from kaggle_submission.tools import counting
from kaggle_submission.tools.counting import RUNS, Number, Role
from local_scorer.execution import kaggle_input, syntax, without_gpu
from local_scorer.execution.syntax import Edit

WIDTH = 60  # of the code that a line shows


@dataclass(frozen=True)
class Fitted:
    """Code cells fitted for a rehearsal, and one line each for what was changed and for what was left in doubt."""

    cells: list[str]
    changes: list[str]
    doubts: list[str]


def fit(cells: list[str], scratch: str, runs: int, gpu: bool) -> Fitted:
    """Fit code cells for a rehearsal.

    Args:
        scratch: the folder that stands for the root of Kaggle's file system.
        runs: what stands for 512 where it counts runs.
        gpu: whether this machine has one; if so, the notebook may use it.

    Raises:
        ValueError: nowhere does 512 count runs in a way that is understood.

    >>> fitted = fit(["for i in range(512):\\n    unlearning(net, '/kaggle/tmp')"], "/scratch", 4, gpu=True)
    >>> fitted.cells, fitted.changes
    (["for i in range(4):\\n    unlearning(net, '/scratch/kaggle/tmp')"], ['cell 1: range(512) -> range(4)'])
    """
    trees = [_tree(cell) for cell in cells]
    numbers = counting.numbers(trees)
    doubts = [_doubt(cells, number) for number in numbers if number.role is Role.DOUBT]
    doubts += [
        f"cell {place} is not plain Python: it runs as it is."
        for place, (cell, tree) in enumerate(zip(cells, trees, strict=True), start=1)
        if tree is None and (str(RUNS) in cell or "cuda" in cell)
    ]
    if all(number.role is not Role.COUNTS for number in numbers):
        sentence = (
            f"No loop over {RUNS} runs was found. Write it as range({RUNS}), or give the number a name with RUNS."
        )
        raise ValueError(" ".join([sentence, *doubts]))
    imported = syntax.imported_names(filter(None, trees))
    fitted, changes = [], []
    for place, cell in enumerate(cells):
        counts = [number for number in numbers if number.cell == place and number.role is Role.COUNTS]
        found = [_change(cell, number, runs) for number in counts]
        cell = syntax.replaced(cell, [Edit.of(number.node, str(runs)) for number in counts])
        if not gpu:
            with suppress(SyntaxError, ValueError, RecursionError):  # a cell that is not Python runs as it is
                cell, replaced = without_gpu.rewritten(cell, imported)
                found += replaced
        changes += [f"cell {place + 1}: {change}" for change in found]
        fitted.append(kaggle_input.moved(cell, scratch))
    return Fitted(fitted, changes, doubts)


def _tree(cell: str) -> ast.Module | None:
    """Return the syntax tree of a cell, or None if it is not Python."""
    with suppress(SyntaxError, ValueError, RecursionError):
        return syntax.parse(cell)
    return None


def _change(cell: str, number: Number, runs: int) -> str:
    """Say what becomes of a number, with the code around it."""
    around = number.around
    if isinstance(around, ast.expr | ast.Assign | ast.AnnAssign) and around.lineno == around.end_lineno:
        before = syntax.old_text(cell, Edit.of(around, ""))
        first = len(
            cell.splitlines()[around.lineno - 1].encode()[around.col_offset : number.node.col_offset].decode()
        )
        if len(before) <= WIDTH:
            return f"{before} -> {before[:first]}{runs}{before[first + len(str(RUNS)) :]}"
    return f"line {number.node.lineno}: {RUNS} -> {runs}"


def _doubt(cells: list[str], number: Number) -> str:
    line = cells[number.cell].splitlines()[number.node.lineno - 1].strip()
    shown = line if len(line) <= WIDTH else line[:WIDTH] + "..."
    return f"cell {number.cell + 1}: {RUNS} stays in `{shown}`, where it may count runs or something else."
