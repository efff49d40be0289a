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
import re
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from data_prep import dataset, options, pictures, raw_files, tables

PLAIN_NAME = r"\w[\w.]*"  # of a person or a picture: names a file anywhere, and holds no dash
FORMS = {  # of the values of each column: a pattern, and what it says
    "person_id": (r"\S(.*\S)?", "a name"),
    "age_group": (r"[0-9]{1,3}(\.0)?", "a whole number from 0"),
    "age": (r"-1|[0-9]{1,3}(\.[0-9]*)?|", "a number of years"),
    "image_id": (rf"{PLAIN_NAME}-{PLAIN_NAME}", 'of the form "PERSON-N"'),
}
COLUMNS = tuple(FORMS)
MAX_CLASSES = 1000
MAX_CSV_BYTES = 256 << 20

_REPAIR = "Replace the picture or delete its row."


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
    if classes is not None:
        options.check_range("--classes", classes, 2, MAX_CLASSES)
    files = [source / f"{split}.csv" for split in dataset.SPLITS]
    if not files[-1].exists():
        files.pop()  # the competition kept its test set to itself
    examples = pd.concat([_read_rows(file) for file in files], ignore_index=True)
    repeated = examples["image_id"].duplicated()
    if repeated.any():
        raise ValueError(f"The image_id {examples['image_id'][repeated.idxmax()]} stands in two rows. Delete one.")
    n_classes = max(2, int(examples["age_group"].max()) + 1)
    if classes is not None and classes < n_classes:
        raise options.OptionError(
            f"--classes {classes} is too few: the age_group {n_classes - 1} occurs in {source}."
        )
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
    data = raw_files.read_file(file, MAX_CSV_BYTES, str(file), "The layout has retain, forget and validation.csv.")
    numbered = tables.read_rows(data, COLUMNS, str(file))
    for line, values in numbered:
        for (column, (form, meaning)), value in zip(FORMS.items(), values, strict=True):
            if not re.fullmatch(form, value):
                raise ValueError(f"{file}, line {line}: {column} {value!r} is not {meaning}.")
    rows = pd.DataFrame([values for _, values in numbered], columns=list(FORMS))
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
        path = source / name
        data = raw_files.read_file(path, pictures.MOST_BYTES, str(path), _REPAIR)
        picture = np.asarray(pictures.decode(data, "PNG", str(path), _REPAIR)).transpose(2, 0, 1)
        if images is None:
            options.check_room(len(examples), picture.shape[-1])
            images = np.empty((len(examples), *picture.shape), dtype=np.uint8)
        if picture.shape != images.shape[1:]:
            raise ValueError(
                f"{path} has {picture.shape[1]} pixels a side, the first picture {images.shape[-1]}: all must be "
                "equal."
            )
        images[row] = picture
        digest.update(name.encode() + picture.tobytes())
    return images, digest.hexdigest()
