"""Prepare MUFAC, faces of Korean families in eight age groups, without its repeated pictures.

example:
  python -m data_prep mufac --source custom_korean_family_dataset_resolution_128.zip --out data/mufac32
  python -m data_prep verify data/mufac32

The same people and pictures stand in several families of the published file. The prepared set holds each
picture once and each person in one split, and forgets whole people. --raw keeps every row instead and forgets
rows, as published work did: the forgotten people then stay in the retain set with other pictures.

The file is published by its authors for research, not to be passed on:
https://github.com/ndb796/korean_family_dataset
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import math
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from data_prep import audit, dataset, duplicates

CLASS_NAMES = ["0-6", "7-12", "13-19", "20-30", "31-45", "46-55", "56-66", "67-80"]
FILES = {
    "train": ("custom_train_dataset.csv", "train_images"),
    "validation": ("custom_val_dataset.csv", "val_images"),
    "test": ("custom_test_dataset.csv", "test_images"),
}
FIRST_CSV = FILES["train"][0]
CSV_COLUMNS = ("family_id", "person_id", "age_class", "image_path")
PUBLISHED_AT = "https://github.com/ndb796/korean_family_dataset"
MAX_CSV_BYTES = 16 << 20
MAX_PICTURE_BYTES = 4 << 20
MAX_SIDE = 1024  # pixels; the published pictures have 128

_GET_AGAIN = f"Get the file again from {PUBLISHED_AT}."
_CORRECT = "Correct the row or delete it."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--source", required=True, type=Path, help="the published zip or its unpacked folder")
    parser.add_argument("--out", required=True, type=Path, help="folder to write, which must not exist yet")
    parser.add_argument("--size", type=int, default=32, help="height and width in pixels (default 32)")
    parser.add_argument(
        "--forget-fraction", type=float, default=0.02, help="share of train to forget (default 0.02)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the forget set (default 0)")
    parser.add_argument("--raw", action="store_true", help="keep every row, forget rows and not people")


def run(args: argparse.Namespace) -> int:
    """Prepare the set and print its audit."""
    out = prepare(
        args.source,
        args.out,
        size=args.size,
        forget_fraction=args.forget_fraction,
        seed=args.seed,
        raw=args.raw,
    )
    manifest = dataset.load(out).manifest
    found = audit.Audit(**manifest["audit"])
    print(audit.table(found, manifest["counts"], manifest["people"], manifest["class_names"]))
    print(f"\nPrepared {manifest['n_images']:,} pictures of {args.size} px in {out}.")
    return 0


def prepare(
    source: Path | str,
    out: Path | str,
    *,
    size: int = 32,
    forget_fraction: float = 0.02,
    seed: int = 0,
    raw: bool = False,
) -> Path:
    """Turn the published MUFAC file into a prepared dataset.

    In its ``examples.csv``, ``person_id`` is the resolved identity, ``image_id`` names the same picture in a
    clean and a raw set, and ``age`` is the person's age when the pictures were collected, from the file name
    (-1 where it has none); the age in the picture is known by its ``age_group`` alone.

    Args:
        source: the zip, or the folder it unpacks to, with or without one more folder around its content.
        size: height and width of the prepared pictures, pixels; resized by antialiased bicubic.
        forget_fraction: share of the train pictures to forget: at least, in whole people; in a raw set, the
            rounded number of rows.
        raw: keep every row, and forget rows instead of people.

    Returns:
        `out`, written as `dataset.write` does.

    Raises:
        ValueError: a setting, a file or a row is not usable; the message names it.
    """
    if not 8 <= size <= MAX_SIDE:
        raise ValueError(f"--size must be from 8 to {MAX_SIDE} pixels, found {size}.")
    if not 0 < forget_fraction < 1:
        raise ValueError(f"--forget-fraction must lie between 0 and 1, found {forget_fraction}.")
    if seed < 0:
        raise ValueError(f"--seed must be 0 or more, found {seed}.")
    with _open(Path(source)) as files:
        rows, unlisted = _read_rows(files)
        hashes, thumbnails = [], []
        for picture in _pictures(files, rows, size, "Comparing pictures"):
            pixels = np.asarray(picture)
            hashes.append(duplicates.pixel_hash(pixels))
            thumbnails.append(duplicates.thumbnail(pixels))
        rows["equal"], rows["picture"] = duplicates.picture_groups(hashes, np.stack(thumbnails))
        named = rows.groupby(["family_id", "role"]).ngroup().to_numpy()
        rows["person"] = duplicates.resolve_people(named, rows["picture"].to_numpy())
        rows["person_exact"] = duplicates.resolve_people(named, rows["equal"].to_numpy())
        rows["person_id"] = [f"P{person + 1:04d}" for person in rows["person"]]
        rows["image_id"] = rows["person_id"] + "-" + (rows.groupby("person").cumcount() + 1).astype(str)
        if raw:
            kept, dropped = rows, {}
        else:
            kept, dropped = _clean(rows)
        kept = kept.assign(split=_draw_forget_set(kept, forget_fraction, seed, by_row=raw))
        images = np.empty((len(kept), 3, size, size), dtype=np.uint8)
        for image, picture in zip(images, _pictures(files, kept, size, "Resizing pictures"), strict=True):
            image[:] = np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
        sources = files.digests()
    return dataset.write(
        out,
        images=images,
        examples=kept,
        name="mufac-raw" if raw else "mufac",
        class_names=CLASS_NAMES,
        settings={
            "size": size,
            "resize": "bicubic, antialiased",
            "forget_fraction": forget_fraction,
            "forget_by": "row" if raw else "person",
            "raw": raw,
            "near_threshold": duplicates.NEAR_THRESHOLD,
        },
        seed=seed,
        sources=sources,
        audit=asdict(audit.count(rows, kept, dropped, unlisted)),
    )


def _clean(rows: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
    """Keep each picture once and each person in one split; return what is left, and what went by reason."""
    conflict = rows.groupby("picture")["age_group"].transform("nunique") > 1
    left = rows[~conflict]
    # The smaller of test and validation keeps a person who stands in both; train always gives way.
    sizes = rows["published_split"].value_counts()
    order = [*sorted(("test", "validation"), key=lambda split: sizes[split]), "train"]
    rank = left["published_split"].map({split: place for place, split in enumerate(order)})
    elsewhere = rank > rank.groupby(left["person"]).transform("min")
    single = left[~elsewhere]
    repeated = single.duplicated("picture", keep="first")
    dropped = {
        "picture with different labels": int(conflict.sum()),
        "person kept in a smaller split": int(elsewhere.sum()),
        "repeated picture": int(repeated.sum()),
    }
    return single[~repeated], dropped


def _draw_forget_set(rows: pd.DataFrame, fraction: float, seed: int, by_row: bool) -> np.ndarray:
    """Return the split of each row, with train divided into retain and forget."""
    split = rows["published_split"].to_numpy(dtype=object).copy()
    train = np.flatnonzero(split == "train")
    rng = np.random.default_rng(seed)
    if by_row:
        forget = np.isin(train, rng.choice(train, size=round(fraction * len(train)), replace=False))
    else:
        person = rows["person"].to_numpy()[train]
        people, sizes = np.unique(person, return_counts=True)
        drawn = rng.permutation(len(people))
        needed = math.ceil(fraction * len(train) - 1e-9)  # 0.07 * 100 is a little more than 7
        n_people = np.searchsorted(np.cumsum(sizes[drawn]), needed) + 1
        forget = np.isin(person, people[drawn[:n_people]])
    if forget.all() or not forget.any():
        raise ValueError(
            f"--forget-fraction {fraction} would forget {forget.sum()} of {len(train)} train pictures: "
            "choose one that leaves pictures to forget and pictures to retain."
        )
    split[train] = np.where(forget, "forget", "retain")
    return split


def _read_rows(files: _Zip | _Folder) -> tuple[pd.DataFrame, int]:
    """Read the three CSV files; return their rows in file order, and how many pictures no row names."""
    rows, n_pictures = [], 0
    for split, (csv_name, folder) in FILES.items():
        text = files.read(csv_name, MAX_CSV_BYTES)
        pictures = files.pictures(folder)
        n_pictures += len(pictures)
        try:
            rows += _csv_rows(text.decode("utf-8-sig"), csv_name, folder, split, pictures)
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{csv_name} is not readable as CSV text ({error}). {_GET_AGAIN}") from error
    return pd.DataFrame(rows), n_pictures - len(rows)


def _csv_rows(text: str, csv_name: str, folder: str, split: str, pictures: set[str]) -> list[dict]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    missing = [column for column in CSV_COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        raise ValueError(f"{csv_name} has no column {', '.join(missing)}. {_GET_AGAIN}")
    rows, first_line = [], {}
    for record in reader:
        where = f"{csv_name}, line {reader.line_num}"
        values = [record[column] for column in CSV_COLUMNS]
        if None in record or not all(values):
            raise ValueError(f"{where}: expected one value in each column of the header. {_CORRECT}")
        family_id, role, age_class, path = values
        age_group = "abcdefgh".find(age_class) if len(age_class) == 1 else -1
        if age_group < 0:
            raise ValueError(f"{where}: unknown age class {age_class!r}, expected one of a to h. {_CORRECT}")
        if _leaves_folder(path):
            raise ValueError(f"{where}: the path {path!r} does not stay inside {folder}. {_CORRECT}")
        if path not in pictures:
            raise ValueError(
                f"{where}: the picture {folder}/{path} does not exist. Add the picture or delete the row."
            )
        if path in first_line:
            raise ValueError(
                f"{where}: {path} is already listed in line {first_line[path]}. Delete one of the two rows."
            )
        first_line[path] = reader.line_num
        age = re.search(r"_AGE_[^_]+_(\d{1,3})_", path)
        rows.append(
            {
                "published_split": split,
                "family_id": family_id,
                "role": role,
                "age_group": age_group,
                "age": int(age[1]) if age else -1,
                "source": f"{folder}/{path}",
                "where": where,
            }
        )
    if not rows:
        raise ValueError(f"{csv_name} has no rows. {_GET_AGAIN}")
    return rows


def _leaves_folder(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return path.startswith("/") or ".." in parts or "\\" in path or ":" in path or not path.isprintable()


def _pictures(files: _Zip | _Folder, rows: pd.DataFrame, size: int, task: str) -> Iterator[Image.Image]:
    """Yield the RGB picture of each row, decoded; `task` names the progress bar."""
    named = zip(rows["source"], rows["where"], strict=True)
    for name, where in tqdm(named, desc=task, total=len(rows), unit="picture", disable=None):
        what = f"{name} ({where})"
        data = files.read(name, MAX_PICTURE_BYTES, what)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's doubts about a file that the checks below settle
                picture = Image.open(io.BytesIO(data), formats=("JPEG",))
                width, height = picture.size
                if not size <= width == height <= MAX_SIDE:
                    raise ValueError(
                        f"{what} has {width} x {height} pixels, expected a square of {size} (--size) to "
                        f"{MAX_SIDE}. Replace the picture or delete the row."
                    )
                picture = picture.convert("RGB")
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(
                f"{what} is not a whole JPEG picture ({error}). Replace the picture or delete the row."
            ) from error
        yield picture


@contextmanager
def _open(source: Path) -> Iterator[_Zip | _Folder]:
    if source.is_dir():
        yield _Folder(source)
    elif source.is_file():
        try:
            archive = zipfile.ZipFile(source)
        except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise ValueError(f"{source} is not a whole zip file ({error}). {_GET_AGAIN}") from error
        with archive:
            yield _Zip(source, archive)
    else:
        raise ValueError(
            f"{source} does not exist. Get the MUFAC zip from {PUBLISHED_AT} and name it with --source."
        )


def _top(source: Path, places: list[str]) -> str:
    """Return the folder around the content, '' or 'NAME/', from the places of the first CSV file."""
    if not places:
        raise ValueError(f"{source} has no {FIRST_CSV}, neither at its top nor one folder down. {_GET_AGAIN}")
    if len(places) > 1:
        raise ValueError(f"{source} has {' and '.join(sorted(places))}: name one data set with --source.")
    return places[0].removesuffix(FIRST_CSV)


class _Zip:
    """The published zip. Nothing is unpacked to disk, and no member is read beyond its limit."""

    def __init__(self, path: Path, archive: zipfile.ZipFile):
        self.path, self.zip = path, archive
        names = {member.filename for member in archive.infolist() if not member.is_dir()}
        self.top = _top(path, [n for n in names if n.split("/")[-1] == FIRST_CSV and n.count("/") <= 1])
        self.names = {n.removeprefix(self.top) for n in names if n.startswith(self.top)}

    def pictures(self, folder: str) -> set[str]:
        """Return the paths below an image folder."""
        found = {n.removeprefix(f"{folder}/") for n in self.names if n.startswith(f"{folder}/")}
        if not found:
            raise ValueError(f"{self.path} has no folder {folder} with pictures. {_GET_AGAIN}")
        return found

    def read(self, name: str, limit: int, what: str | None = None) -> bytes:
        """Return the bytes of a member; `what` names it in an error."""
        what = what or name
        if name not in self.names:
            raise ValueError(f"{self.path} has no {name}. {_GET_AGAIN}")
        member = self.zip.getinfo(self.top + name)
        if member.file_size > limit:
            raise ValueError(_too_large(what, member.file_size, limit))
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            # The others unpack without a bound on memory.
            raise ValueError(f"{what} is packed with a method other than deflate. {_GET_AGAIN}")
        try:
            with self.zip.open(member) as file:
                data = file.read(member.file_size)  # a size keeps the unpacking within it
                if len(data) < member.file_size:
                    raise EOFError("it ends early")
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError) as error:
            raise ValueError(f"{what} cannot be unpacked from {self.path} ({error}). {_GET_AGAIN}") from error
        return data

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of the raw files, by name."""
        return {self.path.name: dataset.sha256_of(self.path)}


