"""Reference packs: what an evaluation needs that does not depend on the entry, in one file.

A pack holds the originals' weights and the outputs of N retrained models and of N more, the ceiling. Whoever
scores against a pack has the same originals and the same retrained models, on any processor, and trains none of
them. It is a ``.npz`` of plain arrays and one JSON header, so that a pack from a stranger can be read: nothing is
unpickled, sizes are checked before anything is unpacked, and each array has its hash in the header.

    header                            JSON: see `Header`
    SPLIT_labels                      int64 [n_split], the true classes
    KIND_forget_logits                float32 [n_models, n_forget, n_classes]
    KIND_SPLIT_accuracy               float64 [n_models], shares from 0 to 1
    KIND_test_logits                  float16 [at most AUDITED, n_test, n_classes]
    KIND_retain_confidence            float16 [at most MARGINS, n_retain], logit-scaled
    KIND_validation_confidence        float16 [at most MARGINS, n_validation]
    KIND_wall_seconds, _cpu_seconds   float64 [n_models], of training
    weights                           float16 [n_originals, n_weights]; empty in a pack of outputs only
    images                            uint8 [n, 3, size, size], pictures; empty where they must not be passed on

KIND is original, retrained or ceiling; SPLIT is retain, forget, validation or test.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from local_scorer.runs.arrays import read_array, refuse_large
from local_scorer.runs.store import write_atomically

SCHEMA = 1
KINDS = ("original", "retrained", "ceiling")
SPLITS = ("retain", "forget", "validation", "test")
AUDITED = 10  # models whose answers on the test pictures are kept, for the membership attack
MARGINS = 128  # models whose confidences on retain and validation pictures are kept, for KLoM
FEWEST_MODELS = 3  # of each kind; fewer cannot be scored against
LARGEST = 4 << 30  # bytes that all arrays together may take when they are unpacked
FORMS = {  # type and axes of each array; those of models have one row a model, the last two for some of them
    "images": (np.uint8, 4),
    "weights": (np.float16, 2),
    "labels": (np.int64, 1),
    "accuracy": (np.float64, 1),
    "seconds": (np.float64, 1),
    "forget_logits": (np.float32, 3),
    "test_logits": (np.float16, 3),
    "confidence": (np.float16, 2),
}


@dataclass(frozen=True)
class Header:
    """What a pack is made of.

    Attributes:
        data: name of the prepared data set, `fingerprint` its content hash, `images_sha256` that of images.npy.
        class_names: one a class.
        recipe: how the models were trained, field by field.
        seed: the run seed; every model's own seed follows from it, its role and its number.
        parameters: name and shape of each weight, in the order of the array `weights`.
        environment: machine and versions that trained the models.
        command: what made the pack.
        arrays: SHA-256 of the bytes of each array.
    """

    data: str
    fingerprint: str
    images_sha256: str
    class_names: tuple[str, ...]
    recipe: dict[str, Any]
    width: int
    seed: int
    n_models: int
    n_originals: int
    parameters: tuple[tuple[str, tuple[int, ...]], ...]
    environment: dict[str, Any]
    command: str
    date: str
    arrays: dict[str, str]
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        """Refuse values of the wrong type, since a header may come from a stranger."""
        for name in ("data", "fingerprint", "images_sha256", "command", "date"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"its {name} is no text")
        for name, least in (("width", 1), ("seed", 0), ("n_models", FEWEST_MODELS), ("n_originals", 1)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ValueError(f"its {name} is {value!r}")
        for name in ("recipe", "environment", "arrays"):
            if not isinstance(getattr(self, name), dict):
                raise ValueError(f"its {name} is no table")
        if not all(isinstance(name, str) for name in self.class_names) or len(self.class_names) < 2:
            raise ValueError("its class names are no list of two or more names")
        for name, shape in self.parameters:
            if not isinstance(name, str) or not all(type(side) is int and side >= 0 for side in shape):
                raise ValueError("its list of weights is damaged")


class Pack:
    """A pack that has been opened: its header, and each array when it is asked for.

    Raises:
        ValueError: the file is not a pack, is damaged, or is not what its hashes say.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        try:
            self._zip = zipfile.ZipFile(self.path)
            self.header = _read_header(self._zip)
        except FileNotFoundError:
            raise ValueError(f"There is no reference pack {self.path}.") from None
        except Exception as error:  # zipfile and numpy raise whatever the damaged bytes lead to
            raise ValueError(f"{self.path} cannot be read as a reference pack ({error}).") from error
        self._check_members()

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    def array(self, name: str) -> np.ndarray:
        """Return an array, checked against its hash.

        Raises:
            ValueError: it is missing or is not what the header says.
        """
        if name not in self.header.arrays:
            raise ValueError(f"{self.path} has no array {name!r}.")
        try:
            form = next((FORMS[ending] for ending in FORMS if name.endswith(ending)), (None, None))
            array = read_array(self._zip, name, *form)
            self._check_rows(name, array)
        except Exception as error:
            raise ValueError(f"{self.path}: the array {name!r} is damaged ({error}).") from error
        if _digest(array) != self.header.arrays[name]:
            raise ValueError(f"{self.path}: the array {name!r} is not what its hash says. The pack was changed.")
        return array

    def weights(self, index: int) -> dict[str, np.ndarray]:
        """Return the weights of one original, name -> float16 or int64 array, as a state dict has them.

        Raises:
            ValueError: there is no such original, or the pack holds outputs only.
        """
        flat = self.array("weights")
        if not 0 <= index < len(flat):
            raise ValueError(
                f"{self.path} holds the weights of {len(flat)} originals: there is no number {index}."
            )
        sizes = [int(np.prod(shape)) for _, shape in self.header.parameters]
        parts = np.split(flat[index], np.cumsum(sizes)[:-1])
        return {
            name: part.reshape(shape) for part, (name, shape) in zip(parts, self.header.parameters, strict=True)
        }

    def facts(self) -> list[tuple[str, str]]:
        """Return what a reader wants to know of a pack, as pairs of name and text."""
        header, labels = self.header, {split: len(self.array(f"{split}_labels")) for split in SPLITS}
        kept = "with weights and pictures" if self.has_weights else "outputs only"
        return [
            ("data", f"{header.data}: " + ", ".join(f"{split} {n}" for split, n in labels.items()) + " pictures"),
            ("models", f"{header.n_originals} originals, {header.n_models} retrained, as many again; {kept}"),
            ("recipe", f"{header.recipe.get('name')}, width {header.width}, seed {header.seed}"),
            ("machine", f"{header.environment.get('processor')}; torch "
                        f"{(header.environment.get('packages') or {}).get('torch')}"),
            ("made", f"{header.date} by {header.command}"),
            ("sha256", self.sha256),
        ]  # fmt: skip

    @property
    def has_weights(self) -> bool:
        return bool(self.header.parameters)

    def _check_members(self) -> None:
        """Hold sizes and names of the zip's members against the header before anything is unpacked."""
        expected = {f"{name}.npy" for name in self.header.arrays} | {"header.npy"}
        found = [info.filename for info in self._zip.infolist()]
        if sorted(found) != sorted(expected):
            strange = sorted(set(found) ^ expected)[:3]
            raise ValueError(f"{self.path} is no whole reference pack: {', '.join(strange) or 'a doubled part'}.")
        try:
            refuse_large(self._zip, LARGEST)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}.") from None

    def _check_rows(self, name: str, array: np.ndarray) -> None:
        """Hold the sides of an array of models against what the header says."""
        kind, _, part = name.partition("_")
        if kind not in KINDS:
            return
        n_models = self.header.n_originals if kind == "original" else self.header.n_models
        if len(array) != n_models and not part.endswith(("confidence", "test_logits")):
            raise ValueError(f"it is of {len(array)} models, the header says {n_models}")
        if part.endswith("logits") and array.shape[2] != len(self.header.class_names):
            raise ValueError(f"it is of {array.shape[2]} classes, the header names {len(self.header.class_names)}")


