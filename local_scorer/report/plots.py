"""Plots of a run for notebooks and the report page: each function draws arrays onto a matplotlib Axes.

    figure, axes = new_figure(6.0, 3.0)
    epsilon_histogram(axes, metric.epsilons(unlearned, retrained), n_models=len(unlearned))
    figure.savefig("epsilon.png", dpi=150)

Axes made by ``plt.subplots()`` do as well. Unlearned models are orange and retrained models blue throughout, a
second set of the latter another blue; all can be told apart without colour, since each also has a side, a row or
a shape of its own. All colours are those of `PALETTE`, so that the report page can put its own in their place.
Needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from local_scorer import metric
from local_scorer.metric.attacks import Attack
from local_scorer.report.table import shortened

PALETTE = {
    "ink": "#22262b",
    "muted": "#636b75",
    "line": "#d5dae0",
    "unlearned": "#bf4d0b",
    "retrained": "#1c68a6",
    "second": "#0d3459",
}
CONFIDENCE = "confidence, ln p/(1 − p) of the true class"  # label of an axis
MAX_SHIFT, MIN_RATIO, MAX_RATIO = 6.0, 1 / 32, 8.0  # dots beyond are drawn at the edge
MANY = 250  # beyond, points are drawn as one picture and no model gets a tick of its own
SMALL = 9.0
SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Kind:
    """A kind of models: the word on an axis, several of them in a sentence, and their colour in `PALETTE`."""

    word: str
    several: str
    color: str

    @property
    def legend(self) -> str:
        return "this entry" if self.word == "unlearned" else self.several


UNLEARNED = Kind("unlearned", "unlearned models", "unlearned")
RETRAINED = Kind("retrained", "retrained models", "retrained")
COPIES = Kind("original", "original models", "muted")
SECOND_SET = Kind("second set", "models of the second set", "second")
FIRST_SET = Kind("first set", "models of the first set", "retrained")


def new_figure(
    width: float,
    height: float,
    rows: int = 1,
    columns: int = 1,
    margins: tuple[float, float, float, float] | None = None,
    **options,
) -> tuple[Figure, Axes]:
    """Return a figure of that many inches and its Axes, an array of them if there are several.

    Args:
        margins: inches left, right, above and below the Axes; found by matplotlib if None, which takes longer.
        options: as for ``Figure.subplots``.
    """
    figure = Figure(figsize=(width, height), layout="constrained" if margins is None else None)
    axes = figure.subplots(rows, columns, **options)
    if margins is not None:
        left, right, above, below = margins
        figure.subplots_adjust(left / width, below / height, 1 - right / width, 1 - above / height)
    return figure, axes


def epsilon_histogram(
    axes: Axes,
    eps: np.ndarray,
    n_models: int,
    rules: str = "official",
    ceiling: np.ndarray | None = None,
    kind: Kind = UNLEARNED,
) -> None:
    """Draw how many forget examples have which epsilon, and above each bin the points that it earns.

    Args:
        eps: ``[n_examples]``, from `metric.epsilons`.
        n_models: number of unlearned models that they were estimated from.
        rules: "official" or "notebook".
        ceiling: ``[n_examples]``, epsilons of a second set of retrained models, drawn as an outline.
        kind: what is told from the retrained models.
    """
    edges, worth = epsilon_bins(n_models, rules)
    at = np.arange(len(worth))
    counts = bin_counts(eps, n_models, rules)
    axes.bar(at, counts, width=0.86, color=PALETTE[kind.color], alpha=0.85, label=kind.legend)
    if ceiling is not None:
        outline = bin_counts(ceiling, n_models, rules)
        axes.stairs(
            outline, np.arange(len(worth) + 1) - 0.5, color=PALETTE["retrained"], linewidth=1.6,
            label="retrained again (ceiling)",
        )  # fmt: skip
        axes.legend(frameon=False, fontsize=SMALL, labelcolor=PALETTE["ink"], loc="upper center")
        counts = np.maximum(counts, outline)
    axes.set_ylim(0, max(counts.max(), 1) * 1.45)
    axes.set_xlim(-0.6, len(worth) - 0.4)
    axes.set_xticks(np.arange(len(edges)) - 0.5, edges)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    calm(axes, "epsilon of the example (more is easier to tell apart)", "forget examples")
    above = axes.secondary_xaxis("top")
    above.set_xticks(at, [fraction(value) for value in worth])
    calm(above, "points that an example of the bin earns")


def epsilon_bins(n_models: int, rules: str = "official") -> tuple[list[str], np.ndarray]:
    """Return the labels of the edges of the bins of epsilon and the points that examples in each bin earn.

    >>> edges, points = epsilon_bins(10)
    >>> edges
    ['0', '0.5', '1', '1.5', '2', '2.5', '3', 'more']
    >>> points.tolist()
    [1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125, 0.0]
    """
    starts = metric.BIN_WIDTH * np.arange(4 * metric.NOTEBOOK_BINS)  # beyond any number of models
    n_bins = metric.NOTEBOOK_BINS
    if rules == "official":
        n_bins = np.count_nonzero(metric.points(starts, n_models)) + 1
    edges = [f"{start:g}" for start in starts[:n_bins]] + ["more"]
    return edges, metric.points(starts[:n_bins], n_models, rules)


def bin_counts(eps: np.ndarray, n_models: int, rules: str = "official") -> np.ndarray:
    """Return how many epsilons fall into each bin of `epsilon_bins`.

    >>> bin_counts(np.array([0.0, 0.6, 0.7, 50.0]), n_models=10).tolist()
    [1, 2, 0, 0, 0, 0, 1]
    """
    n_bins = len(epsilon_bins(n_models, rules)[1])
    position = np.minimum(np.floor(np.asarray(eps) / metric.BIN_WIDTH), n_bins - 1)
    return np.bincount(position.astype(int), minlength=n_bins)


def confidences(
    axes: Axes,
    unlearned: np.ndarray,
    retrained: np.ndarray,
    attack: Attack | None = None,
    label: str = "confidence in the true class",
    kinds: tuple[Kind, Kind] = (UNLEARNED, RETRAINED),
) -> None:
    """Draw an example's confidence under the unlearned models, upwards, and the retrained ones, downwards.

    Each tick is a model; the curves are Gaussian kernel estimates, each scaled to its own peak. Values that
    are not finite are left out. The region of the attack is shaded in the colour of what it predicts there.

    Args:
        unlearned: ``[n_models]``.
        retrained: ``[n_models]``; the number may differ.
        attack: from `metric.strongest_attack`.
        label: of the horizontal axis.
        kinds: what the models of either side are, if they are others.
    """
    samples = [sample[np.isfinite(sample)] for sample in (np.asarray(unlearned), np.asarray(retrained))]
    pooled = np.concatenate(samples) if sum(map(len, samples)) else np.zeros(1)
    width = np.ptp(pooled) or 1.0
    low, high = pooled.min() - 0.2 * width, pooled.max() + 0.2 * width
    grid = np.linspace(low, high, 120)
    colors = [PALETTE[kind.color] for kind in kinds]
    for sample, color, side in zip(samples, colors, (1, -1), strict=True):
        if len(sample):
            _curve_and_ticks(axes, sample, grid, color, side)
    axes.axhline(0, color=PALETTE["line"], linewidth=0.8)
    if attack is not None and np.isfinite(attack.low):
        color = colors[("unlearned", "retrained").index(attack.positive)]
        axes.axvspan(max(attack.low, low), min(attack.high, high), color=color, alpha=0.1, linewidth=0)
        for end in (attack.low, attack.high):
            if low < end < high:
                axes.axvline(end, color=PALETTE["ink"], linewidth=1.0, linestyle=(0, (3, 2)))
    axes.set_xlim(low, high)
    axes.set_ylim(-1.25, 1.25)
    axes.set_yticks([0.65, -0.65], [kind.word for kind in kinds])
    axes.xaxis.set_major_locator(MaxNLocator(5))
    calm(axes, label)
    axes.spines["left"].set_visible(False)
    for text, color in zip(axes.get_yticklabels(), colors, strict=True):
        text.set_color(color)


def _curve_and_ticks(axes: Axes, sample: np.ndarray, grid: np.ndarray, color: str, side: int) -> None:
    """Draw one sample upwards, side 1, or downwards, side -1."""
    curve = side * (0.16 + density(sample, grid))
    axes.fill_between(grid, side * 0.16, curve, facecolor=color, alpha=0.22, linewidth=0)
    axes.plot(grid, curve, color=color, linewidth=1.3)
    if len(sample) <= MANY:
        ticks = np.stack([sample, sample, np.full_like(sample, np.nan)], axis=1).ravel()
        heights = np.tile([0.02 * side, 0.13 * side, np.nan], len(sample))
        axes.plot(ticks, heights, color=color, linewidth=1.2, solid_capstyle="butt")


def density(sample: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Return a Gaussian kernel estimate on the grid, scaled to a peak of 1; a constant sample has a narrow one.

    The width of the kernel follows Silverman's rule, and is at least 1/60 of the grid.

    >>> density(np.array([0.0, 0.0]), np.array([-1.0, 0.0, 1.0])).round(3).tolist()
    [0.0, 1.0, 0.0]
    """
    width = max(0.9 * sample.std() * len(sample) ** -0.2, np.ptp(grid) / 60)
    curve = np.exp(-0.5 * ((grid[:, None] - sample) / width) ** 2).sum(axis=1)
    return curve / curve.max()


