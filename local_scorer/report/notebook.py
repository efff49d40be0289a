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
from local_scorer.metric.score import TIME_LIMIT, ModelSet
from local_scorer.report import board, plots
from local_scorer.report.board import Leaderboard
from local_scorer.report.plots import PALETTE
from local_scorer.runs import record
from local_scorer.runs.record import CEILING, FLOOR

CONFIDENCE = "confidence, ln p/(1 − p) of the true class"


def open_run(folder: Path | str) -> Run:
    """Open a run folder.

    Raises:
        ValueError: it holds no run, or the run is not finished.
    """
    run = record.Run.open(folder)
    return Run(run, board.collect(run))


@dataclass(frozen=True)
class Run:
    """Figures of a finished run; its models are those of the `stored` run."""

    stored: record.Run
    board: Leaderboard

    def models(self, entry: str) -> ModelSet:
        """Return what the models of an entry left, or those of the row "retrained" or "no unlearning".

        Raises:
            ValueError: the run has no such entry, or the entry has failed.
        """
        return self.stored.models(entry)

    @property
    def retrained(self) -> ModelSet:
        """The retrained models that all entries are compared with."""
        return self.stored.retrained

    def epsilons(self, entry: str) -> np.ndarray:
        """Return the epsilon of each forget example under the run's rules, ``[n_forget]``."""
        rules = self.board.rules
        ours, theirs = (score.statistic(models, rules) for models in (self.models(entry), self.retrained))
        return metric.epsilons(ours, theirs, rules)

    def standings(self) -> Figure:
        """Draw accuracy and time of every row that has arrays, beside the retrained models."""
        rows = [row for row in self.board.rows if row.retain_accuracy is not None]
        figure = Figure(figsize=(10, 1.2 + 0.42 * len(rows)), layout="constrained")
        panels = figure.subplots(1, 4, sharey=True)
        kinds = [("retain_accuracy", "retain accuracy"), ("test_accuracy", "test accuracy")]
        kinds += [("forget_accuracy", "forget accuracy"), ("time_ratio", "time / retraining")]
        for axes, (name, title) in zip(panels, kinds, strict=True):
            values = [getattr(row, name) for row in rows]
            colors = [PALETTE["retrained"] if row.entry == CEILING else PALETTE["unlearned"] for row in rows]
            axes.barh(range(len(rows)), [value or 0 for value in values], color=colors, height=0.62, alpha=0.85)
            mark = TIME_LIMIT if name == "time_ratio" else float(getattr(self.retrained, name).mean())
            axes.axvline(mark, color=PALETTE["ink"], linewidth=1.1, linestyle=(0, (4, 3)))
            axes.set_title(title, fontsize=10, color=PALETTE["ink"])
            axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
            if name == "time_ratio":
                axes.set_xlim(0, 2.2 * TIME_LIMIT)
                axes.set_xlabel(f"limit {TIME_LIMIT:.0%} dashed", fontsize=9, color=PALETTE["muted"])
            else:
                axes.set_xlim(0, 1)
                axes.set_xlabel("retrained dashed", fontsize=9, color=PALETTE["muted"])
            _calm(axes)
        panels[0].set_yticks(range(len(rows)), [plots.shortened(row.entry, 42) for row in rows], parse_math=False)
        panels[0].invert_yaxis()
        return figure

    def confidences(self, entry: str) -> Figure:
        """Draw the confidence in every forget example, under unlearned, retrained and original models."""
        ours, theirs, original = (
            metric.logit_scaled_confidence(models.logits, models.labels)
            for models in (self.models(entry), self.retrained, self.models(FLOOR))
        )
        order = np.argsort(theirs.mean(axis=0))
        at = np.arange(len(order))
        figure = Figure(figsize=(10, 3.6), layout="constrained")
        axes = figure.subplots()
        low, high = np.quantile(theirs[:, order], [0.1, 0.9], axis=0)
        axes.fill_between(
            at, low, high, step="mid", color=PALETTE["retrained"], alpha=0.25, linewidth=0, label="retrained, 80%"
        )
        axes.step(
            at, theirs[:, order].mean(axis=0), where="mid", color=PALETTE["retrained"], label="retrained, mean"
        )
        low, high = np.quantile(ours[:, order], [0.1, 0.9], axis=0)
        axes.vlines(at, low, high, color=PALETTE["unlearned"], linewidth=2, label=f"{entry}, 80%")
        axes.plot(at, ours[:, order].mean(axis=0), "o", color=PALETTE["unlearned"], markersize=3.5)
        axes.plot(at, original[0, order], "_", color=PALETTE["ink"], markersize=6, label="original")
        axes.set_xlabel("forget examples, in the order of the retrained models", color=PALETTE["muted"])
        axes.set_ylabel("confidence", color=PALETTE["muted"])
        axes.set_title(f"{CONFIDENCE}: {entry}", fontsize=10, color=PALETTE["ink"])
        axes.legend(frameon=False, fontsize=9, ncols=4, loc="upper left")
        axes.margins(x=0.01, y=0.15)
        _calm(axes)
        return figure

    def epsilon_histogram(self, entry: str) -> Figure:
        """Draw how many forget examples have which epsilon, and what it earns; the ceiling as an outline."""
        figure = Figure(figsize=(7.5, 3.4), layout="constrained")
        ceiling = None if entry == CEILING else self.epsilons(CEILING)
        axes = figure.subplots()
        plots.epsilon_histogram(axes, self.epsilons(entry), self.board.n_models, self.board.rules, ceiling)
        return figure

    def hardest(self, entry: str, data: PreparedDataset, count: int = 5) -> Figure:
        """Draw the forget examples that give the entry away: the face, and its confidence under all models.

        Raises:
            ValueError: `data` is not the data set of the run.
        """
        if data.fingerprint != self.board.data.fingerprint:
            raise ValueError(f"{data.folder} is not the data set of {self.stored.folder.root}.")
        epsilons, rows = self.epsilons(entry), data.rows("forget")
        ours, theirs = (
            metric.logit_scaled_confidence(models.logits, models.labels)
            for models in (self.models(entry), self.retrained)
        )
        distance = np.abs(ours.mean(axis=0) - theirs.mean(axis=0))
        order = np.lexsort((-distance, -epsilons))[:count]
        figure = Figure(figsize=(2.6 * len(order), 4.4), layout="constrained")
        panels = figure.subplots(2, len(order), squeeze=False, height_ratios=(1.2, 1))
        labels = data.labels("forget")
        for example, face, axes in zip(order, *panels, strict=True):
            title = f"{data.class_names[labels[example]]} years, epsilon {epsilons[example]:.1f}"
            _show(face, data.images[rows[example]], title)
            plots.confidences(axes, ours[:, example], theirs[:, example], label="confidence")
        return figure


def faces(images: np.ndarray, titles: Sequence[str], columns: int = 8) -> Figure:
    """Draw pictures, uint8 ``[n, 3, H, W]``, in a grid with a title each."""
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(1.35 * columns, 1.6 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, image, title in zip(grid.flat, images, titles, strict=False):
        _show(axes, image, title)
    return figure


def _show(axes: Axes, image: np.ndarray, title: str) -> None:
    axes.imshow(image.transpose(1, 2, 0))
    axes.set_title(title, fontsize=8.5, color=PALETTE["ink"], parse_math=False)
    axes.axis("off")


def _calm(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[:].set_color(PALETTE["line"])
    axes.tick_params(labelsize=9, color=PALETTE["line"], labelcolor=PALETTE["ink"])
