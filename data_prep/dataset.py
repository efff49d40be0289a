"""The prepared dataset: written once, atomically, and read by everything after it.

A prepared dataset is a folder with three files:

- ``images.npy``: uint8 ``[n, 3, H, W]``, memory-mappable
- ``examples.csv``: one row a picture (row i is image i), columns ``COLUMNS``
- ``manifest.json``: what it is, where it came from, the SHA-256 of the other two, and a hash of itself

Writing it twice from the same input gives the same bytes. It appears under its name only when all three
files are complete, so a folder with a manifest is a whole data set.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_prep import folders, tables
from data_prep import manifest as manifests
from data_prep.manifest import HASHED_FILES, SPLITS

if TYPE_CHECKING:  # pandas takes longer to import than a job needs to read its data
    import pandas as pd

COLUMNS = ("image_id", "person_id", "age_group", "age", "split", "source")
OLDEST = 999  # years
MOST_CSV_BYTES = 256 << 20
_NPY_START = b"\x93NUMPY\x01\x00"
_NPY_HEADER = re.compile(
    rb"\{'descr': '\|u1', 'fortran_order': False, "
    rb"'shape': \(([1-9]\d{0,9}), 3, ([1-9]\d{0,4}), ([1-9]\d{0,4})\), \} *\n"
)


@dataclass(frozen=True)
class PreparedDataset:
    """A prepared dataset, opened for reading.

    Attributes:
        folder: where it lies.
        images: uint8 ``[n, 3, H, W]``, memory-mapped and read-only.
        columns: an array ``[n]`` for each of ``COLUMNS``: ``age_group``, in ``[0, n_classes)``, and ``age`` are
            int64, the others hold str.
        manifest: the content of ``manifest.json``.
    """

    folder: Path
    images: np.ndarray
    columns: Mapping[str, np.ndarray]
    manifest: dict[str, Any]

    @cached_property
    def examples(self) -> pd.DataFrame:
        """The columns as a table, one row an image."""
        import pandas as pd

        return pd.DataFrame(dict(self.columns))

    @property
    def name(self) -> str:
        return self.manifest["name"]

    @property
    def class_names(self) -> list[str]:
        return self.manifest["class_names"]

    @property
    def n_classes(self) -> int:
        return len(self.class_names)

    @property
    def size(self) -> int:
        """Height and width of a picture, in pixels."""
        return int(self.images.shape[-1])

    @property
    def fingerprint(self) -> str:
        """Hash of the whole manifest, and so of pictures, rows, names, settings, seed and sources."""
        return manifests.content_hash(self.manifest)

    def rows(self, split: str) -> np.ndarray:
        """Return the row numbers of one split, int64 ``[n_split]``, ascending."""
        if split not in SPLITS:
            raise ValueError(f"Unknown split {split!r}: expected one of {', '.join(SPLITS)}.")
        return np.flatnonzero(self.columns["split"] == split)

    def labels(self, split: str) -> np.ndarray:
        """Return the age groups of one split, int64 ``[n_split]``, in the order of `rows`."""
        return self.columns["age_group"][self.rows(split)]


def write(
    out: Path | str,
    *,
    images: np.ndarray,
    examples: pd.DataFrame,
    name: str,
    class_names: list[str],
    settings: dict[str, Any],
    seed: int,
    sources: dict[str, str],
    audit: dict[str, Any] | None = None,
    extra_files: dict[str, bytes] | None = None,
) -> Path:
    """Write a prepared dataset to the folder `out`, which appears only once it is whole.

    Args:
        images: uint8 ``[n, 3, H, W]``.
        examples: ``[n]`` rows with the columns ``COLUMNS``; row i belongs to image i.
        settings: the command's settings, without paths.
        sources: name of each raw file and its SHA-256.
        audit: what was found in the raw files, for the manifest.
        extra_files: further small files to put beside the three, by name.

    Returns:
        `out`. If `out` already holds exactly this data set, nothing is written.

    Raises:
        ValueError: the arrays do not fit together, or `out` already holds something else.
    """
    out = Path(out)
    _check_arrays(images, examples)
    folders.refuse_full(out, unless_it_has="manifest.json")
    described = {"name": name, "class_names": list(class_names)}
    origin = {"settings": settings, "seed": seed, "sources": sources, "audit": audit}
    try:
        with folders.whole_folder(out) as partial:
            np.save(partial / "images.npy", np.ascontiguousarray(images))
            examples.to_csv(partial / "examples.csv", columns=list(COLUMNS), index=False, lineterminator="\n")
            for file_name, data in (extra_files or {}).items():
                (partial / file_name).write_bytes(data)
            counted = _count(partial, len(class_names))
            manifest = manifests.to_bytes({"schema": manifests.SCHEMA, **described, **counted, **origin})
            (partial / "manifest.json").write_bytes(manifest)
    except folders.FolderTakenError as error:
        if _holds(out, manifest):
            return out
        raise ValueError(
            f"{out} already holds another data set. Name another folder with --out, or delete it first."
        ) from error
    return out


def load(folder: Path | str) -> PreparedDataset:
    """Open a prepared dataset. Checks everything but the hashes of pictures and rows (see `verify`).

    Raises:
        ValueError: the folder is missing, damaged, not a prepared dataset, or of another schema version.
    """
    folder = Path(folder)
    if not (folder / "manifest.json").is_file():
        raise ValueError(
            f"{folder} is not a prepared dataset: it has no manifest.json. Make one with "
            "'python -m data_prep synthetic --out DIR' or 'python -m data_prep mufac --source ZIP --out DIR'."
        )
    manifest = manifests.read(folder / "manifest.json")
    try:
        images, columns = _open_files(folder, len(manifest["class_names"]))
    except (OSError, ValueError) as error:
        fault = f"{error}." if isinstance(error, OSError) else str(error)
        raise ValueError(f"{folder} is damaged: {fault} Delete {folder} and prepare it again.") from error
    return PreparedDataset(folder, images, columns, manifest)


def sha256_of(path: Path | str) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _check_arrays(images: np.ndarray, examples: pd.DataFrame) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images must be uint8 [n, 3, H, W], found {images.dtype} {list(images.shape)}.")
    missing = [column for column in COLUMNS if column not in examples.columns]
    if missing:
        raise ValueError(f"examples lacks the column(s) {', '.join(missing)}.")
    if not len(images):
        raise ValueError("There are no images.")


def _count(folder: Path, n_classes: int) -> dict[str, Any]:
    """Read the files that were written and describe them for the manifest.

    Raises:
        ValueError: what was written could not be read again.
    """
    images, columns = _open_files(folder, n_classes)
    groups = {split: columns["split"] == split for split in SPLITS}
    return {
        "n_images": len(images),
        "image_shape": list(images.shape[1:]),
        "counts": {
            split: np.bincount(columns["age_group"][rows], minlength=n_classes).tolist()
            for split, rows in groups.items()
        },
        "people": {split: len(set(columns["person_id"][rows])) for split, rows in groups.items()},
        "sha256": {name: sha256_of(folder / name) for name in HASHED_FILES},
    }


def _holds(out: Path, manifest: bytes) -> bool:
    """Say whether `out` is the data set of this manifest, with its pictures and rows."""
    try:
        if (out / "manifest.json").read_bytes() != manifest:
            return False
        hashes = manifests.read(out / "manifest.json")["sha256"]
        return all(sha256_of(out / name) == digest for name, digest in hashes.items())
    except OSError:
        return False


def _open_files(folder: Path, n_classes: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Open pictures and rows; check that they fit together."""
    images = _map_images(folder / "images.npy")
    columns = _read_columns(folder / "examples.csv", n_classes)
    if len(images) != len(columns["image_id"]):
        n_rows = len(columns["image_id"])
        raise ValueError(f"{len(images)} images but {n_rows} rows: row i must belong to image i.")
    return images, columns


