"""The competition's contract: a file with ``unlearning(net, retain_loader, forget_loader, val_loader)``.

The function changes `net` in place; what it returns is ignored. Loading an entry runs its code, so only a
job's own process does it.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.abc
import importlib.util
import inspect
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

ARGUMENTS = ("net", "retain_loader", "forget_loader", "val_loader")


class EntryError(ValueError):
    """The file is not an entry. The message says what is wrong and how to mend it."""


def entry_name(path: Path | str) -> str:
    """Return the name that an entry has on the leaderboard: its file name without the suffix."""
    return Path(path).stem


def read_source(path: Path | str) -> str:
    """Return the text of an entry file.

    Raises:
        EntryError: there is no such file, or it is not a text file named ``*.py``.
    """
    path = Path(path)
    if path.is_dir():
        raise EntryError(f"{path} is a folder: an entry is one file named *.py.")
    if not path.is_file():
        raise EntryError(f"There is no entry file {path}.")
    if path.suffix != ".py":
        raise EntryError(f"{path} is not a Python file: an entry is one file named *.py.")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise EntryError(f"{path} is not UTF-8 text ({error}).") from error


def source_hash(source: str) -> str:
    """Return the SHA-256 of an entry's code, in hexadecimal: of its syntax tree without the module docstring.

    The module docstring, comments, blank lines, line breaks and the kind of quotes do not count, so that what a
    file says about itself can change without another measurement. All else counts, the docstrings of functions
    and classes too. A file that does not parse is hashed by its text.

    >>> source_hash("'A method.'\\nx = 1  # one") == source_hash("x = 1")
    True
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "\d" in a plain string warns when it is parsed
            tree = ast.parse(source)
        if ast.get_docstring(tree, clean=False) is not None:
            del tree.body[0]
        code = _canonical(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        code = source
    return hashlib.sha256(code.encode(errors="surrogatepass")).hexdigest()


def _canonical(value: object) -> str:
    """Return a syntax tree as text, without the empty fields that differ between versions of Python."""
    if isinstance(value, ast.AST):
        fields = ((name, field) for name, field in ast.iter_fields(value) if field is not None and field != [])
        return f"{type(value).__name__}({', '.join(f'{name}={_canonical(field)}' for name, field in fields)})"
    if isinstance(value, list):
        return f"[{', '.join(map(_canonical, value))}]"
    return repr(value)


def load_entry(path: Path | str, digest: str | None = None) -> Callable[..., object]:
    """Run the file and return its ``unlearning`` function.

    Args:
        digest: what `source_hash` must give; None to take the file as it is.

    Raises:
        EntryError: the file has no such function, or the function does not take the contract's arguments.
        Exception: whatever the entry's own top-level code raises.
    """
    path = Path(path)
    source = read_source(path)
    if digest is not None and source_hash(source) != digest:
        raise EntryError(
            f"{path}, the copy of the entry that is run, was changed while the run was under way, which only an "
            "entry can have done. Nothing of it was run: start the command again without that entry."
        )
    spec = importlib.util.spec_from_file_location("entry", path, loader=_TextLoader(source, path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    function = getattr(module, "unlearning", None)
    if not callable(function):
        raise EntryError(f"The file defines no function unlearning({', '.join(ARGUMENTS)}).")
    check_signature(function)
    return function


class _TextLoader(importlib.abc.ExecutionLoader):
    """Load the text that was checked: not the file anew, nor a compiled copy that lies beside it."""

    def __init__(self, source: str, path: Path):
        self._source, self._path = source, path

    def get_source(self, fullname: str) -> str:
        return self._source

    def get_filename(self, fullname: str) -> str:
        return str(self._path)


def check_signature(function: Callable[..., object]) -> None:
    """Check that `function` can be called as the competition's loop called it: four arguments by position.

    Raises:
        EntryError: it cannot.
    """
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise EntryError("unlearning is a coroutine or generator: calling it runs nothing. Write a function.")
    try:
        signature = inspect.signature(function)
    except ValueError:
        raise EntryError("unlearning has no signature that can be read. Write a plain function.") from None
    try:
        signature.bind(*ARGUMENTS)
    except TypeError as error:
        raise EntryError(
            f"Wrong signature unlearning{signature}: it must be callable as "
            f"unlearning({', '.join(ARGUMENTS)}) ({error})."
        ) from None