def shift_and_spread(
    axes: Axes,
    shift: np.ndarray,
    ratio: np.ndarray,
    reference: tuple[np.ndarray, np.ndarray] | None = None,
    kind: Kind = UNLEARNED,
) -> None:
    """Draw the two ways to lose points, a dot for each forget example; perfect unlearning lies around (0, 1).

    Args:
        shift: ``[n_examples]``, mean confidence of the unlearned models minus that of the retrained ones, in
            standard deviations of the latter; NaN is left out.
        ratio: ``[n_examples]``, standard deviation of the unlearned models over that of the retrained ones.
        reference: the same two for a second set of retrained models.
        kind: whose shift and ratio these are.
    """
    sets = [(kind.color, kind.legend, shift, ratio, "o", 0.55)]
    if reference is not None:
        sets.insert(0, ("retrained", "retrained again (ceiling)", *reference, "D", 0.4))
    shifts, ratios = (np.concatenate([one[column] for one in sets]) for column in (2, 3))
    edge = min(np.ceil(np.nanmax(np.abs(shifts), initial=2.0)), MAX_SHIFT)
    bottom = 2.0 ** np.floor(np.log2(max(np.nanmin(ratios, initial=0.25), MIN_RATIO)))
    top = 2.0 ** np.ceil(np.log2(min(np.nanmax(ratios, initial=4.0), MAX_RATIO)))
    axes.axhline(1, color=PALETTE["line"], linewidth=0.8)
    axes.axvline(0, color=PALETTE["line"], linewidth=0.8)
    for color, label, across, up, marker, alpha in sets:
        axes.plot(
            np.clip(across, -edge, edge), np.clip(up, bottom, top), marker,
            color=PALETTE[color], alpha=alpha, markersize=4.4 if marker == "o" else 3.4, markeredgewidth=0,
            label=label, rasterized=len(across) > MANY, clip_on=False,
        )  # fmt: skip
    axes.set_yscale("log", base=2)
    axes.set_xlim(-edge, edge)
    axes.set_ylim(bottom, top)
    powers = np.arange(np.log2(bottom), np.log2(top) + 1)
    axes.set_yticks(2.0**powers, ["×" + fraction(2.0**power) for power in powers])
    axes.minorticks_off()
    if reference is not None:
        axes.legend(
            frameon=False, fontsize=SMALL, labelcolor=PALETTE["ink"], ncols=2, loc="lower center",
            bbox_to_anchor=(0.5, 1.0), borderpad=0.2,
        )  # fmt: skip
    calm(axes, "shift of the mean, in standard deviations of retraining", "spread beside retraining")


