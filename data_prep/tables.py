"""Read CSV files strictly: a row with a value too many or too few is named by its line, and not made to fit."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence


def read_columns(data: bytes, columns: Sequence[str], what: str) -> tuple[list[int], list[tuple[str, ...]]]:
    """Return the line number of each row, and the values of each of `columns`.

    A byte order mark and blank lines are skipped.

    Args:
        what: names the file in an error.

    Raises:
        ValueError: the bytes are no CSV text, a column is missing or named twice, there are no rows, or a row has
            another number of values than the header.
    """
    try:
        text = data.decode("utf-8-sig")
        if "\0" in text:
            raise csv.Error("it holds a NUL byte")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = next(reader, [])
        numbered = [(reader.line_num, row) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{what} is not readable as CSV text ({error}).") from error
    missing = [column for column in columns if column not in header]
    if missing:
        raise ValueError(f"{what} has no column {', '.join(missing)}.")
    if len(set(header)) < len(header):
        raise ValueError(f"{what} names a column twice.")
    if not numbered:
        raise ValueError(f"{what} has no rows.")
    for line, row in numbered:
        if len(row) != len(header):
            raise ValueError(
                f"{what}, line {line}: expected a value for each of the {len(header)} columns, found {len(row)}."
            )
    lines, rows = zip(*numbered, strict=True)
    by_column = list(zip(*rows, strict=True))
    return list(lines), [by_column[header.index(column)] for column in columns]


def read_rows(data: bytes, columns: Sequence[str], what: str) -> list[tuple[int, tuple[str, ...]]]:
    """Return the line number and the values in `columns` of each row; see `read_columns`."""
    lines, values = read_columns(data, columns, what)
    return list(zip(lines, zip(*values, strict=True), strict=True))
