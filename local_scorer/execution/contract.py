"""The competition's contract: a file with ``unlearning(net, retain_loader, forget_loader, val_loader)``.

The function changes `net` in place; what it returns is ignored. Loading an entry runs its code, so only a
job's own process does it.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.abc
import importlib.util
import inspect
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import CodeType

from local_scorer.execution import cells, kaggle_input, syntax, without_gpu

ARGUMENTS = ("net", "retain_loader", "forget_loader", "val_loader")
SIZES = re.compile(  # what torch and numpy say where a number of classes or of features does not fit
    r"weight tensor should be defined|out of bounds|shapes? cannot be multiplied|size mismatch|must match the size"
    r"|not match|could not be broadcast|has shape \["
)
BATCHES = re.compile(  # what Python and torch say where a dict is taken for a tuple or a tensor, or has other keys
    r"KeyError|IndexError|ValueError: .*values to unpack"
    r"|(?:AttributeError|TypeError): .*\b(?:dict|str|string|slice)\b"
)


class EntryError(ValueError):
    """The file is not an entry. The message says what is wrong and how to mend it."""


def entry_name(path: Path | str) -> str:
    """Return the name that an entry has on the leaderboard: its file name without the suffix."""
    return Path(path).stem


def read_source(path: Path | str) -> str:
    """Return the text of an entry: of a file, or what `cells.entry_in` takes out of a notebook.

    Raises:
        EntryError: there is no such file, it is not a text file named ``*.py``, or no notebook with the function.
    """
    path = Path(path)
    if path.is_dir():
        raise EntryError(f"{path} is a folder: an entry is one file named *.py or *.ipynb.")
    if not path.is_file():
        raise EntryError(f"There is no entry file {path}.")
    if path.suffix == ".ipynb":
        try:
            return cells.entry_in(path)
        except ValueError as error:
            raise EntryError(str(error)) from error
    if path.suffix != ".py":
        raise EntryError(f"{path} is not a Python file: an entry is one file named *.py or *.ipynb.")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise EntryError(f"{path} is not UTF-8 text ({error}).") from error


def source_hash(source: str) -> str:
    """Return the SHA-256 of an entry's code, in hexadecimal: of its syntax tree without the module docstring.

    The module docstring, comments, blank lines, line breaks and the kind of quotes do not count, so that what a
    file says about itself can change without another measurement; an entry runs without it, so that ``__doc__`` is
    None and cannot decide anything. All else counts, the docstrings of functions
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


def load_entry(
    path: Path | str, digest: str | None = None, *, device: str = "cpu", root: Path | None = None
) -> Callable[..., object]:
    """Run the file, on "cpu" as `fitted` has it, and return its ``unlearning`` function.

    Args:
        digest: what `source_hash` must give; None to take the file as it is.
        root: the folder that stands for the root of Kaggle's file system, as `kaggle_input.write` makes it.

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
    text, _ = fitted(source, device)
    text = text if root is None else kaggle_input.moved(text, root)
    spec = importlib.util.spec_from_file_location("entry", path, loader=_TextLoader(source, text, path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    function = getattr(module, "unlearning", None)
    if not callable(function):
        raise EntryError(f"The file defines no function unlearning({', '.join(ARGUMENTS)}).")
    check_signature(function)
    return function


def fitted(source: str, device: str) -> tuple[str, list[str]]:
    """Return the text of an entry as it runs on a device, and what was changed: on "cpu", what asks for a GPU.

    The change follows from text and device alone, which are both part of a job's key.
    """
    try:
        return without_gpu.rewritten(source) if device == "cpu" else (source, [])
    except (SyntaxError, ValueError):
        return source, []  # loading it says what is wrong


def misnamed_loaders(source: str) -> str:
    """Return what is wrong with the order of the loaders, if names of parameters say so, or an empty text."""
    functions = [
        node
        for node in ast.walk(syntax.parse(source))
        if isinstance(node, ast.FunctionDef) and node.name == "unlearning"
    ]
    if not functions:
        return ""
    arguments = functions[-1].args
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)][1:4]
    kinds = ("retain", "forget", "val")
    for name, kind, expected in zip(names, kinds, ARGUMENTS[1:], strict=False):
        words = name.lower().split("_")
        said = [other for other in kinds if any(word.startswith(other) for word in words)]
        if said and kind not in said:
            return (
                f"The parameter {name!r} is given the {kind} loader: the order is "
                f"unlearning({', '.join(ARGUMENTS)}), whatever the names. Put {expected!r} in its place."
            )
    return ""


def import_packages(source: str) -> None:
    """Import what an entry imports by name, so that loading packages is not part of its time.

    Nothing of the entry itself runs. What cannot be imported is left to it, as it may catch the error.
    """
    try:
        nodes = [*ast.walk(syntax.parse(source))]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    for name in sorted(names):
        with warnings.catch_warnings(), contextlib.suppress(Exception):
            warnings.simplefilter("ignore")
            importlib.import_module(name)


class _TextLoader(importlib.abc.ExecutionLoader):
    """Load the text that was checked: not the file anew, nor a compiled copy that lies beside it."""

    def __init__(self, source: str, text: str, path: Path):
        self._source, self._text, self._path = source, text, path

    def get_source(self, fullname: str) -> str:
        return self._source

    def get_filename(self, fullname: str) -> str:
        return str(self._path)

    def get_code(self, fullname: str) -> CodeType:
        tree = ast.parse(self._text, str(self._path))
        if ast.get_docstring(tree, clean=False) is not None:
            del tree.body[0]  # it is not in the hash, so it must not be able to decide anything
        return compile(tree, str(self._path), "exec", dont_inherit=True)


def is_about_sizes(reason: str) -> bool:
    """Say whether an error is one of sizes that do not fit, as those of ten classes on a net of eight outputs.

    >>> is_about_sizes("RuntimeError: weight tensor should be defined either for all 8 classes or no classes")
    True
    """
    return SIZES.search(reason) is not None


def is_about_batches(reason: str) -> bool:
    """Say whether an error is one of code that expects batches of another form than the competition's dicts."""
    return BATCHES.match(reason) is not None


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
