"""Figures of the report page: one drawing, kept as PNG and put into the page as SVG that knows dark and light.

The drawings have the colours of `plots.PALETTE`. In SVG each of these becomes a CSS variable of the page
(``#22262b`` -> ``var(--ink)``), and text takes the page's font.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import re
import warnings
from pathlib import Path

import numpy as np
from matplotlib import image, rc_context
from matplotlib.figure import Figure

from local_scorer.report.plots import PALETTE
from local_scorer.runs.store import write_atomically

DPI = 160
NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


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

    def show(self, figure: Figure, name: str, label: str) -> str:
        """Write a figure as PNG and return it as an ``<svg>`` element, see `svg`."""
        self.keep(figure, name)
        return svg(figure, name, label)

    def tidy(self) -> None:
        """Remove the PNG files of an earlier page that this one has not written again."""
        for path in set(self.folder.glob("*.png")) - set(self.paths):
            path.unlink()


def svg(figure: Figure, name: str, label: str) -> str:
    """Return a figure as an ``<svg>`` element for an HTML page.

    Args:
        name: prefix of its ids, unique in the page.
        label: what the figure shows, for readers who do not see it.
    """
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        _save(figure, buffer, format="svg", transparent=True, metadata=NO_METADATA)
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    box = re.search(r'viewBox="[\d. ]+"', drawing).group()
    drawing = re.sub(r"<(style|metadata)\b.*?</\1>", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r"<[^>]*>", lambda tag: _clean_tag(tag.group(), name), drawing)
    drawing = re.sub(r">\s+<", "><", drawing)
    return re.sub(r"^<svg[^>]*>", lambda _: f'<svg {box} role="img" aria-label="{html.escape(label)}">', drawing)


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


def _clean_tag(tag: str, name: str) -> str:
    """Keep the ids that are referred to, made unique; turn colours into variables; shorten numbers."""
    tag = re.sub(r' id="[A-Za-z0-9]*[_.][\w.]*"', "", tag)  # of groups, such as line2d_7; none refers to them
    tag = tag.replace(' id="', f' id="{name}-').replace('href="#', f'href="#{name}-')
    tag = tag.replace("url(#", f"url(#{name}-")
    tag = re.sub(r"font-family: [^;\"]*; ?| transform=\"rotate\(-0 [^\"]*\"", "", tag)
    tag = re.sub(r"(\.\d\d)\d+", r"\1", tag).replace("\n", " ")
    for color, value in PALETTE.items():
        tag = tag.replace(value, f"var(--{color})")
    return tag
