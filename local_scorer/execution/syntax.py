"""Python text and its syntax tree: what stands where, and the same text with some of it replaced."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

MAGIC = re.compile(r"^(\s*)[%!].*$", re.MULTILINE)
PYTHON_MAGICS = ("%%time", "%%timeit", "%%capture")  # what follows them in the cell is Python


@dataclass(frozen=True)
class Edit:
    """A piece of a text, between places (line, column in bytes) as in a syntax tree, and what replaces it."""

    start: tuple[int, int]
    end: tuple[int, int]
    new: str

    @classmethod
    def of(cls, node: ast.expr, new: str) -> Edit:
        return cls((node.lineno, node.col_offset), end_of(node), new)


def parse(text: str) -> ast.Module:
    """Return the syntax tree of a file, or of a notebook's cell, whose magic lines count as ``pass``.

    Raises:
        SyntaxError, ValueError: it is not Python.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "\\d" in a plain string warns when it is parsed
        try:
            return ast.parse(text)
        except SyntaxError:
            if text.lstrip().startswith("%%") and not text.lstrip().startswith(PYTHON_MAGICS):
                raise
            return ast.parse(MAGIC.sub(r"\1pass", text))


def end_of(node: ast.expr) -> tuple[int, int]:
    """Return where a node ends."""
    return node.end_lineno, node.end_col_offset


def replaced(text: str, edits: Iterable[Edit]) -> str:
    """Return the text with its edits made; line numbers stay."""
    lines = [line.encode() for line in text.splitlines(keepends=True)]
    for edit in sorted(edits, key=lambda edit: edit.start, reverse=True):
        (first, left), (last, right) = edit.start, edit.end
        missing = last - first - edit.new.count("\n")
        new = f"({edit.new}" + "\n" * missing + ")" if missing else edit.new
        changed = lines[first - 1][:left] + new.encode() + lines[last - 1][right:]
        lines[first - 1 : last] = changed.splitlines(keepends=True)
    return b"".join(lines).decode()


def old_text(text: str, edit: Edit) -> str:
    """Return what an edit replaces, on one line."""
    lines = [line.encode() for line in text.splitlines(keepends=True)]
    (first, left), (last, right) = edit.start, edit.end
    if first == last:
        return lines[first - 1][left:right].decode()
    parts = [lines[first - 1][left:], *lines[first : last - 1], lines[last - 1][:right]]
    return " ".join(b"".join(parts).decode().split())


def imported_names(trees: Iterable[ast.AST]) -> dict[str, str]:
    """Return what imports call something else than its full name: ``{"nn": "torch.nn"}``."""
    full = {}
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                full |= {alias.asname: alias.name for alias in node.names if alias.asname}
            elif isinstance(node, ast.ImportFrom):
                full |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return full


def full_name(node: ast.expr, imported: dict[str, str]) -> str:
    """Return the full name of ``a.b.c``; an empty string for any other expression."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([imported.get(node.id, node.id), *reversed(parts)])
