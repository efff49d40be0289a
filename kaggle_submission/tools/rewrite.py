"""Fit a notebook for a rehearsal: the places of /kaggle, the 512 runs, and a GPU that is not there.

These are changes of text in code cells, each reported; all else runs as it is.
"""

from __future__ import annotations

import ast
import re
from contextlib import suppress

from local_scorer.execution import kaggle_input, syntax, without_gpu

RUNS = 512  # what the competition asks for

# The number 512 where it counts runs: as a range, in a comparison, or in a name that says so. It may also be a
# batch size or the features of a ResNet-18, which stay.
COUNTS = (
    (r"(range\(\s*(?:\w+\s*,\s*)?)512(\s*(?:,\s*1\s*)?\))", r"\g<1>{runs}\g<2>"),
    (r"([!=]=|[<>]=?)(\s*)512\b", r"\g<1>\g<2>{runs}"),
    (r"\b512(\s*(?:[!=]=|[<>]=?))", r"{runs}\g<1>"),
    (
        r"(?im)^(\s*(?!\w*(?:dim|size|batch|width|hidden|channel|feature|seed))"
        r"(?:n|num|\w*(?:runs?|models?|checkpoints?|ckpts?|submissions?)\w*)\s*(?::\s*\w+\s*)?=\s*)512\b",
        r"\g<1>{runs}",
    ),
    (
        r"(?i)([(,]\s*(?:n|num|\w*(?:runs?|n_models?|num_models?|checkpoints?|ckpts?))\s*(?::\s*\w+\s*)?=\s*)512\b",
        r"\g<1>{runs}",
    ),
)


def fit(cells: list[str], scratch: str, runs: int, gpu: bool) -> tuple[list[str], list[str]]:
    """Return the code cells fitted for a rehearsal, and one line for each change but those of places.

    Args:
        scratch: the folder that stands for the root of Kaggle's file system.
        runs: what stands for 512.
        gpu: whether this machine has one; if so, the notebook may use it.

    Raises:
        ValueError: no cell says 512 in a way that is understood.

    >>> fit(["for i in range(512): f'/kaggle/tmp/{i}'"], "/scratch", 4, gpu=True)
    (["for i in range(4): f'/scratch/kaggle/tmp/{i}'"], ['cell 1: range(512) -> range(4)'])
    """
    counts = [(pattern, text.format(runs=runs)) for pattern, text in COUNTS]
    without_comments = [re.sub(r"(?m)#.*$", "", cell) for cell in cells]
    if not any(re.search(pattern, cell) for pattern, _ in counts for cell in without_comments):
        raise ValueError(
            f"No loop over {RUNS} runs was found. Write it as range({RUNS}), or give the number a name with RUNS."
        )
    imported = syntax.imported_names(filter(None, map(_tree, cells)))
    fitted, changes = [], []
    for number, cell in enumerate(cells, start=1):
        found = []
        for pattern, text in counts:
            cell, replaced = _replaced(cell, pattern, text)
            found += replaced
        if not gpu:
            with suppress(SyntaxError, ValueError, RecursionError):  # a cell that is not Python runs as it is
                cell, replaced = without_gpu.rewritten(cell, imported)
                found += replaced
        changes += [f"cell {number}: {change}" for change in found]
        fitted.append(kaggle_input.moved(cell, scratch))
    return fitted, changes


def _tree(cell: str) -> ast.Module | None:
    """Return the syntax tree of a cell, or None if it is not Python."""
    with suppress(SyntaxError, ValueError, RecursionError):
        return syntax.parse(cell)
    return None


def _replaced(cell: str, pattern: str, text: str) -> tuple[str, list[str]]:
    changes = []

    def replace(match: re.Match) -> str:
        new = match.expand(text)
        changes.append(f"{match[0].strip()} -> {new.strip()}")
        return new

    return re.sub(pattern, replace, cell), changes
