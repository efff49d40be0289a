"""Small pieces of HTML for the report page. Whatever comes from an entry or a data set goes through `text`."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from local_scorer.report.board import CEILING, FLOOR, Row

UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(value: Any) -> str:
    """Return a value as text without control characters, those that turn the direction of writing included.

    >>> plain("red \\x1b[31m")
    'red �[31m'
    """
    return UNSAFE.sub("�", str(value))


def text(value: Any) -> str:
    """Return a value as text that is safe in HTML and in quoted attributes.

    >>> text('<b title="x">')
    '&lt;b title=&quot;x&quot;&gt;'
    """
    return html.escape(plain(value))


def number(value: float | None, digits: int = 4) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def percent(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{value:.{digits}%}"


def signed(value: float | None) -> str:
    """Return a number with its sign, and 0 with a plus.

    >>> signed(-0.126), signed(-0.001)
    ('−0.13', '+0.00')
    """
    if value is None:
        return "–"
    return f"{round(value, 2) + 0.0:+.2f}".replace("-", "−")


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
    return "–" if low is None or high is None else f"{low:.4f} to {high:.4f}"


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


def interval(row: Row) -> str:
    """Return the interval of a row's score, or a dash."""
    return between(row.score_low, row.score_high)


def command(line: str, introduction: str) -> str:
    """Return the command that made something below its introduction; nothing where it is not known.

    Args:
        introduction: HTML.
    """
    return f"<p>{introduction}</p>\n<pre>{text(line)}</pre>" if line else ""


def status(row: Row) -> str:
    word = text({FLOOR: "floor", CEILING: "ceiling"}.get(row.entry, row.status))
    return f'<span class="status {word}">{word}</span>'


def facts(tiles: list[tuple[str, str, str]]) -> str:
    """Return tiles of a name, a value and a sentence that explains it."""
    cells = "".join(
        f'<div><dt>{text(name)}</dt><dd class="value">{text(value)}</dd><dd class="why">{text(why)}</dd></div>'
        for name, value, why in tiles
    )
    return f'<dl class="facts">{cells}</dl>'


def terms(pairs: list[tuple[str, Any]]) -> str:
    """Return a list of names, each with its explanation or value."""
    lines = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in pairs)
    return f'<dl class="terms">{lines}</dl>'


def sentences(name: str, lines: Sequence[str], style: str = "notes") -> str:
    """Return a list of sentences; nothing if there is none.

    Args:
        name: of the list, for readers who do not see it.
        style: "notes" for what the reader has to know, "ties" for calm ones.
    """
    items = "".join(f"<li>{text(line)}</li>" for line in lines)
    return f'<ul class="{style}" aria-label="{text(name)}">{items}</ul>' if items else ""


def table(caption: str, heads: list[str], lines: list[str], sortable: bool = False) -> str:
    """Return a table that scrolls sideways where the screen is narrow.

    Args:
        caption, heads: plain text.
        lines: the ``<tr>`` elements.
    """
    cells = "".join(f'<th scope="col">{text(head)}</th>' for head in heads)
    return (
        f'<div class="scroll" role="region" aria-label="{text(caption)}" tabindex="0">'
        f"<table{' class=sortable' if sortable else ''}><caption>{text(caption)}</caption>\n"
        f"<thead><tr>{cells}</tr></thead>\n<tbody>\n" + "\n".join(lines) + "\n</tbody></table></div>"
    )


def figure_card(drawing: str, caption: str) -> str:
    """Return a drawing on a card with a caption, plain text."""
    return f'<figure class="card">{drawing}<figcaption>{text(caption)}</figcaption></figure>'


def document(title: str, body: str) -> str:
    """Return a whole page that needs nothing but itself; its policy forbids to load or run anything else."""
    style, script = (
        Path(__file__).with_name(f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{text(title)}</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}
</main>
<script>{script}</script>
</body>
</html>
"""
