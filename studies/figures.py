"""Draw the pictures of README.md: the board from results/, and some of the built-in faces.

    python -m studies.figures

Writes docs/figures/board.png and docs/figures/faces.png.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from data_prep.sources import synthetic
from local_scorer.runs.store import write_atomically
from studies import boards, frame
from studies.frame import RESULTS, ROOT, Results, written

FIGURES = ROOT / "docs" / "figures"
BOARD = "builtin"
FACES_HEIGHT = 18 + 3 * 96  # pixels of the contact sheet: its heading and three people
BLUE, GREY = "#2563a8", "#8a8f98"


def main() -> None:
    """Draw both pictures."""
    argparse.ArgumentParser(prog="python -m studies.figures", description=__doc__.partition("\n")[0]).parse_args()
    FIGURES.mkdir(parents=True, exist_ok=True)
    write_atomically(FIGURES / "board.png", board(boards.table(RESULTS / BOARD)))
    write_atomically(FIGURES / "faces.png", faces())


def board(results: Results) -> bytes:
    """Draw the scores of a board with their intervals, best at the top, as PNG."""
    rows = [dict(zip(results.columns, row, strict=True)) for row in reversed(results.rows)]
    rows = [row for row in rows if row["score"] is not None]  # a rejected entry has none
    drawing = Figure(figsize=(8.2, 3.8), layout="constrained", dpi=130)
    FigureCanvasAgg(drawing)
    axes = drawing.subplots()
    for place, row in enumerate(rows):
        colour = BLUE if row["status"] == "scored" else GREY
        if row["score_low"] is not None:
            ends = [row["score_low"], row["score_high"]]
            axes.plot(ends, [place, place], color=colour, linewidth=2.5, alpha=0.5)
        axes.plot(row["score"], place, "o", color=colour, markersize=6)
        axes.annotate(
            written("score", row["score"]), (1.01, place), xycoords=("axes fraction", "data"),
            va="center", fontsize=9, color=colour, family="monospace",
        )  # fmt: skip
    names = [row["entry"] if row["status"] == "scored" else f"{row['entry']} ({row['status']})" for row in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=9)
    axes.set_xlim(left=-0.004)
    axes.set_xlabel("final score with its 95 % interval, official rules", fontsize=9)
    axes.tick_params(length=0, labelsize=9)
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right", "left"]].set_visible(False)
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png", metadata={"Software": None, "Description": described(results)})
    return buffer.getvalue()


def described(results: Results) -> str:
    """Return the scores of a board in words; the picture carries them, so that an old one is noticed."""
    return ", ".join(f"{row[0]} {written('score', row[1])}" for row in results.rows)


def faces() -> bytes:
    """Return the upper part of the contact sheet of the built-in set, as PNG."""
    with tempfile.TemporaryDirectory() as folder:
        made = synthetic.prepare(Path(folder) / "synthetic")
        with Image.open(made / "contact_sheet.png") as sheet:
            upper = sheet.crop((0, 0, sheet.width, FACES_HEIGHT))
    buffer = io.BytesIO()
    upper.quantize(128).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


if __name__ == "__main__":
    frame.exit_with(main)