def _map_images(path: Path) -> np.ndarray:
    """Map the pictures into memory. The header may only be the one that `write` makes, so nothing evaluates it."""
    with path.open("rb") as file:
        start = file.read(len(_NPY_START) + 2)
        header = file.read(int.from_bytes(start[len(_NPY_START) :], "little"))
    found = _NPY_HEADER.fullmatch(header)
    if not start.startswith(_NPY_START) or found is None:
        raise ValueError("images.npy does not begin as an array of uint8 [n, 3, H, W] does.")
    n, height, width = map(int, found.groups())
    offset = len(start) + len(header)
    expected, size = offset + n * 3 * height * width, path.stat().st_size
    if size != expected:
        raise ValueError(f"images.npy has {size:,} bytes, and by its header {expected:,}.")
    return np.memmap(path, np.uint8, "r", offset, (n, 3, height, width))


def _read_columns(path: Path, n_classes: int) -> dict[str, np.ndarray]:
    """Read the rows, column by column."""
    with path.open("rb") as file:
        data = file.read(MOST_CSV_BYTES + 1)
    if len(data) > MOST_CSV_BYTES:
        raise ValueError(f"examples.csv has more than {MOST_CSV_BYTES:,} bytes.")
    lines, values = tables.read_columns(data, COLUMNS, "examples.csv")
    known: dict[str, dict[str, Any]] = {
        "age_group": {str(number): number for number in range(n_classes)},
        "age": {str(number): number for number in range(-1, OLDEST + 1)},
        "split": {split: split for split in SPLITS},
    }
    columns = {}
    for column, texts in zip(COLUMNS, values, strict=True):
        found = _looked_up(column, texts, lines, known[column]) if column in known else texts
        columns[column] = np.array(found, dtype=object if isinstance(found[0], str) else np.int64)
    return columns


def _looked_up(column: str, texts: tuple[str, ...], lines: list[int], known: dict[str, Any]) -> list[Any]:
    """Replace each text by what it stands for."""
    try:
        return [known[text] for text in texts]
    except KeyError as error:
        line = lines[texts.index(error.args[0])]
        expected = f"one of {', '.join(SPLITS)}" if column == "split" else f"a number up to {max(known.values())}"
        raise ValueError(
            f"examples.csv, line {line}: {column} is {error.args[0]!r:.60}, expected {expected}."
        ) from None
