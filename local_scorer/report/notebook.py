"""Figures of a finished run for notebooks, made from its stored arrays. Needs no torch.

    run = open_run("runs/default")
    run.standings()
    run.confidences("finetune")

Each returns a matplotlib figure, which a notebook shows when it ends a cell. Colours and drawing of single
quantities are those of `plots`: unlearned models orange, retrained ones blue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from data_prep.dataset import PreparedDataset
from local_scorer import metric
from local_scorer.metric import score
from local_scorer.metric.clock import CLOCKS, TIME_LIMIT, deciding_clock
from local_scorer.report import plots
from local_scorer.report.board import Leaderboard, collect
from local_scorer.report.plots import CONFIDENCE, PALETTE, calm
from local_scorer.report.table import shortened
from local_scorer.runs.record import CEILING, Run


def open_run(folder: Path | str) -> RunFigures:
    """Open a run folder.

    Raises:
        ValueError: it holds no run, or the run is not finished.
    """
    run = Run.open(folder)
    return RunFigures(run, collect(run))


@dataclass(frozen=True)
class RunFigures:
    """A finished run, its leaderboard, and figures of both."""

    run: Run
    board: Leaderboard

    def epsilons(self, entry: str) -> np.ndarray:
        """Return the epsilon of each forget example under the run's rules, ``[n_forget]``.

        Raises:
            ValueError: the run has no such entry, or the entry has failed.
        """
        rules = self.board.rules
        ours, theirs = (score.statistic(models, rules) for models in (self.run.models(entry), self.run.retrained))
        return metric.epsilons(ours, theirs, rules)

    def standings(self) -> Figure:
        """Draw accuracy and time of every row that has arrays, beside the retrained models."""
        rows = [row for row in self.board.rows if row.retain_accuracy is not None]
        figure, panels = plots.new_figure(10, 1.2 + 0.42 * len(rows), columns=4, sharey=True)
        colors = [PALETTE["retrained"] if row.entry == CEILING else PALETTE["unlearned"] for row in rows]
        retrained, dashed = self.run.retrained, "retrained dashed"
        limit = f"{CLOCKS[deciding_clock(self.board.provenance.settings.device)]}, limit {TIME_LIMIT:.0%} dashed"
        for axes, (name, title, mark, right, label) in zip(panels, (
            ("retain_accuracy", "retain accuracy", retrained.retain_accuracy.mean(), 1, dashed),
            ("test_accuracy", "test accuracy", retrained.test_accuracy.mean(), 1, dashed),
            ("forget_accuracy", "forget accuracy", retrained.forget_accuracy.mean(), 1, dashed),
            ("time_ratio", "time / retraining", TIME_LIMIT, 2.2 * TIME_LIMIT, limit),
        ), strict=True):  # fmt: skip
            values = [getattr(row, name) or 0 for row in rows]
            axes.barh(range(len(rows)), values, color=colors, height=0.62, alpha=0.85)
            axes.axvline(mark, color=PALETTE["ink"], linewidth=1.1, linestyle=(0, (4, 3)))
            axes.set_title(title, fontsize=10, color=PALETTE["ink"])
            axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
            axes.set_xlim(0, right)
            calm(axes, label)
        panels[0].set_yticks(range(len(rows)), [shortened(row.entry, 42) for row in rows], parse_math=False)
        panels[0].invert_yaxis()
        return figure

    def confidences(self, entry: str) -> Figure:
        """Draw the confidence in every forget example, under unlearned, retrained and original models."""
        ours, theirs, original = (
            metric.logit_scaled_confidence(models.logits, models.labels)
            for models in (self.run.models(entry), self.run.retrained, self.run.original)
        )
        order = np.argsort(theirs.mean(axis=0))
        at, orange, blue = np.arange(len(order)), PALETTE["unlearned"], PALETTE["retrained"]
        figure, axes = plots.new_figure(10, 3.6)
        low, high = np.quantile(theirs[:, order], [0.1, 0.9], axis=0)
        axes.fill_between(at, low, high, step="mid", color=blue, alpha=0.25, linewidth=0, label="retrained, 80%")
        axes.step(at, theirs[:, order].mean(axis=0), where="mid", color=blue, label="retrained, mean")
        low, high = np.quantile(ours[:, order], [0.1, 0.9], axis=0)
        axes.vlines(at, low, high, color=orange, linewidth=2, label="unlearned, 80%")
        axes.plot(at, ours[:, order].mean(axis=0), "o", color=orange, markersize=3.5, label="unlearned, mean")
        axes.plot(at, original[0, order], "_", color=PALETTE["ink"], markersize=6, label="original")
        axes.set_title(f"{CONFIDENCE}: {entry}", fontsize=10, color=PALETTE["ink"], parse_math=False)
        axes.legend(frameon=False, fontsize=9, ncols=5, loc="upper left")
        axes.margins(x=0.01, y=0.15)
        calm(axes, "forget examples, in the order of the retrained models", "confidence")
        return figure

    def epsilon_histogram(self, entry: str) -> Figure:
        """Draw how many forget examples have which epsilon, and what it earns; the ceiling as an outline."""
        figure, axes = plots.new_figure(7.5, 3.4)
        ceiling = None if entry == CEILING else self.epsilons(CEILING)
        plots.epsilon_histogram(axes, self.epsilons(entry), self.board.n_models, self.board.rules, ceiling)
        return figure

    def hardest(self, entry: str, data: PreparedDataset, count: int = 5) -> Figure:
        """Draw the forget examples that give the entry away: the face, and its confidence under all models.

        Raises:
            ValueError: `data` is not the data set of the run.
        """
        if data.fingerprint != self.board.data.fingerprint:
            raise ValueError(f"{data.folder} is not the data set of {self.run.folder.root}.")
        epsilons, rows = self.epsilons(entry), data.rows("forget")
        ours, theirs = (
            metric.logit_scaled_confidence(models.logits, models.labels)
            for models in (self.run.models(entry), self.run.retrained)
        )
        distance = np.abs(ours.mean(axis=0) - theirs.mean(axis=0))
        order = np.lexsort((-distance, -epsilons))[:count]
        size = 2.6 * len(order), 4.4
        figure, panels = plots.new_figure(*size, 2, len(order), squeeze=False, height_ratios=(1.2, 1))
        labels = data.labels("forget")
        for example, face, axes in zip(order, *panels, strict=True):
            title = f"{data.class_names[labels[example]]} years, epsilon {epsilons[example]:.1f}"
            _show(face, data.images[rows[example]], title)
            plots.confidences(axes, ours[:, example], theirs[:, example], label="confidence")
        return figure


def faces(images: np.ndarray, titles: Sequence[str], columns: int = 8) -> Figure:
    """Draw pictures, uint8 ``[n, 3, H, W]``, in a grid with a title each."""
    rows = -(-len(images) // columns)
    figure, grid = plots.new_figure(1.35 * columns, 1.6 * rows, rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, image, title in zip(grid.flat, images, titles, strict=False):
        _show(axes, image, title)
    return figure


def _show(axes: Axes, image: np.ndarray, title: str) -> None:
    axes.imshow(image.transpose(1, 2, 0))
    axes.set_title(title, fontsize=8.5, color=PALETTE["ink"], parse_math=False)
    axes.axis("off")
