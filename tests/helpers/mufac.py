"""A made-up data set in the shape of MUFAC: 21 rows that hold one case of everything the command resolves."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 32
FOLDERS = {"train": "train_images", "val": "val_images", "test": "test_images"}
# split, family, role, age, age class and number, picture (-n: a brightened, re-encoded copy of picture n)
ROWS = [
    ("train", "F0001", "D", 18, "a1", 1),
    ("train", "F0001", "D", 18, "b1", 2),
    ("train", "F0001", "GM", 70, "g1", 3),
    ("train", "F0002", "GM", 70, "g1", 3),  # equal: the grandmother of two families
    ("train", "F0002", "GM", 70, "h1", 4),
    ("train", "F0003", "D", 18, "a1", -1),  # near
    ("train", "F0003", "D", 18, "c1", 5),
    ("train", "F0004", "M", 45, "e1", 6),
    ("train", "F0005", "M", 45, "f1", 6),  # equal, with another label
    ("train", "F0005", "M", 45, "d1", 7),
    ("train", "F0006", "S", 9, "a1", 8),
    ("train", "F0006", "S", 9, "b1", 9),
    ("train", "F0007", "F", 50, "f1", 10),
    ("val", "F0801", "S", 9, "a1", 8),  # equal, across train and validation
    ("val", "F0801", "S", 9, "b2", 11),
    ("val", "F0802", "D", 20, "c1", 12),
    ("val", "F0802", "D", 20, "d1", 13),
    ("val", "F0803", "M", 40, "d1", 14),
    ("test", "F0851", "D", 20, "c1", 12),  # equal, across validation and test
    ("test", "F0851", "D", 20, "c2", 15),
    ("test", "F0852", "F", 30, "d1", 16),
]


def pixels(picture: int, side: int = SIDE) -> np.ndarray:
    """Return a smooth random picture, uint8 ``[side, side, 3]``, the same for the same number."""
    coarse = np.random.default_rng(picture).integers(30, 220, size=(5, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))


def jpeg(picture: int, side: int = SIDE) -> bytes:
    """Encode a picture; a negative number gives a brightened copy at another quality."""
    values = pixels(abs(picture), side).astype(np.float32)
    if picture < 0:
        values = values * 1.05 + 8
    file = io.BytesIO()
    quality = 95 if picture > 0 else 80
    Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=quality)
    return file.getvalue()


def name(row: tuple) -> str:
    """Return the file name of a row, as MUFAC writes it."""
    _, family, role, age, kind, _ = row
    return f"{family}_AGE_{role}_{age}_{kind}.jpg"


def files(rows: list[tuple] = ROWS) -> dict[str, bytes]:
    """Return the data set as path and content."""
    content = {}
    for split, folder in FOLDERS.items():
        lines = ["family_id,person_id,age_class,image_path"]
        for row in rows:
            if row[0] == split:
                lines.append(f"{row[1]},{row[2]},{row[4][0]},{name(row)}")
                content[f"{folder}/{name(row)}"] = jpeg(row[5])
        content[f"custom_{split}_dataset.csv"] = ("\n".join(lines) + "\n").encode()
    return content


def write_folder(path: Path, content: dict[str, bytes]) -> Path:
    """Write the data set as a folder."""
    for file_name, data in content.items():
        file = path / file_name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return path


def write_zip(path: Path, content: dict[str, bytes], top: str = "", method: int = zipfile.ZIP_DEFLATED) -> Path:
    """Write the data set as a zip, below the folder `top`, as in ``"MUFAC/"``."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for file_name, data in content.items():
            archive.writestr(top + file_name, data)
    return path
