"""Folders that appear whole: written under a private name, and renamed when everything is in them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_prep.options import OptionError


class FolderTakenError(OSError):
    """Something came to lie where a folder was to appear."""


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Yield an empty folder beside `out` that becomes `out` when the block ends without an error.

    Raises:
        FolderTakenError: by then `out` is a file, or a folder with something in it; it stays as it is.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.partial-", dir=out.parent))
    try:
        yield partial
        partial.chmod(0o755)  # mkdtemp makes it private
        _rename(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _rename(partial: Path, out: Path) -> None:
    try:
        partial.rename(out)  # replaces an empty folder, and nothing else
    except OSError:
        if out.exists():
            raise FolderTakenError(f"{out} already exists.") from None
        raise


def refuse_full(out: Path, unless_it_has: str | None = None) -> None:
    """Refuse a folder that cannot be written: a file, below a file, or with something in it.

    Args:
        unless_it_has: name of a file that makes a full folder acceptable.

    Raises:
        OptionError: `out` is no place for a new folder.
    """
    another = "name a folder that does not exist yet with --out"
    for place in (out, *out.parents):
        if place.exists() and not place.is_dir():
            raise OptionError(f"{place} is a file; {another}.")
    if out.is_dir() and any(out.iterdir()) and not (unless_it_has and (out / unless_it_has).is_file()):
        raise OptionError(f"{out} already holds other files; {another}.")
