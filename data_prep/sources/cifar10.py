"""Prepare CIFAR-10 as in the competition's starting kit: forget a random tenth of the training pictures.

example:
  python -m data_prep cifar10 --source data/torchvision --out data/cifar10
  python -m data_prep verify data/cifar10

--source is the folder that holds cifar-10-batches-bin (the "binary version") or cifar-10-batches-py (what
torchvision's CIFAR10 downloads), or one of these folders. The binary files are read directly. The Python
files are pickles, which can run code when they are opened: torchvision opens them only after every file has
shown its published MD5 sum. The test pictures are halved at random into validation and test.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from data_prep import dataset, options

CLASS_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
TRAIN_FILES = [f"data_batch_{number}" for number in range(1, 6)]
TEST_FILE = "test_batch"
BINARY_FOLDER, PYTHON_FOLDER = "cifar-10-batches-bin", "cifar-10-batches-py"
PICTURES_PER_FILE = 10_000
SIDE = 32  # pixels

_GET_AGAIN = "Get CIFAR-10 again from https://www.cs.toronto.edu/~kriz/cifar.html."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("--source", type=Path, required=True, help="folder with CIFAR-10 on disk")
    parser.add_argument("--out", type=Path, required=True, help="folder to write, which must not exist yet")
    parser.add_argument(
        "--forget-fraction", type=float, default=0.1, help="share of the training pictures (default 0.1)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the forget set (default 0)")


def run(args: argparse.Namespace) -> int:
    """Prepare the set and say what it holds."""
    out = prepare(args.source, args.out, forget_fraction=args.forget_fraction, seed=args.seed)
    data = dataset.load(out)
    counts = ", ".join(f"{split} {len(data.rows(split)):,}" for split in dataset.SPLITS)
    print(f"Prepared {len(data.images):,} pictures of {SIDE} px in {out}: {counts}.")
    return 0


def prepare(source: Path | str, out: Path | str, forget_fraction: float = 0.1, seed: int = 0) -> Path:
    """Read CIFAR-10 from `source` and write the prepared data set to `out`.

    Every picture counts as a person of its own, and its age is unknown (-1).

    Raises:
        ValueError: a file is missing or damaged, a setting is out of range, or `out` holds something else.
    """
    options.check_share("--forget-fraction", forget_fraction)
    options.check_seed(seed)
    files = _find_files(Path(source))
    read = _read_python if files[0].parent.name == PYTHON_FOLDER else _read_binary
    images, labels = read(files)
    n_train = len(images) * len(TRAIN_FILES) // len(files)
    parts = (("train", n_train), ("test", len(images) - n_train))
    name = [f"{part}-{i:05d}" for part, size in parts for i in range(size)]
    file_names = np.repeat([file.name for file in files], PICTURES_PER_FILE)
    examples = pd.DataFrame(
        {
            "image_id": name,
            "person_id": name,
            "age_group": labels,
            "age": -1,
            "split": _split(n_train, len(images), forget_fraction, seed),
            "source": [f"{file}:{i % PICTURES_PER_FILE}" for i, file in enumerate(file_names)],
        }
    )
    return dataset.write(
        out,
        images=images,
        examples=examples,
        name="cifar10",
        class_names=CLASS_NAMES,
        settings={"forget_by": "row", "forget_fraction": forget_fraction},
        seed=seed,
        sources={file.name: dataset.sha256_of(file) for file in files},
    )


def _split(n_train: int, n: int, forget_fraction: float, seed: int) -> np.ndarray:
    """Give each row its split, ``[n]``; the first `n_train` rows are the training pictures."""
    random = np.random.default_rng(seed)
    split = np.full(n, "retain", dtype=object)
    split[random.permutation(n_train)[: max(1, round(forget_fraction * n_train))]] = "forget"
    held_out = n_train + random.permutation(n - n_train)
    half = len(held_out) // 2
    split[held_out[:half]] = "validation"
    split[held_out[half:]] = "test"
    return split


def _find_files(source: Path) -> list[Path]:
    """Return the five training files and the test file; the binary version where both are there."""
    for name, suffix in ((BINARY_FOLDER, ".bin"), (PYTHON_FOLDER, "")):
        folder = source if source.name == name else source / name
        if folder.is_dir():
            files = [folder / f"{file}{suffix}" for file in [*TRAIN_FILES, TEST_FILE]]
            for file in files:
                if not file.is_file():
                    raise ValueError(f"{file} is missing. {_GET_AGAIN}")
            return files
    command = f"import torchvision; torchvision.datasets.CIFAR10({str(source)!r}, download=True)"
    raise ValueError(
        f"{source} holds neither {BINARY_FOLDER} nor {PYTHON_FOLDER}. Name the folder that does with "
        f'--source, or download it: python -c "{command}"'
    )


def _read_binary(files: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Read records of one label byte and 3,072 pixel bytes: images ``[n, 3, 32, 32]``, labels ``[n]``."""
    record = 1 + 3 * SIDE * SIDE
    batches = []
    for file in files:
        expected, found = PICTURES_PER_FILE * record, file.stat().st_size
        if found != expected:
            raise ValueError(f"{file} has {found:,} bytes, expected {expected:,}. {_GET_AGAIN}")
        batch = np.fromfile(file, dtype=np.uint8).reshape(PICTURES_PER_FILE, record)
        wrong = np.flatnonzero(batch[:, 0] >= len(CLASS_NAMES))
        if len(wrong):
            label = batch[wrong[0], 0]
            raise ValueError(f"{file}, picture {wrong[0]}: label {label}, expected 0 to 9. {_GET_AGAIN}")
        batches.append(batch)
    records = np.concatenate(batches)
    return records[:, 1:].reshape(-1, 3, SIDE, SIDE), records[:, 0].astype(np.int64)


def _read_python(files: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Let torchvision read the Python version, once each file has its published MD5 sum."""
    from torchvision.datasets import CIFAR10  # torch takes seconds to import, and only this needs it

    published = dict(CIFAR10.train_list + CIFAR10.test_list)
    published[CIFAR10.meta["filename"]] = CIFAR10.meta["md5"]
    folder = files[0].parent
    for name, md5 in published.items():
        file = folder / name
        if not file.is_file():
            raise ValueError(f"{file} is missing. {_GET_AGAIN}")
        if hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest() != md5:
            raise ValueError(f"{file} is not the published file: its MD5 sum differs. {_GET_AGAIN}")
    parts = [CIFAR10(str(folder.parent), train=train) for train in (True, False)]
    images = np.concatenate([part.data for part in parts]).transpose(0, 3, 1, 2).astype(np.uint8)
    return images, np.concatenate([part.targets for part in parts]).astype(np.int64)