def write(path: Path | str, header: Header, arrays: dict[str, np.ndarray]) -> Path:
    """Write a pack; `header.arrays` is filled in here."""
    values = asdict(header) | {"arrays": {name: _digest(array) for name, array in sorted(arrays.items())}}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, header=np.array(json.dumps(values, sort_keys=True)), **arrays)
    write_atomically(Path(path), buffer.getvalue())
    return Path(path)


def _read_header(archive: zipfile.ZipFile) -> Header:
    if archive.getinfo("header.npy").file_size > 1 << 20:
        raise ValueError("its header is too large")
    values = json.loads(str(read_array(archive, "header")))
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        raise ValueError(f"it has another schema than {SCHEMA}")
    missing = {field.name for field in fields(Header)} ^ values.keys()
    if missing:
        raise ValueError(f"its header has or lacks {', '.join(sorted(missing))}")
    values["class_names"] = tuple(values["class_names"])
    values["parameters"] = tuple((name, tuple(shape)) for name, shape in values["parameters"])
    return Header(**values)


def _digest(array: np.ndarray) -> str:
    """Return the SHA-256 of an array: type, shape and bytes."""
    array = np.ascontiguousarray(array)
    return hashlib.sha256(f"{array.dtype.str}{array.shape}".encode() + array.tobytes()).hexdigest()
