"""The report page: one HTML file that explains a run, and the same figures as PNG. Needs no torch.

The page loads nothing, from the network or elsewhere: style, script, figures and thumbnails are inside, and its
content security policy forbids the rest. The text is in ``templates/``, which escape all that they are given.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

import data_prep.dataset
from local_scorer.metric import score
from local_scorer.metric.clock import CLOCKS, TIME_LIMIT, deciding_clock
from local_scorer.metric.score import ModelSet
from local_scorer.report import columns, plots, svg, table, times
from local_scorer.report.board import Leaderboard
from local_scorer.report.columns import Column
from local_scorer.report.formats import FILTERS, plain
from local_scorer.report.rows import Row
from local_scorer.report.sections import Context, Section, compare, section
from local_scorer.report.svg import Drawing, Gallery
from local_scorer.runs.record import CEILING, FLOOR, Run, RunRecord
from local_scorer.runs.store import write_atomically
from local_scorer.statistics.audits import AUDITED_MODELS
from local_scorer.statistics.forecast import LEAST_MODELS

BUILT_IN = "synthetic"  # name of the data set that comes with this repository
TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class Share:
    """The share of redraws in which one entry beats another; "" for an entry beside itself."""

    shown: str
    told_apart: bool


@dataclass(frozen=True)
class Page:
    """All that the templates show.

    Attributes:
        anchors: entry -> the id of its section.
        sources: entry -> the hash that its file in the run folder is named by.
        sections: entry -> its section, for rows whose models were evaluated.
        forest, narrow_forest: the scores with their intervals, for wide and for narrow windows.
        has_intervals: whether the forest plots show any.
        groups: see `groups_of`.
        pairs: see `pairs_of`.
        certainty: columns of the table of intervals.
        faces_note: why there are no pictures of the examples; empty if nothing needs to be said.
        sizes: how many models are behind each score.
        drawn: what pairs of entries were compared over.
        suffix: of the names of the files of this page.
    """

    board: Leaderboard
    retrained: ModelSet
    anchors: dict[str, str]
    sources: dict[str, str]
    sections: dict[str, Section]
    forest: Drawing
    narrow_forest: Drawing
    has_intervals: bool
    groups: dict[str, int]
    pairs: dict[str, list[Share]]
    standings: tuple[Column, ...]
    certainty: tuple[Column, ...]
    faces_note: str
    sizes: str
    drawn: str
    suffix: str

    @property
    def row(self) -> dict[str, Row]:
        return {row.entry: row for row in self.board.rows}


def write_page(run: Run, board: Leaderboard, thumbnails: Path | None = None, suffix: str = "") -> list[Path]:
    """Write ``report.html`` and ``figures/*.png`` into the run folder and return their paths.

    PNG files of an earlier page are removed from the folder of the figures.

    Args:
        board: what `board.collect` returns for the same run.
        thumbnails: folder of the prepared dataset, to show the pictures of the examples. Without it, or if it
            is not the data of this run, the page has no pictures and says so.
        suffix: of both names, such as "-notebook"; as for `board.write`.

    Raises:
        ValueError: results of the original or the retrained models are missing or damaged.
    """
    gallery = Gallery(run.folder.root / f"figures{suffix}")
    faces, faces_note = faces_of(run.record, thumbnails)
    forest, narrow_forest = _forests(board, gallery)
    groups = groups_of(board)
    ahead = next((row.forecast for row in board.rows if row.forecast), None)
    page = Page(
        board=board,
        retrained=run.retrained,
        anchors={row.entry: f"entry-{position}" for position, row in enumerate(board.rows, 1)},
        sources={entry.name: entry.hash for entry in run.record.entries},
        sections=_sections(run, board, faces, gallery),
        forest=forest,
        narrow_forest=narrow_forest,
        has_intervals=any(row.score_low is not None for row in board.rows),
        groups=groups,
        pairs=pairs_of(board),
        standings=(*([columns.of_group(groups)] if groups else []), *columns.STANDINGS),
        certainty=(*columns.CERTAINTY, *([columns.of_forecast(ahead.n_models)] if ahead else [])),
        faces_note=faces_note,
        sizes=table.sizes(board),
        drawn="redraws of models and forget examples in" if run.record.n_sets == 1 else "originals from",
        suffix=suffix,
    )
    path = run.folder.root / f"report{suffix}.html"
    write_atomically(path, render("page.html", page=page).encode())
    gallery.tidy()
    return [path, *gallery.paths]


def render(template: str, **values: Any) -> str:
    """Return a template with its values put in, each as text that is safe in HTML and for a reader's screen."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, finalize=lambda value: value if isinstance(value, Markup) else plain(value),
    )  # fmt: skip
    environment.filters |= FILTERS
    style, script = (Markup((TEMPLATES / f"page.{kind}").read_text(encoding="utf-8")) for kind in ("css", "js"))
    environment.globals |= {
        "style": style,
        "script": script,
        "script_digest": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "palette": plots.PALETTE,
        "leaves": leaves,
        "AUDITS": columns.AUDITS,
        "AUDITED_MODELS": AUDITED_MODELS,
        "CEILING": CEILING,
        "FLOOR": FLOOR,
        "LEAST_MODELS": LEAST_MODELS,
        "CLOCKS": CLOCKS,
        "TIME_LIMIT": TIME_LIMIT,
    }
    return environment.get_template(template).render(**values)


def faces_of(record: RunRecord, thumbnails: Path | None) -> tuple[np.ndarray | None, str]:
    """Return the pictures of the forget set, or a sentence why there are none."""
    if thumbnails is None and record.data.name == BUILT_IN:  # its folder is gone or was made anew
        return None, ""
    if thumbnails is None:
        return None, "Pictures of the examples are left out; --thumbnails shows them."
    try:
        data = data_prep.dataset.load(thumbnails)
    except (ValueError, OSError):
        return None, f"There are no pictures of the examples: {thumbnails} is not a prepared dataset."
    if data.fingerprint != record.data.fingerprint:
        return None, f"There are no pictures of the examples: {thumbnails} is not the data of this run."
    return data.images[data.rows("forget")], ""


def groups_of(board: Leaderboard) -> dict[str, int]:
    """Return the group of each entry: those that cannot be told apart share a number, 1 is the best.

    The references are in it only where they are in a tie. Under the notebook rules nothing is compared.
    """
    leaders = {name: tie.entries[0] for tie in board.ties for name in tie.entries}
    numbers: dict[str, int] = {}
    return {
        row.entry: numbers.setdefault(leaders.get(row.entry, row.entry), len(numbers) + 1)
        for row in board.rows
        if board.comparisons and row.score is not None and (row.entry in leaders or not row.is_reference)
    }


def pairs_of(board: Leaderboard) -> dict[str, list[Share]]:
    """Return how often each compared entry beats each of them, itself included, in the order of the board."""
    shares = {}
    for pair in board.comparisons:
        shares[pair.first, pair.second] = Share(f"{pair.share:.0%}", pair.told_apart)
        shares[pair.second, pair.first] = Share(f"{1 - pair.share:.0%}", pair.told_apart)
    names = [row.entry for row in board.rows if any(row.entry in pair for pair in shares)]
    nothing = Share("", False)
    return {name: [shares.get((name, other), nothing) for other in names] for name in names}


def leaves(tree: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Return the leaves of nested settings, dataclasses or dicts, with their paths.

    >>> leaves({"recipe": {"lr": 0.1}, "class_names": ["a", "b"]})
    [('recipe lr', 0.1), ('class names', 'a, b')]
    """
    found = []
    for key, value in (tree if isinstance(tree, dict) else asdict(tree)).items():
        name = f"{prefix}{key.replace('_', ' ')}"
        if isinstance(value, dict):
            found += leaves(value, f"{name} ")
        else:
            found.append((name, ", ".join(map(str, value)) if isinstance(value, list | tuple) else value))
    return found


def _sections(run: Run, board: Leaderboard, faces: np.ndarray | None, gallery: Gallery) -> dict[str, Section]:
    """Hold the models of every row that has some, those from the first original, against the retrained ones."""
    statistic = score.statistic(run.retrained, board.rules)
    compared = {
        row.entry: compare(row, run.models(row.entry), statistic, board.rules)
        for row in board.rows
        if row.n_models
    }
    ceiling = compared[CEILING]
    clock = deciding_clock(run.record.settings.device)
    context = Context(
        rules=board.rules,
        class_names=board.data.class_names,
        retrained=run.retrained,
        statistic=statistic,
        ceiling=ceiling,
        clock=clock,
        training_seconds={name: times.training_seconds(run, name, clock) for name in compared},
        faces=faces,
    )
    return {name: section(one, context, gallery) for name, one in compared.items()}


def _forests(board: Leaderboard, gallery: Gallery) -> tuple[Drawing, Drawing]:
    """Draw the scores with their intervals twice; the style of the page shows the one that fits the window."""
    rows = [row for row in board.rows if row.score is not None]
    scores = {row.entry: row.score for row in rows}
    low, high = (
        [np.nan if end is None else end for end in ends]
        for ends in ([row.score_low for row in rows], [row.score_high for row in rows])
    )
    kinds = [{CEILING: "retrained", FLOOR: "muted"}.get(row.entry, "unlearned") for row in rows]
    label = "Scores of all scored rows, with floor and ceiling."

    def drawn(width: float, height: float, names_above: bool) -> Figure:
        figure, axes = plots.new_figure(width, 0.75 + height * len(rows))
        plots.forest(
            axes, [plain(name) for name in scores], list(scores.values()), low, high, kinds, scores[FLOOR],
            scores[CEILING], names_above,
        )  # fmt: skip
        return figure

    wide = gallery.show(drawn(10.2, 0.26, False), "leaderboard", label)
    return wide, svg.draw(drawn(3.7, 0.4, True), "leaderboard-narrow", label)
