"""Figures of the report page: each is kept as PNG and shown in the page as SVG.

The drawings have the colours of `plots.PALETTE`; the style of the page replaces these by its own, light or dark.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup
from matplotlib import image, rc_context
from matplotlib.figure import Figure

from local_scorer.runs.store import write_atomically

DPI = 160
NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


@dataclass(frozen=True)
class Drawing:
    """An ``<svg>`` element, and what it shows for readers who do not see it."""

    svg: Markup
    label: str


class Gallery:
    """The PNG files of one page, ``FOLDER/NAME.png``; `paths` are those written."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.paths: list[Path] = []

    def keep(self, figure: Figure, name: str) -> None:
        """Write a figure as PNG, on white."""
        buffer = io.BytesIO()
        _save(figure, buffer, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
        path = self.folder / f"{name}.png"
        write_atomically(path, buffer.getvalue())
        self.paths.append(path)

    def show(self, figure: Figure, name: str, label: str) -> Drawing:
        """Write a figure as PNG and return it for the page; see `draw`."""
        self.keep(figure, name)
        return draw(figure, name, label)

    def tidy(self) -> None:
        """Remove the PNG files of an earlier page that this one has not written again."""
        for path in set(self.folder.glob("*.png")) - set(self.paths):
            path.unlink()


def draw(figure: Figure, name: str, label: str) -> Drawing:
    """Return a figure as an ``<svg>`` element for an HTML page.

    Args:
        name: prefix of its ids, unique in the page.
        label: what the figure shows.
    """
    for number, artist in enumerate(figure.findobj()):
        artist.set_gid(f"{name}-{number}")
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.sans-serif": ["DejaVu Sans"]}):
        _save(figure, buffer, format="svg", transparent=True, metadata=NO_METADATA)
    _, start, element = buffer.getvalue().partition("<svg")  # without the prolog of a file
    return Drawing(Markup(start + element), label)


def picture(pixels: np.ndarray) -> str:
    """Return a picture, uint8 ``[3, height, width]``, as the data URI of a PNG."""
    buffer = io.BytesIO()
    image.imsave(
        buffer, np.ascontiguousarray(pixels.transpose(1, 2, 0)), format="png", metadata={"Software": None}
    )
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def file_stem(name: str) -> str:
    """Return a name for files and ids; a hash keeps two apart that look alike once cleaned or in small letters.

    >>> file_stem("finetune"), file_stem("../up")
    ('finetune', 'up-8c722b')
    """
    clean = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:60]
    if clean and clean == name == name.lower():
        return clean
    return f"{clean}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:6]}"


def _save(figure: Figure, target: io.IOBase, **options) -> None:
    with warnings.catch_warnings():  # a name in letters that the font of the PNG lacks is drawn as boxes
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(target, **options)