def forest(
    axes: Axes,
    names: Sequence[str],
    scores: Sequence[float],
    low: Sequence[float] | None = None,
    high: Sequence[float] | None = None,
    kinds: Sequence[str] | None = None,
    floor: float | None = None,
    ceiling: float | None = None,
    names_above: bool = False,
) -> None:
    """Draw scores with their intervals, the first on top, and the floor and the ceiling as upright lines.

    Args:
        names: of the entries, as plain text.
        scores: one an entry.
        low, high: ends of the intervals; NaN where there is none.
        kinds: per entry the name of its colour in `PALETTE`; "unlearned" by default.
        floor: score of the row "no unlearning".
        ceiling: score of a second set of retrained models.
        names_above: write each name above its bar and not beside it, where there is little width.
    """
    rows = np.arange(len(names))
    nothing = np.full(len(names), np.nan)
    ends = zip(nothing if low is None else low, nothing if high is None else high, strict=True)
    kinds = kinds or ["unlearned"] * len(names)
    for row, score, (left, right), kind in zip(rows, scores, ends, kinds, strict=True):
        axes.plot([left, right], [row, row], color=PALETTE[kind], linewidth=2.6, alpha=0.5, solid_capstyle="round")
        axes.plot(score, row, "D" if kind == "retrained" else "o", color=PALETTE[kind], markersize=6.5,
                  clip_on=False)  # fmt: skip
    for value, word, kind in ((floor, "floor", "muted"), (ceiling, "ceiling", "retrained")):
        if value is not None:
            _upright(axes, value, word, PALETTE[kind])
    names = shortened_apart(names, 42)
    if names_above:
        axes.set_yticks([])
        for row, name in zip(rows, names, strict=True):
            axes.annotate(
                name, (0, row), (0, 8), xycoords=("axes fraction", "data"), color=PALETTE["ink"],
                textcoords="offset points", fontsize=SMALL, parse_math=False,
            )  # fmt: skip
    else:
        axes.set_yticks(rows, names, parse_math=False)
    axes.set_ylim(len(names) - 0.4, -0.9 if names_above else -0.6)
    finite = [value for value in (*scores, *(low or ()), *(high or ()), floor, ceiling) if value is not None]
    axes.set_xlim(left=min(0.0, np.nanmin(finite)), right=max(np.nanmax(finite), 1e-3) * 1.08)
    _calm_rows(axes, "score")
    axes.tick_params(axis="y", labelsize=9.5, pad=9)


