"""Does damaged data ever end in a traceback, or pass unnoticed? Files are damaged at random and read again.

    python -m studies.fuzz_data --each 30

A prepared data set is opened, then verified; a made-up MUFAC zip and a tree in the competition's layout are
prepared. What comes of it: "refused" by a sentence, "found" by verify, "the same" where the damage changes nothing
that counts (a line end, the order of keys), or "read" where the damaged file is a file of its kind as well: a JPEG
has no checksum, and a manifest under a fresh hash is another manifest. "missed" and "tracebacks" must be 0; the
exit code is 1 if they are not.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from data_prep import dataset, manifest, verify
from data_prep.sources import kaggle, mufac, synthetic
from studies import frame

OUTCOMES = ("refused", "found", "the same", "read", "missed", "tracebacks")
TOKENS = (
    b"\0", b'"', b",", b"\n", b"\r", b"\xef\xbb\xbf", b"\xff", b"NaN", b"null", b"-1", b"1e999", b"9" * 30,
    b"[" * 5000, b"../x", "\u202e".encode(), b"\\ud800", b"{}", b"=1+1",
)  # fmt: skip
VALUES = (None, True, -1, 10**30, 1.5, "", "x", "\ud800", [], {}, [[]], {"x": [None]}, "9" * 5000)
PEOPLE, SIZE = 10, 16


@dataclass(frozen=True)
class Target:
    """A file that is damaged, and how it is read: `read` returns an outcome or raises."""

    name: str
    path: Path
    read: Callable[[], str]


def cut(random: np.random.Generator, data: bytes) -> bytes:
    """Keep the beginning."""
    return data[: random.integers(len(data))]


def flip(random: np.random.Generator, data: bytes) -> bytes:
    """Flip one to eight bits; half the time within the first 200 bytes, where headers are."""
    changed = bytearray(data)
    span = len(data) if random.random() < 0.5 else min(200, len(data))
    for place in random.integers(span, size=random.integers(1, 9)):
        changed[place] ^= 1 << random.integers(8)
    return bytes(changed)


def insert(random: np.random.Generator, data: bytes) -> bytes:
    """Put something awkward in the middle, or in place of as many bytes."""
    token, place = TOKENS[random.integers(len(TOKENS))], random.integers(len(data))
    return data[:place] + token + data[place + len(token) * random.integers(2) :]


def repeat(random: np.random.Generator, data: bytes) -> bytes:
    """Repeat a part, which moves what follows."""
    start, end = sorted(random.integers(len(data), size=2))
    return data[:end] + data[start:end] + data[end:]


def blank(random: np.random.Generator, data: bytes) -> bytes:
    """Set a run of bytes to 0, as a disk does that lost a block."""
    start = random.integers(len(data))
    length = min(int(random.integers(1, 513)), len(data) - start)
    return data[:start] + bytes(length) + data[start + length :]


def exchange(random: np.random.Generator, data: bytes) -> bytes:
    """Put a file of another kind under this name."""
    other, buffer = random.integers(5), io.BytesIO()
    if other == 0:
        np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    elif other == 1:
        np.save(buffer, np.zeros((2, 3), order="F"))
    elif other == 2:
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("a.txt", data[:1000])
    elif other == 3:
        Image.new("L", (int(random.integers(1, 40)), 20)).save(buffer, "PNG")
    else:
        buffer.write(json.dumps([None] * int(random.integers(4))).encode())
    return buffer.getvalue()


def revalue(random: np.random.Generator, data: bytes) -> bytes:
    """Change, drop or add a value of a manifest, and give it the hash of its new content."""
    content = json.loads(data)
    place, key = content, random.choice([key for key in content if key != "schema"])
    while isinstance(place[key], dict) and place[key] and random.random() < 0.5:
        place = place[key]
        key = random.choice(list(place))
    value = VALUES[random.integers(len(VALUES))]
    if random.random() < 0.2:
        del place[key]
    else:
        place[str(key) if random.random() < 0.8 else "more"] = value
    content["content_sha256"] = manifest.content_hash(content)
    return json.dumps(content).encode()


FAULTS = {
    "cut": cut, "bits flipped": flip, "inserted": insert, "repeated": repeat, "blanked": blank,
    "another file": exchange,
}  # fmt: skip


def targets(root: Path, random: np.random.Generator) -> list[Target]:
    """Make the files to damage."""
    folder = synthetic.prepare(root / "prepared", people=PEOPLE, size=SIZE)
    data = dataset.load(folder)
    images, columns = np.array(data.images), {name: column.tolist() for name, column in data.columns.items()}

    def open_prepared() -> str:
        found = dataset.load(folder)
        if verify.problems(folder):
            return "found"
        equal = (
            found.manifest == data.manifest
            and np.array_equal(found.images, images)
            and {name: column.tolist() for name, column in found.columns.items()} == columns
        )
        return "the same" if equal else "missed"

    def preparing(prepare: Callable[..., Path], source: Path) -> Callable[[], str]:
        def read() -> str:
            with tempfile.TemporaryDirectory(dir=root) as place:
                found = verify.problems(prepare(source, Path(place) / "out"))
            return "found" if found else "read"

        return read

    tree, packed = write_tree(data, root / "tree"), write_mufac(root / "mufac", random)
    unpacked = root / "unpacked"
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(unpacked)
    from_tree, from_zip = preparing(kaggle.prepare, tree), preparing(mufac.prepare, packed)
    from_folder = preparing(mufac.prepare, unpacked)
    return [
        *(Target(name, folder / name, open_prepared) for name in ("images.npy", "examples.csv", "manifest.json")),
        Target("tree: forget.csv", tree / "forget.csv", from_tree),
        Target("tree: a PNG", next(tree.glob("images/*/*.png")), from_tree),
        Target("MUFAC: the zip", packed, from_zip),
        Target("MUFAC: its CSV", unpacked / mufac.FILES["train"][0], from_folder),
        Target("MUFAC: a JPEG", next(unpacked.glob("train_images/*.jpg")), from_folder),
    ]


def write_tree(data: dataset.PreparedDataset, tree: Path) -> Path:
    """Write a prepared data set in the competition's layout."""
    for split in dataset.SPLITS:
        lines = [",".join(kaggle.COLUMNS)]
        for row in data.rows(split):
            person, _, number = data.columns["image_id"][row].partition("-")
            place = tree / "images" / person
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(data.images[row].transpose(1, 2, 0)).save(place / f"{number}.png")
            lines.append(",".join(str(data.columns[name][row]) for name in kaggle.COLUMNS))
        (tree / f"{split}.csv").write_text("\n".join(lines) + "\n")
    return tree


