"""The prepared dataset: written once, atomically, and read by everything after it.

A prepared dataset is a folder with three files:

- ``images.npy``: uint8 ``[n, 3, H, W]``, memory-mappable
- ``examples.csv``: one row a picture (row i is image i), columns ``COLUMNS``
- ``manifest.json``: what it is, where it came from, and the SHA-256 of the other two

Writing it twice from the same input gives the same bytes. It appears under its name only when all three
files are complete, so a folder with a manifest is a whole data set.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

SCHEMA = 1
SPLITS = ("retain", "forget", "validation", "test")
COLUMNS = ("image_id", "person_id", "age_group", "age", "split", "source")


@dataclass(frozen=True)
class PreparedDataset:
    """A prepared dataset, opened for reading.

    Attributes:
        folder: where it lies.
        images: uint8 ``[n, 3, H, W]``, memory-mapped and read-only.
        examples: one row an image, columns ``COLUMNS``; ``age_group`` is an int in ``[0, n_classes)``.
        manifest: the content of ``manifest.json``.
    """

    folder: Path
    images: np.ndarray
    examples: pd.DataFrame
    manifest: dict[str, Any]

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
        """Hash of pictures, rows and class names: equal for equal data, wherever it lies."""
        manifest = self.manifest
        text = json.dumps([manifest["schema"], manifest["class_names"], manifest["sha256"]], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def rows(self, split: str) -> np.ndarray:
        """Return the row numbers of one split, int64 ``[n_split]``, ascending."""
        if split not in SPLITS:
            raise ValueError(f"Unknown split {split!r}: expected one of {', '.join(SPLITS)}.")
        return np.flatnonzero(self.examples["split"].to_numpy() == split)

    def labels(self, split: str) -> np.ndarray:
        """Return the age groups of one split, int64 ``[n_split]``, in the order of `rows`."""
        return self.examples["age_group"].to_numpy(dtype=np.int64)[self.rows(split)]


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
    _check_shapes(images, examples, class_names)
    examples = examples.loc[:, list(COLUMNS)].reset_index(drop=True)
    _refuse_foreign_folder(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.partial-", dir=out.parent))
    try:
        np.save(partial / "images.npy", np.ascontiguousarray(images))
        examples.to_csv(partial / "examples.csv", index=False, lineterminator="\n")
        for file_name, content in (extra_files or {}).items():
            (partial / file_name).write_bytes(content)
        counts = examples.groupby(["split", "age_group"]).size()
        manifest = {
            "schema": SCHEMA,
            "name": name,
            "class_names": list(class_names),
            "n_images": len(examples),
            "image_shape": list(images.shape[1:]),
            "counts": {
                split: [int(counts.get((split, group), 0)) for group in range(len(class_names))]
                for split in SPLITS
            },
            "people": {s: int(examples.loc[examples["split"] == s, "person_id"].nunique()) for s in SPLITS},
            "settings": settings,
            "seed": seed,
            "sources": sources,
            "audit": audit,
            "sha256": {f: sha256_of(partial / f) for f in ("images.npy", "examples.csv")},
        }
        (partial / "manifest.json").write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
        partial.chmod(0o755)  # mkdtemp makes it private
        _move_into_place(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def load(folder: Path | str) -> PreparedDataset:
    """Open a prepared dataset. Checks that the files fit together, not their hashes (see `verify`).

    Raises:
        ValueError: the folder is missing, not a prepared dataset, or of another schema version.
    """
    folder = Path(folder)
    manifest_path = folder / "manifest.json"
    if not manifest_path.is_file():
        raise ValueError(
            f"{folder} is not a prepared dataset: it has no manifest.json. Make one with "
            "'python -m data_prep synthetic --out DIR' or 'python -m data_prep mufac --source ZIP --out DIR'."
        )
    try:
        manifest = json.loads(manifest_path.read_text())
        schema = manifest["schema"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{manifest_path} cannot be read ({error}). Prepare the data set again.") from error
    if schema != SCHEMA:
        raise ValueError(
            f"{manifest_path} has schema {schema}, this version reads {SCHEMA}. Prepare the data set again."
        )
    try:
        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        examples = pd.read_csv(folder / "examples.csv", dtype={"image_id": str, "person_id": str, "source": str})
        _check_shapes(images, examples, manifest["class_names"])
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} is damaged: {error} Prepare the data set again.") from error
    return PreparedDataset(folder, images, examples, manifest)


def sha256_of(path: Path | str) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _check_shapes(images: np.ndarray, examples: pd.DataFrame, class_names: list[str]) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images must be uint8 [n, 3, H, W], found {images.dtype} {list(images.shape)}.")
    missing = [column for column in COLUMNS if column not in examples.columns]
    if missing:
        raise ValueError(f"examples lacks the column(s) {', '.join(missing)}.")
    if len(images) != len(examples):
        raise ValueError(f"{len(images)} images but {len(examples)} rows: row i must belong to image i.")
    splits = set(examples["split"]) - set(SPLITS)
    if splits:
        raise ValueError(f"examples has the unknown split(s) {sorted(map(str, splits))}.")
    groups = examples["age_group"]
    if not pd.api.types.is_integer_dtype(groups) or not groups.between(0, len(class_names) - 1).all():
        raise ValueError(f"age_group must be an integer from 0 to {len(class_names) - 1}.")


def _refuse_foreign_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; name a folder that does not exist yet with --out.")
    if out.is_dir() and any(out.iterdir()) and not (out / "manifest.json").is_file():
        raise ValueError(f"{out} already holds other files; name a folder that does not exist yet with --out.")


def _move_into_place(partial: Path, out: Path) -> None:
    """Rename the finished folder to `out`; accept an equal one that is already there."""
    try:
        partial.rename(out)  # replaces an empty folder, fails on a full one
    except OSError:
        if (out / "manifest.json").is_file():
            if (out / "manifest.json").read_bytes() == (partial / "manifest.json").read_bytes():
                return
            raise ValueError(
                f"{out} already holds another data set. Name another folder with --out, or delete it first."
            ) from None
        raise
