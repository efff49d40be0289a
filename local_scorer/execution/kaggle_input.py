"""What entries read from the competition's data folder besides pictures: class counts and the original model."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np

COMPETITION = "neurips-2023-machine-unlearning"
FOLDERS = ("input", "tmp", "working")
PLACES = re.compile(  # /kaggle, or the .. of a text such as "../input", as seen from /kaggle/working
    rf"""(?<![\w./])/kaggle(?=/|['"]|\s|$)|(?<=['"])\.\.(?=/(?:{'|'.join(FOLDERS)})(?:/|['"]))"""
)


def class_counts(labels: np.ndarray, n_outputs: int) -> dict[str, int]:
    """Return what stands in age_class_weights.json: the pictures of each class in the full training set.

    An output whose class has no pictures counts as one picture, so that its reciprocal exists.

    >>> class_counts(np.array([0, 0, 2]), 4)
    {'0': 2, '1': 1, '2': 1, '3': 1}
    """
    counts = np.bincount(labels, minlength=n_outputs)
    return {str(group): max(1, int(count)) for group, count in enumerate(counts)}


def make_folders(root: Path) -> Path:
    """Make the folders of Kaggle below `root`; return that of the competition's data, which is not made."""
    for name in FOLDERS:
        (root / "kaggle" / name).mkdir(parents=True)
    return root / "kaggle" / "input" / COMPETITION


def write(root: Path, labels: np.ndarray, n_outputs: int, weights: Path) -> None:
    """Write the two files, in Kaggle's folders below `root`, where `moved` lets code look for them.

    Args:
        labels: of the full training set, retain and forget.
        weights: state dict of the original model.
    """
    folder = make_folders(root)
    folder.mkdir()
    (folder / "age_class_weights.json").write_text(json.dumps(class_counts(labels, n_outputs)) + "\n")
    shutil.copyfile(weights, folder / "original_model.pth")


def is_named_in(text: str) -> bool:
    """Say whether code names a place below /kaggle."""
    return PLACES.search(text) is not None


def moved(text: str, root: Path | str) -> str:
    """Return code in which /kaggle is a folder below `root`.

    >>> moved("open('/kaggle/tmp/a'), open('../input/b'), open('../data/c')", "/root")
    "open('/root/kaggle/tmp/a'), open('/root/kaggle/input/b'), open('../data/c')"
    """
    return PLACES.sub(lambda match: f"{root}/kaggle", text)