def write_mufac(path: Path, random: np.random.Generator) -> Path:
    """Write a zip as MUFAC's, of 24 made-up pictures of eight families."""
    path = path.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        family = 0
        for split, (csv_name, folder) in mufac.FILES.items():
            lines = [",".join(mufac.CSV_COLUMNS)]
            for _ in range(4 if split == "train" else 2):
                family += 1
                for letter in "acf":
                    name = f"F{family:04d}_AGE_D_18_{letter}1.jpg"
                    lines.append(f"F{family:04d},D,{letter},{name}")
                    coarse = Image.fromarray(random.integers(30, 220, (5, 5, 3), dtype=np.uint8))
                    file = io.BytesIO()
                    coarse.resize((32, 32), Image.Resampling.BICUBIC).save(file, "JPEG")
                    archive.writestr(f"{folder}/{name}", file.getvalue())
            archive.writestr(csv_name, "\n".join(lines) + "\n")
    return path


def outcome_of(target: Target, data: bytes) -> tuple[str, str | None]:
    """Put `data` in the place of the target and read it; return the outcome, and what a traceback ends in."""
    whole = target.path.read_bytes()
    target.path.write_bytes(data)
    try:
        return target.read(), None
    except (ValueError, OSError) as error:
        sentence = str(error).rstrip()
        return ("refused", None) if sentence.endswith(".") else ("tracebacks", f"no sentence: {sentence[:200]}")
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return "tracebacks", f"{type(error).__name__}: {error}"[:200]
    finally:
        target.path.write_bytes(whole)


def main() -> int:
    """Damage every file in every way."""
    parser = frame.parser("studies.fuzz_data", __doc__)
    parser.add_argument("--each", type=int, default=30, help="times each file is damaged in each way (default 30)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    random, rows, worst = np.random.default_rng(args.seed), [], []
    with tempfile.TemporaryDirectory() as place:
        for target in targets(Path(place), random):
            whole = target.path.read_bytes()
            faults = {**FAULTS, "values changed": revalue} if target.path.name == "manifest.json" else FAULTS
            for name, fault in faults.items():
                counts, slowest = Counter(), 0.0
                for _ in range(args.each):
                    start = time.perf_counter()
                    outcome, reason = outcome_of(target, fault(random, whole))
                    slowest = max(slowest, time.perf_counter() - start)
                    counts["read" if fault is revalue and outcome == "missed" else outcome] += 1
                    if reason:
                        worst.append(f"{target.name}, {name}: {reason}")
                rows.append(
                    [
                        target.name,
                        name,
                        args.each,
                        *(counts[outcome] for outcome in OUTCOMES),
                        round(1e3 * slowest),
                    ]
                )
    columns = ["file", "fault", "times", *(outcome.replace(" ", "_") for outcome in OUTCOMES), "slowest_ms"]
    frame.publish("studies.fuzz_data", args.results, columns, rows, notes=sorted(set(worst)))
    return int(any(row[columns.index("missed")] or row[columns.index("tracebacks")] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
