"""Recompute every hash and invariant of a prepared dataset.

example:
  python -m data_prep verify data/mufac32

Prints one line a check, and exits with 1 if any of them found a problem. A set that was drawn by rows (mufac
--raw, cifar10) repeats people and pictures by design: there the repeats are counted, and are no problem.
"""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from data_prep import dataset
from data_prep.dataset import SPLITS, PreparedDataset


@dataclass(frozen=True)
class Check:
    """The outcome of one check: what it looked at, what it found, and whether that is a problem."""

    name: str
    found: str
    problem: bool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="the prepared dataset")


def run(args: argparse.Namespace) -> int:
    """Print one line a check; return 1 if there is a problem."""
    results = checks(args.folder)
    for check in results:
        print(f"{'PROBLEM' if check.problem else 'ok':9}{check.name:22}{check.found}")
    return 1 if any(check.problem for check in results) else 0


def problems(folder: Path | str) -> list[str]:
    """Return one sentence for each problem of a prepared dataset: none if it is whole."""
    return [f"{check.name}: {check.found}" for check in checks(folder) if check.problem]


def checks(folder: Path | str) -> list[Check]:
    """Check a prepared dataset. Where its files do not open, that is the only check."""
    try:
        data = dataset.load(folder)
    except ValueError as error:
        return [Check("files", str(error), True)]
    manifest, examples = data.manifest, data.examples
    raw = manifest["settings"].get("raw") is True
    by_row = manifest["settings"].get("forget_by") == "row"
    thirds = {"retain": "train", "forget": "train", "validation": "validation", "test": "test"}
    halves = {"retain": "retain", "forget": "forget"}
    return [
        Check("files", f"{len(examples):,} rows and as many images.", False),
        Check("manifest.json", f"Its content has the hash {manifest['content_sha256']}.", False),
        _check_hash(data, "images.npy"),
        _check_hash(data, "examples.csv"),
        _check_counts(data),
        _check_names(examples),
        _check_people("train/validation/test", examples, thirds, allowed=raw),
        _check_people("retain/forget", examples, halves, allowed=raw or by_row),
        _check_pictures(data, allowed=raw or by_row),
    ]


def _check_hash(data: PreparedDataset, name: str) -> Check:
    found, stated = dataset.sha256_of(data.folder / name), data.manifest["sha256"][name]
    if found == stated:
        return Check(name, f"SHA-256 {found}.", False)
    return Check(name, f"SHA-256 is {found}, the manifest says {stated}.", True)


def _check_counts(data: PreparedDataset) -> Check:
    """Compare the manifest's numbers with those of the rows and the images."""
    manifest, examples = data.manifest, data.examples
    pairs: dict[str, tuple[Any, Any]] = {
        "n_images": (len(examples), manifest["n_images"]),
        "image_shape": (list(data.images.shape[1:]), manifest["image_shape"]),
    }
    for split in SPLITS:
        rows = examples[examples["split"] == split]
        counts = [int((rows["age_group"] == group).sum()) for group in range(data.n_classes)]
        pairs[f"counts of {split}"] = (counts, manifest["counts"][split])
        pairs[f"people of {split}"] = (rows["person_id"].nunique(), manifest["people"][split])
    audit = manifest["audit"] or {}
    if isinstance(audit.get("rows"), int) and isinstance(audit.get("dropped"), dict):
        stated = audit["rows"] - sum(audit["dropped"].values())
        pairs["rows that the audit kept"] = (len(examples), stated)
    wrong = [f"{key}: found {found}, stated {stated}" for key, (found, stated) in pairs.items() if found != stated]
    if wrong:
        return Check("counts", f"The manifest does not fit the rows ({'; '.join(wrong)}).", True)
    sizes = (f"{split} {sum(pairs[f'counts of {split}'][0]):,}" for split in SPLITS)
    return Check("counts", f"As the manifest says: {', '.join(sizes)}.", False)


def _check_names(examples: pd.DataFrame) -> Check:
    """Check that each row names its picture, its person and its source, and no two the same picture."""
    empty = (examples[["image_id", "person_id", "source"]] == "").any(axis=1)
    repeated = examples["image_id"].duplicated()
    bad = examples.index[empty | repeated]
    if len(bad):
        what = f"{len(bad):,} rows lack a name or repeat an image_id, line {bad[0] + 2} of examples.csv first."
        return Check("image_id", what, True)
    return Check("image_id", f"{len(examples):,} different ones, and no row without a name.", False)


def _check_people(name: str, examples: pd.DataFrame, sides: dict[str, str], allowed: bool) -> Check:
    """Check that no person stands on two sides; `sides` names the side of each split."""
    side = examples["split"].map(sides)  # a split without a side becomes NaN, which nunique ignores
    n_sides = side.groupby(examples["person_id"]).nunique()
    torn, n_people = n_sides.index[n_sides > 1], int((n_sides > 0).sum())
    if torn.empty:
        return Check(name, f"None of {n_people:,} people stands in two of them.", False)
    by_design = " This set was drawn by rows." if allowed else ""
    what = f"{len(torn):,} of {n_people:,} people stand in two of them, {torn[0]} for one.{by_design}"
    return Check(name, what, not allowed)


def _check_pictures(data: PreparedDataset, allowed: bool) -> Check:
    """Check that no two images have equal pixels."""
    first: dict[bytes, int] = {}
    repeats = []
    for row, image in enumerate(data.images):
        original = first.setdefault(hashlib.sha256(image.tobytes()).digest(), row)
        if original != row:
            repeats.append((original, row))
    if not repeats:
        return Check("pictures", f"{len(first):,} different ones.", False)
    a, b = repeats[0]
    by_design = " This set was drawn by rows." if allowed else ""
    what = f"{len(repeats):,} images repeat an earlier one, image {b} is image {a} for one.{by_design}"
    return Check("pictures", what, not allowed)
