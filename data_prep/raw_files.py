"""Raw files, in a folder or a zip: nothing is unpacked to disk, and nothing is read beyond its limit."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_prep.dataset import sha256_of


def read_file(path: Path, limit: int, what: str, repair: str) -> bytes:
    """Return the content of a file.

    Args:
        limit: the most that is accepted, bytes.
        what: names the file in an error.
        repair: the sentence that follows an error.

    Raises:
        ValueError: there is no such file, or it is too large.
    """
    if not path.is_file():
        raise ValueError(f"{what} does not exist. {repair}")
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(_too_large(what, path.stat().st_size, limit, repair))
    return data


@contextmanager
def open_source(source: Path, first: str, repair: str) -> Iterator[RawFiles]:
    """Open a zip, or the folder that it unpacks to, with or without one more folder around its content.

    Args:
        first: name of a file at the top of the content, by which it is found.
        repair: the sentence that follows an error.

    Raises:
        ValueError: `source` is neither, or does not hold `first` once.
    """
    if source.is_dir():
        yield Folder(source, first, repair)
        return
    if not source.is_file():
        raise ValueError(f"{source} does not exist: name the zip or its folder with --source. {repair}")
    try:
        archive = zipfile.ZipFile(source)
    except Exception as error:  # zipfile raises whatever the damaged bytes lead to
        raise ValueError(f"{source} is not a whole zip file ({error}). {repair}") from error
    with archive:
        yield Zip(source, archive, first, repair)


class Zip:
    """The files of a zip, named from the top of its content."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, first: str, repair: str):
        self.path, self.repair = path, repair
        self._archive = archive
        names = {member.filename for member in archive.infolist() if not member.is_dir()}
        places = [name for name in names if name.split("/")[-1] == first and name.count("/") <= 1]
        self._top = _one_place(path, places, first, repair).removesuffix(first)
        self._names = {name.removeprefix(self._top) for name in names if name.startswith(self._top)}

    def names(self, folder: str) -> set[str]:
        """Return the paths of the files below a folder, from there."""
        return {name.removeprefix(f"{folder}/") for name in self._names if name.startswith(f"{folder}/")}

    def read(self, name: str, limit: int, what: str | None = None) -> bytes:
        """Return the content of a file of at most `limit` bytes; `what` names it in an error."""
        what = what or name
        if name not in self._names:
            raise ValueError(f"{self.path} has no {name}. {self.repair}")
        member = self._archive.getinfo(self._top + name)
        if member.file_size > limit:
            raise ValueError(_too_large(what, member.file_size, limit, self.repair))
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            # The others unpack without a bound on memory.
            raise ValueError(f"{what} is packed with a method other than deflate. {self.repair}")
        try:
            with self._archive.open(member) as file:
                data = file.read(member.file_size)  # a size keeps the unpacking within it
                if len(data) < member.file_size:
                    raise EOFError("it ends early")
        except Exception as error:  # zipfile raises whatever the damaged bytes lead to
            raise ValueError(f"{what} cannot be unpacked from {self.path} ({error}). {self.repair}") from error
        return data

    def digests(self, names: list[str]) -> dict[str, str]:
        """Return the SHA-256 of the zip, which stands for all of its files."""
        return {self.path.name: sha256_of(self.path)}


class Folder:
    """The files of a folder, named from the top of its content."""

    def __init__(self, path: Path, first: str, repair: str):
        self.repair = repair
        places = [place.relative_to(path).as_posix() for place in (*path.glob(first), *path.glob(f"*/{first}"))]
        self.path = (path / _one_place(path, places, first, repair)).parent

    def names(self, folder: str) -> set[str]:
        """Return the paths of the files below a folder, from there."""
        top = self.path / folder
        return {path.relative_to(top).as_posix() for path in top.rglob("*") if path.is_file()}

    def read(self, name: str, limit: int, what: str | None = None) -> bytes:
        """Return the content of a file of at most `limit` bytes; `what` names it in an error."""
        what, path = what or name, self.path / name
        if not path.is_file():
            raise ValueError(f"{self.path} has no {name}. {self.repair}")
        if not path.resolve().is_relative_to(self.path.resolve()):
            raise ValueError(f"{what} is a link to a place outside {self.path}. Replace it by the file.")
        return read_file(path, limit, what, self.repair)

    def digests(self, names: list[str]) -> dict[str, str]:
        """Return the SHA-256 of each of `names`; for a folder, "NAME/", that of its files' hashes and names."""
        digests = {}
        for name in names:
            if name.endswith("/"):
                files = sorted(self.names(name[:-1]))
                lines = "".join(f"{sha256_of(self.path / name / file)} {file}\n" for file in files)
                digests[name] = hashlib.sha256(lines.encode()).hexdigest()
            else:
                digests[name] = sha256_of(self.path / name)
        return digests


RawFiles = Zip | Folder


def _one_place(source: Path, places: list[str], first: str, repair: str) -> str:
    if not places:
        raise ValueError(f"{source} has no {first}, neither at its top nor one folder down. {repair}")
    if len(places) > 1:
        raise ValueError(f"{source} has {' and '.join(sorted(places))}: name one data set with --source.")
    return places[0]


def _too_large(what: str, size: int, limit: int, repair: str) -> str:
    return f"{what} holds {size:,} bytes, more than the {limit:,} allowed. {repair}"
