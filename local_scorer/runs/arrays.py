"""Arrays in a zip, as numpy's savez writes them, read without trust: sizes are checked before unpacking."""

from __future__ import annotations

import math
import zipfile

import numpy as np

LONGEST_HEADER = 10_000  # bytes


def read_array(
    archive: zipfile.ZipFile, name: str, dtype: type | None = None, n_axes: int | None = None
) -> np.ndarray:
    """Unpack one array whose own header claims what the zip's directory does; nothing is unpickled.

    Args:
        name: without ".npy".
        dtype, n_axes: what is expected; None accepts any.

    Raises:
        ValueError: the array is of another type or shape; damaged bytes lead to whatever numpy and zipfile raise.
    """
    member = archive.getinfo(f"{name}.npy")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(
            f"{name} is packed with a method other than deflate"
        )  # the others know no bound on memory
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"{name} has the format version {version}")
        shape, _, found = np.lib.format.read_array_header_1_0(file, max_header_size=LONGEST_HEADER)
        if found.hasobject or math.prod(shape) * found.itemsize > member.file_size:
            raise ValueError(f"{name} claims the shape {shape} of {found} in {member.file_size:,} bytes")
    if dtype is not None and found != np.dtype(dtype):
        raise ValueError(f"{name} holds {found}, expected {np.dtype(dtype)}")
    if n_axes is not None and len(shape) != n_axes:
        raise ValueError(f"{name} has {len(shape)} axes, expected {n_axes}")
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def refuse_large(archive: zipfile.ZipFile, most_bytes: int) -> None:
    """Raise a ValueError if the members of a zip claim more than `most_bytes` together."""
    claimed = sum(member.file_size for member in archive.infolist())
    if claimed > most_bytes:
        raise ValueError(f"it would unpack to {claimed:,} bytes, more than the {most_bytes:,} allowed")