def _upright(axes: Axes, value: float, word: str, color: str) -> None:
    """Draw a dashed line across the rows, with a word above it."""
    axes.axvline(value, color=color, linewidth=1.1, linestyle=(0, (4, 3)), zorder=0)
    axes.annotate(
        word, (value, 1), (0, 3), xycoords=("data", "axes fraction"), textcoords="offset points", ha="center",
        fontsize=SMALL, color=color,
    )  # fmt: skip


def accuracy_ranges(axes: Axes, unlearned: Mapping[str, np.ndarray], retrained: Mapping[str, np.ndarray]) -> None:
    """Draw each split's accuracy, a dot a model, over the range of the retrained models; the bars are means.

    Args:
        unlearned: split name -> ``[n_models]``, shares from 0 to 1.
        retrained: the same splits.
    """
    for row, split in enumerate(unlearned):
        theirs, ours = np.asarray(retrained[split]), np.asarray(unlearned[split])
        axes.plot(
            [theirs.min(), theirs.max()], [row, row], color=PALETTE["retrained"], alpha=0.25, linewidth=13,
            solid_capstyle="butt",
        )  # fmt: skip
        axes.plot([theirs.mean()] * 2, [row - 0.3, row + 0.3], color=PALETTE["retrained"], linewidth=2)
        _dots(axes, ours, row)
    axes.set_yticks(range(len(unlearned)), list(unlearned))
    axes.set_ylim(len(unlearned) - 0.4, -0.6)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    _calm_rows(axes, "accuracy")


def _dots(axes: Axes, values: np.ndarray, row: float) -> None:
    """Draw one dot a value around a row, in their order from bottom to top, and a bar at the mean."""
    heights = row + np.linspace(0.2, -0.2, len(values)) if len(values) > 1 else [row]
    axes.plot(values, heights, "o", color=PALETTE["unlearned"], alpha=0.55, markersize=3.6, markeredgewidth=0,
              rasterized=len(values) > MANY)  # fmt: skip
    axes.plot([values.mean()] * 2, [row - 0.3, row + 0.3], color=PALETTE["unlearned"], linewidth=2)


def calm(axes: Axes, xlabel: str, ylabel: str = "") -> None:
    """Give axes their labels, and the quiet look of all plots here."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[:].set_color(PALETTE["line"])
    axes.tick_params(labelsize=SMALL, color=PALETTE["line"], labelcolor=PALETTE["muted"], length=3)
    axes.set_xlabel(xlabel, fontsize=SMALL, color=PALETTE["muted"])
    axes.set_ylabel(ylabel, fontsize=SMALL, color=PALETTE["muted"])


def _calm_rows(axes: Axes, xlabel: str) -> None:
    """Give axes whose rows have names a grid of upright lines and no upright axis."""
    axes.grid(axis="x", color=PALETTE["line"], linewidth=0.6)
    axes.set_axisbelow(True)
    calm(axes, xlabel)
    axes.tick_params(axis="y", length=0, labelcolor=PALETTE["ink"])
    axes.spines["left"].set_visible(False)


def fraction(value: float) -> str:
    """Return a power of two, or 0, as a reader writes it.

    >>> [fraction(value) for value in (4.0, 0.5, 0.0625, 0.5**12, 0.0)]
    ['4', '½', '1/16', '2⁻¹²', '0']
    """
    if 0 < value < 1 / 64:
        return "2⁻" + str(round(-np.log2(value))).translate(SUPERSCRIPTS)
    return {0.5: "½", 0.25: "¼", 0.125: "⅛"}.get(value) or str(Fraction(value))


def shortened_apart(names: Sequence[str], length: int) -> list[str]:
    """Shorten names so that no two become the same, if one place for the cut does that.

    >>> shortened_apart(["gisa LR=1e-3 DECAY=True", "gisa LR=2e-3 DECAY=True"], 13)
    ['gisa LR=1…rue', 'gisa LR=2…rue']
    """
    middle = (length - 1) // 2
    for tail in sorted(range(3, length - 3), key=lambda tail: abs(tail - middle)):
        found = [shortened(name, length, tail) for name in names]
        if len(set(found)) == len(set(names)):
            return found
    return [shortened(name, length) for name in names]
