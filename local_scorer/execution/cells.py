"""Read a Jupyter notebook, and take an entry out of it: ``unlearning`` with what it needs, and nothing else."""

from __future__ import annotations

import ast
import builtins
import json
import symtable
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_scorer.execution import syntax

CELL_TYPES = ("code", "markdown", "raw")
PLAIN = (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Import, ast.ImportFrom, ast.Pass, ast.Raise, ast.Assert)
BUILT_IN = frozenset(dir(builtins))


def read(path: Path) -> dict[str, Any]:
    """Return a notebook, whose cells all have a type, a source that is one text, and metadata.

    Raises:
        ValueError: the file is no notebook in format 4.
    """
    if not path.is_file():
        raise ValueError(f"There is no notebook {path}.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a Jupyter notebook ({error}).") from error
    if not isinstance(content, dict) or content.get("nbformat") != 4 or not isinstance(content.get("cells"), list):
        raise ValueError(f"{path} is not a Jupyter notebook in format 4.")
    cells = [_cell(path, number, cell) for number, cell in enumerate(content["cells"], start=1)]
    metadata = content.get("metadata")
    return {
        "nbformat_minor": 4,
        **content,
        "metadata": metadata if isinstance(metadata, dict) else {},
        "cells": cells,
    }


def code_of(content: dict[str, Any]) -> list[str]:
    """Return the text of each code cell."""
    return [cell["source"] for cell in content["cells"] if cell["cell_type"] == "code"]


def entry_in(path: Path) -> str:
    """Return ``unlearning`` of a notebook with the imports, constants, functions and classes that it needs.

    They stand in the notebook's order, each below a comment with the number of its code cell. What lies in an
    ``if`` is taken out of it; of two definitions the last one counts. A cell that is not Python is left out.

    Raises:
        ValueError: the file is no notebook, or defines no ``unlearning``.
    """
    pieces = list(_pieces(code_of(read(path))))
    if not any("unlearning" in piece.defines for piece in pieces):
        raise ValueError(f"{path} defines no function unlearning().")
    wanted, chosen = ["unlearning"], {number for number, piece in enumerate(pieces) if piece.always}
    wanted += sorted(set().union(*(pieces[number].needs for number in chosen)))
    seen = set()
    while wanted:
        name = wanted.pop()
        if name in seen or name in BUILT_IN:
            continue
        seen.add(name)
        for number in _that_define(name, pieces):
            chosen.add(number)
            wanted += sorted(pieces[number].needs)
    ordered = sorted(chosen, key=lambda number: (not pieces[number].future, number))
    return "\n\n".join(f"# cell {pieces[number].cell}\n{pieces[number].text}" for number in ordered) + "\n"


@dataclass(frozen=True)
class _Piece:
    """A statement of a notebook.

    Attributes:
        defines: the names that it gives a meaning, or changes.
        needs: the global names that it uses, at once or when it is called.
        final: a function, a class or an import, which stands for itself whatever was said before.
        always: it may define any name, or none that can be seen.
    """

    cell: int
    text: str
    defines: frozenset[str]
    needs: frozenset[str]
    final: bool
    always: bool
    future: bool


def _cell(path: Path, number: int, cell: object) -> dict[str, Any]:
    source = cell.get("source") if isinstance(cell, dict) else None
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        source = "".join(source)
    if not isinstance(source, str) or cell.get("cell_type") not in CELL_TYPES:
        raise ValueError(
            f"{path}: cell {number} has no text or no type that is known. Open the notebook in Jupyter and save "
            "it, or delete the cell."
        )
    metadata = cell.get("metadata")
    return {**cell, "source": source, "metadata": metadata if isinstance(metadata, dict) else {}}


def _pieces(cells: list[str]) -> Iterator[_Piece]:
    for number, text in enumerate(cells, start=1):
        try:
            tree = syntax.parse(text)
        except (SyntaxError, ValueError):
            continue
        for node in _statements(tree.body):
            yield _piece(number, node)


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Give the definitions in a body, out of the conditions and loops that they stand in.

    What only sets names, as the choice of a device and the reading of a file do, or only raises, stays whole.
    """
    for node in body:
        if isinstance(node, ast.If | ast.Try) and not _is_plain(node):
            for block in (node.body, *(handler.body for handler in getattr(node, "handlers", ())), node.orelse):
                yield from _statements(block)
        elif isinstance(node, ast.With) and not _is_plain(node):
            yield from _statements(node.body)
        elif not isinstance(node, ast.Expr | ast.For | ast.While | ast.Raise | ast.Assert | ast.Delete):
            yield node


def _is_plain(node: ast.stmt) -> bool:
    """Say whether a statement sets names and does nothing else but stop."""
    if isinstance(node, ast.If):
        return all(map(_is_plain, (*node.body, *node.orelse)))
    if isinstance(node, ast.With):  # with open(...) as file: settings = json.load(file)
        return all(map(_is_plain, node.body))
    if isinstance(node, ast.Try):
        handlers = [inner for handler in node.handlers for inner in handler.body]
        return all(map(_is_plain, (*node.body, *handlers, *node.orelse, *node.finalbody)))
    return isinstance(node, PLAIN) or (isinstance(node, ast.Expr) and _is_print(node.value))


def _is_print(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) or (isinstance(node, ast.Call) and ast.unparse(node.func) == "print")


def _piece(cell: int, node: ast.stmt) -> _Piece:
    text = ast.unparse(node)
    table = symtable.symtable(text, "cell", "exec")
    future = isinstance(node, ast.ImportFrom) and node.module == "__future__"
    changed = {  # config["lr"] = 3 and config.lr = 3 change what config stands for
        part.id
        for target in getattr(node, "targets", [getattr(node, "target", None)])
        if isinstance(target, ast.Subscript | ast.Attribute)
        for part in ast.walk(target)
        if isinstance(part, ast.Name)
    }
    return _Piece(
        cell=cell,
        text=text,
        defines=frozenset({symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned()} | changed)
        | frozenset({symbol.get_name() for symbol in table.get_symbols() if symbol.is_imported()}),
        needs=frozenset(_global_names(table)),
        final=isinstance(node, ast.FunctionDef | ast.ClassDef),
        always=future or (isinstance(node, ast.ImportFrom) and node.names[0].name == "*"),
        future=future,
    )


def _global_names(table: symtable.SymbolTable) -> Iterator[str]:
    at_top = table.get_type() == "module"
    for symbol in table.get_symbols():
        used = symbol.is_referenced() and (at_top or symbol.is_global())
        if used or symbol.is_declared_global():
            yield symbol.get_name()
    for child in table.get_children():
        yield from _global_names(child)


def _that_define(name: str, pieces: list[_Piece]) -> list[int]:
    """Return the pieces that say what a name stands for: all of them, or from its last definition on."""
    found = [number for number, piece in enumerate(pieces) if name in piece.defines]
    definitions = [number for number in found if pieces[number].final]
    return [number for number in found if number >= definitions[-1]] if definitions else found
