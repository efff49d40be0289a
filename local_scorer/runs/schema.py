"""Read JSON that others may have written into frozen dataclasses: every field there, of its type, and no other."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import types
import typing
from typing import Any, TypeVar

T = TypeVar("T")

NAMES = {str: "text", int: "a whole number", float: "a finite number", bool: "true or false", type(None): "null"}


def from_json(kind: type[T], text: str | bytes, ignore_unknown: bool = False) -> T:
    """Return the dataclass `kind` from the text of a JSON object.

    Args:
        ignore_unknown: take no notice of fields that `kind` does not have, at any depth.

    Raises:
        ValueError: it is no JSON, or a field is missing, unknown or of a wrong type.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: not JSON, or not UTF-8
        raise ValueError(f"it is not JSON: {error}") from error
    return read(kind, content, ignore_unknown=ignore_unknown)


def read(kind: Any, value: object, name: str = "it", ignore_unknown: bool = False) -> Any:
    """Return `value`, as json.loads gives it, as an instance of the type `kind`; see `from_json`.

    >>> read(tuple[int, ...], [1, 2])
    (1, 2)
    >>> read(float | None, None, "seconds") is None
    True
    >>> read(int, "1", "seed")
    Traceback (most recent call last):
    ValueError: seed must be a whole number, found '1'
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return _read_fields(kind, value, name, ignore_unknown)
    if origin in (types.UnionType, typing.Union):
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return None if value is None else read(inner, value, name, ignore_unknown)
    if origin is tuple:
        items = _checked(list, value, name, "a list")
        return tuple(read(arguments[0], item, f"{name}[{n}]", ignore_unknown) for n, item in enumerate(items))
    if origin is dict:
        items = _checked(dict, value, name, "an object")
        return {key: read(arguments[1], item, f"{name}.{key}", ignore_unknown) for key, item in items.items()}
    if kind is float and type(value) is int and abs(value) <= sys.float_info.max:
        return value
    found = _checked(kind, value, name, NAMES[kind])
    if kind is float and not math.isfinite(found):
        raise ValueError(f"{name} must be {NAMES[float]}, found {found}")
    return found.encode(errors="replace").decode() if kind is str else found  # half a character cannot be written


def _read_fields(kind: type, value: object, name: str, ignore_unknown: bool) -> Any:
    content = _checked(dict, value, name, "an object")
    types_of = typing.get_type_hints(kind)
    prefix = "" if name == "it" else f"{name}."
    fields = {field.name: field for field in dataclasses.fields(kind)}
    unknown = sorted(content.keys() - fields.keys())
    if unknown and not ignore_unknown:
        raise ValueError(f"{prefix}{unknown[0][:80]} is no field that is known here")
    for field in fields.values():
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if needed and field.name not in content:
            raise ValueError(f"{prefix}{field.name} is missing")
    return kind(
        **{
            field: read(types_of[field], content[field], f"{prefix}{field}", ignore_unknown)
            for field in fields
            if field in content
        }
    )


def _checked(kind: type, value: object, name: str, expected: str) -> Any:
    if type(value) is not kind:  # True is no whole number here
        found = "null" if value is None else repr(value)[:80]
        raise ValueError(f"{name} must be {expected}, found {found}")
    return value
