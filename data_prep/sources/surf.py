"""Prepare CASIA-SURF CeFA as the organisers of the competition did: ten age groups, 15 people forgotten.

example:
  python -m data_prep surf --source CASIA-SURF-CeFA --out data/surf
  python -m data_prep surf --source CASIA-SURF-CeFA --out data/surf_people --by-person

--source holds Age_Gender.txt ("PERSON AGE GENDER" a line) and WBackground/*/PERSON/real.rssdk/color/*.jpg. The
data set is given out by its authors on request: see the README of google-deepmind/unlearning_evaluation.

The organisers split by picture, so the same people, the forgotten ones too, stand in train, validation and test:
their pictures are still judged by a model that has never been asked to forget them. --by-person splits by person
instead, and leaves out repeated pictures.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from data_prep import dataset, options, pictures, raw_files

AGES_FILE = "Age_Gender.txt"
PICTURES = "WBackground/*/*/real.rssdk/color/*.jpg"
N_CLASSES = 10
PEOPLE_TO_FORGET = 15
SHUFFLE_SEED = 43  # the organisers'
MAX_SIDE = 4096  # pixels
MAX_BYTES = 32 << 20  # of a picture's file, and of Age_Gender.txt


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    add = parser.add_argument
    add("--source", type=Path, required=True, help="folder with Age_Gender.txt and WBackground/")
    add("--out", type=Path, required=True, help="folder to write, which must not exist yet")
    add("--size", type=int, default=32, help="height and width in pixels (default 32, as in the competition)")
    add("--by-person", action="store_true", help="split by person: nobody stands in two splits")


def run(args: argparse.Namespace) -> int:
    """Prepare the set and say what it holds."""
    out = prepare(args.source, args.out, size=args.size, by_person=args.by_person)
    data = dataset.load(out)
    people = data.manifest["people"]
    counts = ", ".join(f"{split} {len(data.rows(split)):,} of {people[split]:,}" for split in dataset.SPLITS)
    print(f"Prepared {len(data.images):,} pictures of {args.size} px in {out}; pictures and people: {counts}.")
    return 0


def prepare(source: Path | str, out: Path | str, size: int = 32, by_person: bool = False) -> Path:
    """Turn CASIA-SURF CeFA into a prepared data set.

    Pictures are resized by antialiased bilinear interpolation. The organisers used torchvision's resize on
    uint8 tensors, whose releases of that time differ on whether it antialiases.

    Args:
        size: height and width of the prepared pictures, pixels.
        by_person: split people and not pictures 80/10/10.

    Raises:
        ValueError: a setting, a file or a line is not usable; the message names it.
    """
    source = Path(source)
    options.check_range("--size", size, 8, pictures.LARGEST_SIDE, "pixels")
    if not source.is_dir():
        raise ValueError(f"{source} is not a folder: name the one that holds {AGES_FILE} with --source.")
    examples, edges = _list_pictures(source)
    images, digest = _read_pictures([source / name for name in examples["source"]], size)
    if by_person:
        different = np.sort(np.unique(images, axis=0, return_index=True)[1])
        images, examples = images[different], examples.iloc[different].reset_index(drop=True)
    examples["split"] = _split(examples["person_id"].tolist(), by_person)
    return dataset.write(
        out,
        images=images,
        examples=examples,
        name="surf-by-person" if by_person else "surf",
        class_names=[f"{low:.1f} to {high:.1f}" for low, high in pairwise(edges)],
        settings={
            "size": size,
            "resize": "bilinear, antialiased",
            "forget_by": "person",
            "people_to_forget": PEOPLE_TO_FORGET,
            "raw": not by_person,
        },
        seed=SHUFFLE_SEED,
        sources={AGES_FILE: dataset.sha256_of(source / AGES_FILE), "WBackground/": digest},
    )


def _list_pictures(source: Path) -> tuple[pd.DataFrame, np.ndarray]:
    """List the pictures by path with person and age group; return them, and the edges of the groups in years."""
    age_of = _read_ages(source / AGES_FILE)
    names = sorted(file.relative_to(source).as_posix() for file in source.glob(PICTURES))
    if not names:
        raise ValueError(f"{source} has no pictures {PICTURES}: unpack them there.")
    person = [Path(name).parents[2].name for name in names]
    strangers = sorted(set(person) - set(age_of))
    if strangers:
        raise ValueError(f"{source / AGES_FILE} has no line for {strangers[0]}, who has pictures. Add it.")
    edges = np.linspace(min(age_of.values()), max(age_of.values()) + 1, N_CLASSES + 1)
    age = [age_of[name] for name in person]
    examples = pd.DataFrame(
        {
            "image_id": [f"{name}-{number}" for name, number in zip(person, _numbers(person), strict=True)],
            "person_id": person,
            "age_group": np.digitize(age, edges) - 1,
            "age": age,
            "source": names,
        }
    )
    return examples, edges


def _split(person: list[str], by_person: bool) -> list[str]:
    """Return the split of each picture: shuffle, cut 80/10/10, forget the first people of train by name."""
    whole = sorted(set(person)) if by_person else list(range(len(person)))
    random.Random(SHUFFLE_SEED).shuffle(whole)
    first, second = int(0.8 * len(whole)), int(0.9 * len(whole))
    split_of = {item: "train" for item in whole[:first]}
    split_of |= {item: "validation" for item in whole[first:second]}
    split_of |= {item: "test" for item in whole[second:]}
    split = [split_of[item] for item in (person if by_person else range(len(person)))]
    in_train = sorted({name for name, where in zip(person, split, strict=True) if where == "train"})
    if len(in_train) <= PEOPLE_TO_FORGET:
        raise ValueError(
            f"Only {len(in_train)} people have training pictures: {PEOPLE_TO_FORGET} are forgotten, and some "
            "have to remain."
        )
    forgotten = set(in_train[:PEOPLE_TO_FORGET])
    train = {True: "forget", False: "retain"}
    return [
        train[name in forgotten] if where == "train" else where for name, where in zip(person, split, strict=True)
    ]


def _read_ages(file: Path) -> dict[str, int]:
    """Return the age of each person in years."""
    data = raw_files.read_file(file, MAX_BYTES, str(file), "Name the folder that holds it with --source.")
    age_of = {}
    for number, line in enumerate(data.decode("utf-8", errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        match = re.fullmatch(r"(\w+) (\d{1,3}) (\w+)", line.strip())
        if not match:
            raise ValueError(f'{file}, line {number}: expected "PERSON AGE GENDER", found {line.strip()!r}.')
        if match[1] in age_of:
            raise ValueError(f"{file}, line {number}: {match[1]} has a line already. Delete one.")
        age_of[match[1]] = int(match[2])
    if not age_of:
        raise ValueError(f"{file} is empty.")
    return age_of


def _numbers(person: list[str]) -> list[int]:
    """Number the pictures of each person from 0."""
    return pd.Series(person).groupby(person).cumcount().tolist()


def _read_pictures(files: list[Path], size: int) -> tuple[np.ndarray, str]:
    """Return the pictures, uint8 ``[n, 3, size, size]``, and a hash over the bytes of the files."""
    options.check_room(len(files), size)
    images, digest = np.empty((len(files), 3, size, size), dtype=np.uint8), hashlib.sha256()
    for image, file in zip(images, tqdm(files, desc="Resizing", unit="picture", disable=None), strict=True):
        data = raw_files.read_file(file, MAX_BYTES, str(file), "Get it again.")
        digest.update(hashlib.sha256(data).hexdigest().encode())
        picture = pictures.decode(
            data, "JPEG", str(file), "Get it again.", smallest=1, largest=MAX_SIDE, square=False
        )
        image[:] = np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    return images, digest.hexdigest()
