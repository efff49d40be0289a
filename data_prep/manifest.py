"""manifest.json: what a prepared dataset is and where it came from, read strictly, under a hash of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

SCHEMA = 2
SPLITS = ("retain", "forget", "validation", "test")
HASHED_FILES = ("images.npy", "examples.csv")
MOST_BYTES = 4 << 20


def content_hash(manifest: dict[str, Any]) -> str:
    """Return the hash of everything in a manifest but the hash itself.

    It covers pictures and rows by their SHA-256, and name, class names, settings, seed, sources and audit.

    >>> content_hash({"seed": 1, "content_sha256": "x"}) == content_hash({"seed": 1})
    True
    """
    content = {key: value for key, value in manifest.items() if key != "content_sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def to_bytes(content: dict[str, Any]) -> bytes:
    """Return the text of a manifest, to which its hash is added.

    Raises:
        ValueError: a value is not of the form that `read` accepts.
    """
    manifest = {**content, "content_sha256": content_hash(content)}
    fault = _fault(manifest)
    if fault:
        raise ValueError(f"The manifest cannot be written: {fault}.")
    return (json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def read(path: Path) -> dict[str, Any]:
    """Read a manifest and check every field.

    Raises:
        ValueError: it cannot be read, is of another schema version, lacks a field, has one of another form, or was
            changed after it was written.
    """
    again = f"Delete {path.parent} and prepare it again."
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
        manifest = json.loads(text.decode(), parse_constant=_refuse_constant)
        json.dumps(manifest, ensure_ascii=False).encode()  # refuses halves of surrogate pairs
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read ({error}). {again}") from error
    if not isinstance(manifest, dict) or "schema" not in manifest:
        raise ValueError(f"{path} is no manifest of a prepared dataset. {again}")
    if manifest["schema"] != SCHEMA:
        raise ValueError(f"{path} has schema {manifest['schema']!r:.40}, this version reads {SCHEMA}. {again}")
    fault = _fault(manifest)
    if fault:
        raise ValueError(f"{path} is damaged: {fault}. {again}")
    if manifest["content_sha256"] != content_hash(manifest):
        raise ValueError(f"{path} was changed after it was written: its content_sha256 does not fit. {again}")
    return manifest


def _refuse_constant(name: str) -> None:
    raise ValueError(f"it holds {name}, which is no JSON")


def _fault(manifest: dict[str, Any]) -> str | None:
    """Return what is wrong with the first field that is missing or of another form; None if all are well."""
    for field, (fits, meaning) in _FORMS.items():
        if field not in manifest:
            return f"{field} is missing"
        if not fits(manifest[field]):
            return f"{field} must be {meaning}, found {manifest[field]!r:.60}"
    n_classes = len(manifest["class_names"])
    if any(len(counts) != n_classes for counts in manifest["counts"].values()):
        return f"counts must have a number for each of the {n_classes} classes"
    return None


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_number(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_list(value: Any, of: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(map(of, value))


def _is_table(value: Any, of: Callable[[Any], bool], keys: tuple[str, ...] | None = None) -> bool:
    return isinstance(value, dict) and all(map(of, value.values())) and (keys is None or set(value) == set(keys))


def _is_audit(value: Any) -> bool:
    return value is None or _is_table(value, lambda found: _is_number(found) or _is_table(found, _is_number))


_BY_SPLIT = f"a table of {', '.join(SPLITS)}"
_FORMS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "name": (_is_text, "a text"),
    "class_names": (lambda value: _is_list(value, _is_text), "a list of texts"),
    "n_images": (_is_number, "a whole number"),
    "image_shape": (lambda value: _is_list(value, _is_number), "a list of whole numbers"),
    "counts": (
        lambda value: _is_table(value, lambda counts: _is_list(counts, _is_number), SPLITS),
        f"{_BY_SPLIT} with numbers a class",
    ),
    "people": (lambda value: _is_table(value, _is_number, SPLITS), f"{_BY_SPLIT} with a number each"),
    "settings": (lambda value: isinstance(value, dict), "a table"),
    "seed": (_is_number, "a whole number from 0"),
    "sources": (lambda value: _is_table(value, _is_text), "a table of texts"),
    "audit": (_is_audit, "a table of whole numbers, or null"),
    "sha256": (lambda value: _is_table(value, _is_text, HASHED_FILES), f"a table of {' and '.join(HASHED_FILES)}"),
    "content_sha256": (_is_text, "a text"),
}
