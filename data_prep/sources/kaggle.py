"""Read a data set in the competition's own layout, such as `python -m kaggle_submission kaggle-tree` writes.

example:
  python -m data_prep kaggle --source kaggle/tree --out data/from_tree
  python -m data_prep verify data/from_tree

The folder holds retain.csv, forget.csv and validation.csv (columns person_id, age_group, age, image_id) and
the picture images/PERSON/N.png for each image_id "PERSON-N". A test.csv is read where there is one; without
it nothing can be scored on the prepared set. original_model.pth and age_class_weights.json are not read.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from data_prep import dataset

COLUMNS = ("person_id", "age_group", "age", "image_id")
PLAIN_NAME = r"\w[\w.]*"  # of a person or a picture: names a file anywhere, and holds no dash
MAX_SIDE = 1024  # pixels; the competition's pictures have 32
MAX_CLASSES = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    add = parser.add_argument
    add("--source", type=Path, required=True, help="folder in the competition's layout")
    add("--out", type=Path, required=True, help="folder to write, which must not exist yet")
    add("--classes", type=int, help="number of age groups (default: up to the largest that occurs)")


def run(args: argparse.Namespace) -> int:
    """Read the tree and say what it holds."""
    out = prepare(args.source, args.out, classes=args.classes)
    data = dataset.load(out)
    counts = ", ".join(f"{split} {len(data.rows(split)):,}" for split in dataset.SPLITS)
    print(
        f"Prepared {len(data.images):,} pictures of {data.size} px, {data.n_classes} classes, in {out}: {counts}."
    )
    if not len(data.rows("test")):
        print("It has no test set: models can be trained and unlearned on it, but not scored.")
    return 0


def prepare(source: Path | str, out: Path | str, classes: int | None = None) -> Path:
    """Turn a folder in the competition's layout into a prepared data set.

    Whether people stand in several splits, as they do in the competition, is found out and noted in the
    settings: "raw" for train, validation and test, "forget_by" for retain and forget.

    Raises:
        ValueError: a file, a row or a picture is missing or cannot be used; the message names it.
    """
    source = Path(source)
    if not source.is_dir():
        raise ValueError(f"{source} is not a folder: name one in the competition's layout with --source.")
    if classes is not None and not 2 <= classes <= MAX_CLASSES:
        raise ValueError(f"--classes must be from 2 to {MAX_CLASSES}, found {classes}.")
    files = [source / f"{split}.csv" for split in dataset.SPLITS]
    if not files[-1].exists():
        files.pop()  # the competition kept its test set to itself
    examples = pd.concat([_read_rows(file) for file in files], ignore_index=True)
    repeated = examples["image_id"].duplicated()
    if repeated.any():
        raise ValueError(f"The image_id {examples['image_id'][repeated.idxmax()]} stands in two rows. Delete one.")
    n_classes = max(2, int(examples["age_group"].max()) + 1)
    if classes is not None and classes < n_classes:
        raise ValueError(f"--classes {classes} is too few: the age_group {n_classes - 1} occurs in {source}.")
    images, digest = _read_pictures(source, examples)
    people = {split: set(rows["person_id"]) for split, rows in examples.groupby("split")}
    held_out = [people["validation"], people.get("test", set())]
    train = people["retain"] | people["forget"]
    return dataset.write(
        out,
        images=images,
        examples=examples,
        name="kaggle",
        class_names=[str(group) for group in range(classes or n_classes)],
        settings={
            "size": images.shape[-1],
            "forget_by": "row" if people["retain"] & people["forget"] else "person",
            "raw": bool(train & held_out[0] or train & held_out[1] or held_out[0] & held_out[1]),
        },
        seed=0,
        sources={file.name: dataset.sha256_of(file) for file in files} | {"images/": digest},
    )


def _read_rows(file: Path) -> pd.DataFrame:
    """Read one CSV file; check every row."""
    if not file.is_file():
        raise ValueError(f"{file} is missing: the layout has retain.csv, forget.csv and validation.csv.")
    try:
        rows = pd.read_csv(file, dtype=str, keep_default_na=False)
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not readable as CSV text ({error}).") from error
    missing = [column for column in COLUMNS if column not in rows.columns]
    if missing:
        raise ValueError(f"{file} has no column {', '.join(missing)}.")
    if rows.empty:
        raise ValueError(f"{file} has no rows.")
    for column, form, meaning in (
        ("image_id", rf"{PLAIN_NAME}-{PLAIN_NAME}", 'of the form "PERSON-N"'),
        ("person_id", r".+", "a name"),
        ("age_group", r"\d{1,3}(\.0)?", "a whole number from 0"),
        ("age", r"-1|\d{1,3}(\.\d*)?|", "a number of years"),
    ):
        wrong = ~rows[column].str.fullmatch(form)
        if wrong.any():
            line = wrong.idxmax()
            raise ValueError(f"{file}, line {line + 2}: {column} {rows[column][line]!r} is not {meaning}.")
    return pd.DataFrame(
        {
            "image_id": rows["image_id"],
            "person_id": rows["person_id"],
            "age_group": rows["age_group"].astype(float).astype(int),
            "age": rows["age"].replace("", "-1").astype(float).astype(int),
            "split": file.stem,
            "source": "images/" + rows["image_id"].str.replace("-", "/") + ".png",
        }
    )


def _read_pictures(source: Path, examples: pd.DataFrame) -> tuple[np.ndarray, str]:
    """Return the pictures, uint8 ``[n, 3, S, S]``, and a hash over their names and pixels."""
    images, digest = None, hashlib.sha256()
    for row, name in enumerate(tqdm(examples["source"], desc="Reading", unit="picture", disable=None)):
        picture = _read_picture(source, name)
        if images is None:
            images = np.empty((len(examples), *picture.shape), dtype=np.uint8)
        if picture.shape != images.shape[1:]:
            raise ValueError(
                f"{source / name} has {picture.shape[1]} pixels a side, the first picture {images.shape[-1]}: "
                "all must be equal."
            )
        images[row] = picture
        digest.update(name.encode() + picture.tobytes())
    return images, digest.hexdigest()


def _read_picture(source: Path, name: str) -> np.ndarray:
    path = source / name
    if not path.is_file():
        raise ValueError(f"{path} is missing: add the picture, or delete its row.")
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            width, height = picture.size
            if not 8 <= width == height <= MAX_SIDE:
                raise ValueError(f"{path} has {width} x {height} pixels, expected a square of 8 to {MAX_SIDE}.")
            return np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is not a whole PNG picture ({error}).") from error
