"""How the report page writes numbers and names; each function is a filter of its templates."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from local_scorer.report.table import shortened

NAME_LENGTH = 64  # of an entry in a table; a longer name loses its middle there
UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(value: Any) -> str:
    """Return a value as text without control characters, those that turn the direction of writing included.

    >>> plain("red \\x1b[31m")
    'red �[31m'
    """
    return UNSAFE.sub("�", str(value))


def short_name(name: str) -> str:
    """Return the name of an entry for a table."""
    return shortened(name, NAME_LENGTH)


def unknown(value: float | None) -> bool:
    return value is None or value != value  # NaN


def number(value: float | None, digits: int = 4) -> str:
    return "–" if unknown(value) else f"{value:.{digits}f}"


def percent(value: float | None, digits: int = 0) -> str:
    return "–" if unknown(value) else f"{value:.{digits}%}"


def signed(value: float | None) -> str:
    """Return a number with its sign, and 0 with a plus.

    >>> signed(-0.126), signed(-0.001)
    ('−0.13', '+0.00')
    """
    return "–" if unknown(value) else f"{round(value, 2) + 0.0:+.2f}".replace("-", "−")


def factor(value: float | None) -> str:
    """Return a number by which something is multiplied.

    >>> factor(0.5)
    '×0.50'
    """
    return "–" if unknown(value) else f"×{value:.2f}"


def seconds(value: float) -> str:
    """Return a time, short ones with two digits after the point.

    >>> seconds(1.926), seconds(19.26)
    ('1.93 s', '19.3 s')
    """
    return f"{value:.{2 if value < 10 else 1}f} s"


def counted(n: int, noun: str) -> str:
    """Return a number of things.

    >>> counted(1, "forget example"), counted(65, "forget example")
    ('1 forget example', '65 forget examples')
    """
    return f"{n} {noun}{'' if n == 1 else 's'}"


def between(low: float | None, high: float | None) -> str:
    """Return an interval of scores, or a dash where there is none."""
    return "–" if unknown(low) or unknown(high) else f"{low:.4f} to {high:.4f}"


def summary(values: np.ndarray, factor: float = 1, unit: str = "") -> tuple[str, str]:
    """Return mean with standard deviation, and range; without a unit, two digits after the point below 10.

    >>> summary(np.array([0.5, 0.75]), 100, "%")
    ('62.5 ± 17.7%', '50.0 – 75.0%')
    >>> summary(np.array([1.5, 1.75]))
    ('1.62 ± 0.18', '1.50 – 1.75')
    """
    values = factor * values
    digits = 1 if unit or values.mean() >= 10 else 2
    mean, sd, low, high = (
        f"{value:.{digits}f}" for value in (values.mean(), values.std(ddof=1), values.min(), values.max())
    )
    return f"{mean} ± {sd}{unit}", f"{low} – {high}{unit}"


FILTERS = {
    filter_.__name__: filter_
    for filter_ in (short_name, number, percent, signed, factor, seconds, counted, between)
}
