"""Draw the built-in data set of procedural faces, so that everything runs with nothing to download.

example:
  python -m data_prep synthetic --out data/synthetic
  python -m data_prep synthetic --out data/small --people 40 --size 32 --seed 1

Each person is drawn at several ages, in several pictures each. Look at contact_sheet.png in the folder:
one person a row, one age group a column.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from data_prep import dataset, options, pictures
from data_prep.sources import faces, portrait

AGE_GROUPS = ((0, 6), (7, 12), (13, 19), (20, 30), (31, 45), (46, 55), (56, 66), (67, 80))  # years
CLASS_NAMES = [f"{low}-{high}" for low, high in AGE_GROUPS]
GROUP_SHARES = (0.21, 0.20, 0.17, 0.13, 0.14, 0.08, 0.04, 0.03)  # about those of MUFAC's training pictures
LOOKS_SPREAD = 0.2  # standard deviation of log(apparent age / age) over people
AGES_PER_PERSON = (3, 5)
PICTURES_PER_AGE = (1, 4)  # about 10 pictures a person in all
HELD_OUT_SHARE = 0.11  # of the people, for validation; as many again for test
FORGET_FRACTION = 0.035  # of train; reached with whole people, so 3.5 to 5 % with 200 people
FEWEST_PEOPLE, MOST_PEOPLE = 10, 100_000  # from 10 on, every split has some
SMALLEST = 16  # pixels; below, no age can be seen
SHEET_PEOPLE, SHEET_SIZE = 6, 96


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("--out", type=Path, required=True, help="folder to write, which must not exist yet")
    parser.add_argument("--people", type=int, default=200, help="about 10 pictures each (default 200)")
    parser.add_argument("--size", type=int, default=32, help="height and width in pixels (default 32)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other faces (default 0)")


def run(args: argparse.Namespace) -> int:
    """Draw the set, write it and say what it holds."""
    out = prepare(args.out, people=args.people, size=args.size, seed=args.seed)
    data = dataset.load(out)
    pictures = ", ".join(f"{split} {len(data.rows(split)):,}" for split in dataset.SPLITS)
    people = ", ".join(f"{split} {data.manifest['people'][split]:,}" for split in dataset.SPLITS)
    print(f"Prepared {len(data.images):,} pictures of {args.size} px in {out}: {pictures}.")
    print(f"They show {args.people:,} people: {people}. See {out / 'contact_sheet.png'}.")
    return 0


def check_size(size: int) -> None:
    """Raise an OptionError unless pictures can be drawn with so many pixels a side."""
    options.check_range("--size", size, SMALLEST, pictures.LARGEST_SIDE, "pixels")


def prepare(out: Path | str, people: int = 200, size: int = 32, seed: int = 0) -> Path:
    """Draw `people` people, about 10 pictures each, and write the prepared data set to `out`.

    Raises:
        ValueError: too few people, a picture too small, a negative seed, or `out` holds something else.
    """
    options.check_range("--people", people, FEWEST_PEOPLE, MOST_PEOPLE)
    check_size(size)
    options.check_seed(seed)
    # A stream each: faces, pictures and splits stay the same if another part draws more numbers.
    for_people, for_ages, for_views, for_splits, for_sheet = np.random.default_rng(seed).spawn(5)
    drawn = faces.draw_people(for_people, people, LOOKS_SPREAD)
    person, group, age = _draw_ages(for_ages, people)
    options.check_room(len(person), size)
    views = faces.draw_views(for_views, len(person))
    images = portrait.draw_pictures(for_views, drawn.take(person), age, views, size)
    number = pd.Series(person).groupby(person).cumcount()
    examples = pd.DataFrame(
        {
            "image_id": [f"P{p:04d}-{k:02d}" for p, k in zip(person, number, strict=True)],
            "person_id": [f"P{p:04d}" for p in person],
            "age_group": group,
            "age": age,
            "split": _split_people(for_splits, person, people)[person],
            "source": "drawn",
        }
    )
    return dataset.write(
        out,
        images=images,
        examples=examples,
        name="synthetic",
        class_names=CLASS_NAMES,
        settings={"forget_by": "person", "people": people, "size": size, "looks_spread": LOOKS_SPREAD},
        seed=seed,
        sources={},
        extra_files={"contact_sheet.png": _contact_sheet(for_sheet, drawn)},
    )


def _draw_ages(random: np.random.Generator, people: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw who is seen at what age, one entry a picture: person, age group and age in years."""
    ages = random.integers(*AGES_PER_PERSON, size=people, endpoint=True)
    person = np.repeat(np.arange(people), ages)
    # Dealing the groups from a shuffled pack keeps their shares close in a small set too.
    pack = np.repeat(np.arange(len(GROUP_SHARES)), np.ceil(np.array(GROUP_SHARES) * len(person)).astype(int))
    group = random.permutation(pack)[: len(person)]
    low, high = np.array(AGE_GROUPS).T
    age = random.integers(low[group], high[group], endpoint=True)
    pictures = random.integers(*PICTURES_PER_AGE, size=len(person), endpoint=True)
    return np.repeat(person, pictures), np.repeat(group, pictures), np.repeat(age, pictures)


def _split_people(random: np.random.Generator, person: np.ndarray, people: int) -> np.ndarray:
    """Give each person a split, ``[people]``: nobody stands in two."""
    held_out = max(1, round(HELD_OUT_SHARE * people))
    order = random.permutation(people)
    split = np.full(people, "retain", dtype=object)
    split[order[:held_out]] = "validation"
    split[order[held_out : 2 * held_out]] = "test"
    train = order[2 * held_out :]
    pictures = np.bincount(person, minlength=people)[train]
    forgotten = 1 + np.searchsorted(np.cumsum(pictures), FORGET_FRACTION * pictures.sum())
    split[train[:forgotten]] = "forget"
    return split


def _contact_sheet(random: np.random.Generator, people: faces.People) -> bytes:
    """Draw the first people once in each age group, at its middle: a PNG, one person a row."""
    shown = min(SHEET_PEOPLE, len(people.width))
    ages = np.tile(np.mean(AGE_GROUPS, axis=1), shown)
    rows = np.repeat(np.arange(shown), len(AGE_GROUPS))
    views = faces.draw_views(random, len(rows))
    pictures = portrait.draw_pictures(random, people.take(rows), ages, views, SHEET_SIZE)
    pictures = pictures.reshape(shown, len(AGE_GROUPS), 3, SHEET_SIZE, SHEET_SIZE)
    grid = pictures.transpose(0, 3, 1, 4, 2).reshape(shown * SHEET_SIZE, -1, 3)
    title = 18
    sheet = Image.new("RGB", (grid.shape[1], grid.shape[0] + title), "white")
    sheet.paste(Image.fromarray(grid), (0, title))
    pen = ImageDraw.Draw(sheet)
    for column, name in enumerate(CLASS_NAMES):
        pen.text(((column + 0.5) * SHEET_SIZE, title / 2), name, fill="black", anchor="mm")
    png = io.BytesIO()
    sheet.save(png, format="PNG")
    return png.getvalue()
