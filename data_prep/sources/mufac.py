"""Prepare MUFAC, faces of Korean families in eight age groups, without its repeated pictures.

example:
  python -m data_prep mufac --source custom_korean_family_dataset_resolution_128.zip --out data/mufac32
  python -m data_prep verify data/mufac32

The same people and pictures stand in several families of the published file. The prepared set holds each
picture once and each person in one split, and forgets whole people. --raw keeps every row instead and forgets
rows, as published work did: the forgotten people then stay in the retain set with other pictures.

In examples.csv, person_id is the resolved identity, image_id names the same picture in a clean and a raw set, and
age is the person's age when the pictures were collected, from the file name (-1 where it has none). The age in the
picture is known by its age_group alone.

The file is published by its authors for research, not to be passed on:
https://github.com/ndb796/korean_family_dataset
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from data_prep import audit, dataset, duplicates, options, pictures, raw_files, tables
from data_prep.raw_files import RawFiles

CLASS_NAMES = ["0-6", "7-12", "13-19", "20-30", "31-45", "46-55", "56-66", "67-80"]
FILES = {
    "train": ("custom_train_dataset.csv", "train_images"),
    "validation": ("custom_val_dataset.csv", "val_images"),
    "test": ("custom_test_dataset.csv", "test_images"),
}
CSV_COLUMNS = ("family_id", "person_id", "age_class", "image_path")
PUBLISHED_AT = "https://github.com/ndb796/korean_family_dataset"
MAX_CSV_BYTES = 16 << 20

_GET_AGAIN = f"Get the file again from {PUBLISHED_AT}."
_CORRECT = "Correct the row or delete it."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    add = parser.add_argument
    add("--source", required=True, type=Path, help="the published zip or its unpacked folder")
    add("--out", required=True, type=Path, help="folder to write, which must not exist yet")
    add("--size", type=int, default=32, help="height and width in pixels (default 32)")
    add("--forget-fraction", type=float, default=0.02, help="share of train to forget (default 0.02)")
    add("--seed", type=int, default=0, help="seed of the forget set (default 0)")
    add("--raw", action="store_true", help="keep every row, forget rows and not people")


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
    """Turn the published MUFAC file into a prepared dataset at `out`.

    Args:
        source: the zip, or the folder it unpacks to, with or without one more folder around its content.
        size: height and width of the prepared pictures, pixels; resized by antialiased bicubic.
        forget_fraction: share of the train pictures to forget: at least, in whole people; in a raw set, the
            rounded number of rows.
        raw: keep every row, and forget rows instead of people.

    Raises:
        ValueError: a setting, a file or a row is not usable; the message names it.
    """
    options.check_range("--size", size, 8, pictures.LARGEST_SIDE, "pixels")
    options.check_share("--forget-fraction", forget_fraction)
    options.check_seed(seed)
    with raw_files.open_source(Path(source), FILES["train"][0], _GET_AGAIN) as files:
        rows, unlisted = _read_rows(files)
        rows = _identified(rows, files, size)
        kept, dropped = (rows, {}) if raw else _clean(rows)
        kept = kept.assign(split=_draw_forget_set(kept, forget_fraction, seed, by_row=raw))
        images = _resized(kept, files, size)
        sources = files.digests([name for csv_name, folder in FILES.values() for name in (csv_name, f"{folder}/")])
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


def _read_rows(files: RawFiles) -> tuple[pd.DataFrame, int]:
    """Read the three CSV files; return their rows in file order, and how many pictures no row names."""
    rows, n_pictures = [], 0
    for split, (csv_name, folder) in FILES.items():
        data = files.read(csv_name, MAX_CSV_BYTES)
        known = files.names(folder)
        if not known:
            raise ValueError(f"{files.path} has no folder {folder} with pictures. {_GET_AGAIN}")
        n_pictures += len(known)
        listed: dict[str, str] = {}
        try:
            numbered = tables.read_rows(data, CSV_COLUMNS, csv_name)
        except ValueError as error:
            raise ValueError(f"{error} {_GET_AGAIN}") from error
        for line, values in numbered:
            where = f"{csv_name}, line {line}"
            path = values[-1]
            row = _row(values, where, folder, known)
            if path in listed:
                raise ValueError(
                    f"{where}: {path} is already listed in {listed[path]}. Delete one of the two rows."
                )
            listed[path] = f"line {line}"
            rows.append({"published_split": split, **row})
    return pd.DataFrame(rows), n_pictures - len(rows)


def _row(values: tuple[str, ...], where: str, folder: str, known: set[str]) -> dict[str, object]:
    """Check one row of a CSV file, whose `folder` holds the pictures `known`."""
    family_id, role, age_class, path = values
    if not all(values):
        raise ValueError(f"{where}: a value is empty. {_CORRECT}")
    age_group = "abcdefgh".find(age_class) if len(age_class) == 1 else -1
    if age_group < 0:
        raise ValueError(f"{where}: unknown age class {age_class!r}, expected one of a to h. {_CORRECT}")
    if _leaves_folder(path):
        raise ValueError(f"{where}: the path {path!r} does not stay inside {folder}. {_CORRECT}")
    if path not in known:
        raise ValueError(
            f"{where}: the picture {folder}/{path} does not exist. Add the picture or delete the row."
        )
    age = re.search(r"_AGE_[^_]+_(\d{1,3})_", path)
    return {
        "family_id": family_id,
        "role": role,
        "age_group": age_group,
        "age": int(age[1]) if age else -1,
        "source": f"{folder}/{path}",
        "where": where,
    }


def _leaves_folder(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return path.startswith("/") or ".." in parts or "\\" in path or ":" in path or not path.isprintable()


def _identified(rows: pd.DataFrame, files: RawFiles, size: int) -> pd.DataFrame:
    """Compare all pictures; add the columns equal, picture, person, person_exact, person_id and image_id."""
    hashes, thumbnails = [], []
    for picture in _decoded(rows, files, size, "Comparing pictures"):
        pixels = np.asarray(picture)
        hashes.append(duplicates.pixel_hash(pixels))
        thumbnails.append(duplicates.thumbnail(pixels))
    equal, picture = duplicates.picture_groups(hashes, np.stack(thumbnails))
    named = rows.groupby(["family_id", "role"]).ngroup().to_numpy()
    person = duplicates.resolve_people(named, picture)
    person_id = pd.Series([f"P{number + 1:04d}" for number in person], index=rows.index)
    return rows.assign(
        equal=equal,
        picture=picture,
        person=person,
        person_exact=duplicates.resolve_people(named, equal),
        person_id=person_id,
        image_id=person_id + "-" + (rows.groupby(person).cumcount() + 1).astype(str),
    )


def _resized(rows: pd.DataFrame, files: RawFiles, size: int) -> np.ndarray:
    """Return the pictures of `rows`, uint8 ``[n, 3, size, size]``."""
    images = np.empty((len(rows), 3, size, size), dtype=np.uint8)
    for image, picture in zip(images, _decoded(rows, files, size, "Resizing pictures"), strict=True):
        image[:] = np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    return images


def _decoded(rows: pd.DataFrame, files: RawFiles, size: int, task: str) -> Iterator[Image.Image]:
    """Yield the picture of each row; `task` names the progress bar."""
    named = zip(rows["source"], rows["where"], strict=True)
    for name, where in tqdm(named, desc=task, total=len(rows), unit="picture", disable=None):
        what = f"{name} ({where})"
        data = files.read(name, pictures.MOST_BYTES, what)
        picture = pictures.decode(data, "JPEG", what, "Replace the picture or delete the row.")
        if picture.width < size:
            raise options.OptionError(f"--size {size} is more than the {picture.width} pixels of {what}.")
        yield picture


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
        raise options.OptionError(
            f"--forget-fraction {fraction} would forget {forget.sum()} of {len(train)} train pictures: "
            "choose one that leaves pictures to forget and pictures to retain."
        )
    split[train] = np.where(forget, "forget", "retain")
    return split
