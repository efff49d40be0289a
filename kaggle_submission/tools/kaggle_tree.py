"""Lay a prepared data set out as the competition did: CSV files, a PNG a picture, the original model.

example:
  python -m kaggle_submission kaggle-tree data/synthetic --out kaggle/tree
  python -m kaggle_submission kaggle-tree data/synthetic --out kaggle/tree --weights runs/default/weights/KEY.pt

The tree holds retain.csv, forget.csv and validation.csv (columns person_id, age_group, age, image_id),
images/PERSON/N.png for the image_id "PERSON-N", age_class_weights.json with the number of training pictures of
each output (1 where none occurs, so that it can be divided by), and original_model.pth. As on Kaggle there is no
test set, unless --with-test asks for it.

Without --weights the original is trained here, on the retain and the forget set. Notebooks of the competition
expect a ResNet-18 of width 64 with 10 outputs: --outputs 10 gives spare ones to a data set of fewer classes.
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from data_prep import dataset, folders
from data_prep.dataset import PreparedDataset
from data_prep.options import LARGEST_SEED, OptionError, check_range
from data_prep.sources.kaggle import COLUMNS, PLAIN_NAME

if TYPE_CHECKING:  # torch takes seconds to import, and the other commands do without
    import torch

    from local_scorer.models.recipes import Recipe

SPLITS = ("retain", "forget", "validation")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    add = parser.add_argument
    add("prepared", type=Path, metavar="PREPARED", help="a prepared data set")
    add("--out", type=Path, required=True, help="folder to write, which must not exist yet")
    add("--weights", type=Path, metavar="FILE", help="original model (state dict); default: train one")
    add("--recipe", default="quick", help="how to train it: competition, report or quick (default)")
    add("--width", type=int, default=64, help="channels of its stem: 16, 32 or 64 (default, as on Kaggle)")
    add("--outputs", type=int, help="its outputs (default: one a class)")
    add("--seed", type=int, default=0, help="of its training (default 0)")
    add("--with-test", action="store_true", help="write test.csv and its pictures too")


def run(args: argparse.Namespace) -> int:
    """Write the tree and say what it holds."""
    out = prepare(
        args.prepared,
        args.out,
        weights=args.weights,
        recipe=args.recipe,
        width=args.width,
        outputs=args.outputs,
        seed=args.seed,
        with_test=args.with_test,
    )
    counts = {path.stem: len(pd.read_csv(path)) for path in sorted(out.glob("*.csv"))}
    print(f"Wrote {out}: " + ", ".join(f"{split} {count:,}" for split, count in counts.items()) + " pictures.")
    return 0


def prepare(
    prepared: Path | str,
    out: Path | str,
    *,
    weights: Path | None = None,
    recipe: str = "quick",
    width: int = 64,
    outputs: int | None = None,
    seed: int = 0,
    with_test: bool = False,
) -> Path:
    """Write a prepared data set in the competition's layout.

    Args:
        weights: state dict of the original model; None to train one by `recipe` and `width`.
        outputs: outputs of the original model, at least the number of classes.

    Returns:
        `out`, which appears only once it is whole.

    Raises:
        OptionError: a setting cannot be used, or `out` holds something.
        ValueError: the data set or the weights cannot be used.
    """
    from local_scorer.models.recipes import RECIPES, WIDTHS

    folders.refuse_full(Path(out))
    check_range("--seed", seed, 0, LARGEST_SEED)
    if width not in WIDTHS:
        raise OptionError(f"--width must be one of {', '.join(map(str, WIDTHS))}, found {width}.")
    if recipe not in RECIPES:
        raise OptionError(f"Unknown recipe {recipe!r}: expected one of {', '.join(RECIPES)}.")
    data = dataset.load(prepared)
    if weights is not None:
        original = _read_weights(weights, data.n_classes, outputs)
    else:
        original = train_original(data, RECIPES[recipe], width, outputs or data.n_classes, seed, progress=True)
    return write(data, out, original, splits=(*SPLITS, "test") if with_test else SPLITS)


def write(
    data: PreparedDataset,
    out: Path | str,
    original: dict[str, torch.Tensor],
    splits: tuple[str, ...] = SPLITS,
    limits: dict[str, int] | None = None,
) -> Path:
    """Write the tree with the given original model.

    Args:
        limits: most pictures of a split; the first ones are taken. None, or a split that is not named: all.

    Raises:
        ValueError: a split has no pictures, or `out` holds something.
    """
    import torch

    from local_scorer.execution import kaggle_input

    out = Path(out)
    folders.refuse_full(out)
    examples = _with_tree_names(data.examples)
    rows = {split: data.rows(split)[: (limits or {}).get(split)] for split in splits}
    empty = [split for split, numbers in rows.items() if not len(numbers)]
    if empty:
        raise ValueError(f"{data.folder} has no pictures in its {empty[0]} split: the tree needs some.")
    with folders.whole_folder(out) as partial:
        for split, numbers in rows.items():
            table = examples.iloc[numbers]
            table.to_csv(partial / f"{split}.csv", columns=list(COLUMNS), index=False, lineterminator="\n")
            _write_pictures(data, numbers, table["image_id"], partial / "images", split)
        train = np.concatenate([rows["retain"], rows["forget"]])
        labels = examples.iloc[train]["age_group"].to_numpy(dtype=np.int64)
        outputs = len(original["fc.bias"]) if "fc.bias" in original else data.n_classes
        text = json.dumps(kaggle_input.class_counts(labels, outputs))
        (partial / "age_class_weights.json").write_text(text + "\n")
        torch.save(original, partial / "original_model.pth")
    return out


def train_original(
    data: PreparedDataset,
    recipe: Recipe,
    width: int,
    outputs: int,
    seed: int,
    limit: int | None = None,
    progress: bool = False,
) -> dict[str, torch.Tensor]:
    """Train an original model on retain and forget set; return its state dict on the CPU.

    Args:
        limit: most pictures of a split; the first ones are taken.
        progress: say what is done, with a bar on a terminal.

    Raises:
        OptionError: there are fewer outputs than classes, or the width is unknown.
    """
    import torch

    from local_scorer.models import nets as models

    if outputs < data.n_classes:
        raise OptionError(f"--outputs must be at least {data.n_classes}, the number of classes; found {outputs}.")
    if progress:
        print(f"Training the original by the recipe {recipe.name}, width {width} ...", file=sys.stderr)
    rows = np.concatenate([data.rows("retain")[:limit], data.rows("forget")[:limit]])
    labels = torch.from_numpy(data.columns["age_group"][rows])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = models.fresh_net(outputs, width, seed).to(device)
    images = torch.from_numpy(np.ascontiguousarray(data.images[rows])).to(device)
    counts = torch.bincount(labels, minlength=outputs)
    bar = functools.partial(tqdm, desc="Training the original", unit="epoch", disable=None if progress else True)
    models.train(net, images, labels.to(device), recipe, counts, seed, each_epoch=bar)
    return {name: tensor.cpu().contiguous() for name, tensor in net.state_dict().items()}


def _read_weights(path: Path, n_classes: int, outputs: int | None) -> dict[str, torch.Tensor]:
    from local_scorer.execution import checkpoint

    if not path.is_file():
        raise OptionError(f"There is no file {path}: name a state dict with --weights, or leave it out.")
    weights = checkpoint.read_resnet18(path, str(path))
    found = len(weights["fc.weight"])
    if found < n_classes or outputs not in (None, found):
        wanted = outputs or f"at least {n_classes}"
        raise OptionError(f"{path} is a model with {found} outputs, expected {wanted}. Name other --weights.")
    return weights


def _with_tree_names(examples: pd.DataFrame) -> pd.DataFrame:
    """Name each picture "PERSON-N": names of this form are kept, others are numbered."""
    plain = examples["person_id"].str.fullmatch(PLAIN_NAME)
    person = examples["person_id"]
    if not plain.all():
        person = (examples.groupby("person_id", sort=False).ngroup() + 1).astype(str)
    kept = all(
        re.fullmatch(rf"{re.escape(owner)}-{PLAIN_NAME}", name)
        for owner, name in zip(person, examples["image_id"], strict=True)
    )
    numbered = person + "-" + examples.groupby("person_id").cumcount().astype(str)
    return examples.assign(person_id=person, image_id=examples["image_id"] if kept else numbered)


def _write_pictures(data: PreparedDataset, rows: np.ndarray, names: pd.Series, folder: Path, split: str) -> None:
    named = zip(rows, names, strict=True)
    for row, name in tqdm(named, desc=f"Writing {split}", total=len(rows), unit="picture", disable=None):
        person, _, number = name.partition("-")
        (folder / person).mkdir(parents=True, exist_ok=True)
        Image.fromarray(data.images[row].transpose(1, 2, 0)).save(folder / person / f"{number}.png", "PNG")