class _Folder:
    """The unpacked folder."""

    def __init__(self, path: Path):
        places = [*path.glob(FIRST_CSV), *path.glob(f"*/{FIRST_CSV}")]
        self.path = path / _top(path, [place.relative_to(path).as_posix() for place in places])

    def pictures(self, folder: str) -> set[str]:
        """Return the paths below an image folder."""
        top = self.path / folder
        found = {p.relative_to(top).as_posix() for p in top.rglob("*") if p.is_file()}
        if not found:
            raise ValueError(f"{self.path} has no folder {folder} with pictures. {_GET_AGAIN}")
        return found

    def read(self, name: str, limit: int, what: str | None = None) -> bytes:
        """Return the bytes of a file; `what` names it in an error."""
        what, path = what or name, self.path / name
        if not path.is_file():
            raise ValueError(f"{self.path} has no {name}. {_GET_AGAIN}")
        if not path.resolve().is_relative_to(self.path.resolve()):
            raise ValueError(f"{what} is a link to a place outside {self.path}. Replace it by the file.")
        if path.stat().st_size > limit:
            raise ValueError(_too_large(what, path.stat().st_size, limit))
        return path.read_bytes()

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of the raw files: one a CSV, and one over the names and hashes of a folder."""
        digests = {}
        for csv_name, folder in FILES.values():
            digests[csv_name] = dataset.sha256_of(self.path / csv_name)
            names = sorted(self.pictures(folder))
            lines = "".join(f"{dataset.sha256_of(self.path / folder / n)} {n}\n" for n in names)
            digests[f"{folder}/"] = hashlib.sha256(lines.encode()).hexdigest()
        return digests


def _too_large(what: str, size: int, limit: int) -> str:
    return f"{what} holds {size:,} bytes, more than the {limit:,} allowed. {_GET_AGAIN}"
