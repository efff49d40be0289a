"""F under the official rules against N, against a shift and against a ratio of spreads: what a score can be.

    python -m studies.curves

Draws docs/figures/curves.png as well. Confidences are normal and independent, with a
standard deviation of 1.5 under the retrained models.
"""

from __future__ import annotations

import io
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np

from local_scorer import metric
from local_scorer.runs.store import write_atomically
from studies import frame
from studies.simulated import Case

COUNTS = (5, 10, 20, 32, 64, 128, 256, 512)
SHIFTS = (-2.0, -1.0, -0.5, -0.2, 0.0, 0.2, 0.5, 1.0, 2.0)
SPREADS = (0.1, 0.25, 0.5, 0.7, 0.85, 1.0, 1.2, 1.4, 2.0, 4.0)
SHOWN_COUNTS = (10, 64, 512)
AGAINST_COUNT = (
    Case("perfect"),
    Case("shift 0.5", shift=0.5),
    Case("shift 1", shift=1.0),
    Case("spread 0.5", spread=0.5),
)
SD = 1.5


@dataclass(frozen=True)
class Point:
    """One point of a curve; the standard error is that over examples."""

    n_models: int
    shift: float
    spread: float
    quality: float
    standard_error: float
    n_examples: int


def main() -> None:
    """Measure all points and draw the figure."""
    parser = frame.parser("studies.curves", __doc__)
    parser.add_argument("--examples", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--figure", type=Path, default=frame.ROOT / "docs" / "figures" / "curves.png")
    args = parser.parse_args()
    wanted = {(n, case.shift, case.spread) for n in COUNTS for case in AGAINST_COUNT}
    wanted |= {(n, shift, 1.0) for n in SHOWN_COUNTS for shift in SHIFTS}
    wanted |= {(n, 0.0, spread) for n in SHOWN_COUNTS for spread in SPREADS}
    points = [measured(*key, args.examples, args.seed) for key in sorted(wanted)]
    columns = [part.name for part in fields(Point)]
    frame.publish("studies.curves", args.results, columns, [astuple(point) for point in points])
    write_atomically(args.figure, figure(points))


def measured(n_models: int, shift: float, spread: float, n_examples: int, seed: int) -> Point:
    """Return F of one evaluation with many examples; the same draws for every shift and spread."""
    generator = np.random.default_rng([seed, n_models])
    unlearned, retrained = generator.normal(size=(2, n_models, n_examples))
    points = metric.points(metric.epsilons(SD * (shift + spread * unlearned), SD * retrained), n_models)
    error = float(points.std(ddof=1) / np.sqrt(n_examples))
    return Point(n_models, shift, spread, float(points.mean()), error, n_examples)


def figure(points: list[Point]) -> bytes:
    """Draw three panels, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(10.5, 3.4), layout="constrained", dpi=110)
    FigureCanvasAgg(drawing)
    by_count, by_shift, by_spread = drawing.subplots(1, 3, sharey=True)
    for case in AGAINST_COUNT:
        chosen = [p for p in points if (p.shift, p.spread) == (case.shift, case.spread) and p.n_models in COUNTS]
        _curve(by_count, [p.n_models for p in chosen], chosen, case.name)
    for n_models in SHOWN_COUNTS:
        own = [p for p in points if p.n_models == n_models]
        chosen = [p for p in own if p.spread == 1.0 and p.shift in SHIFTS]
        _curve(by_shift, [p.shift for p in chosen], chosen, f"N = {n_models}")
        chosen = [p for p in own if p.shift == 0.0]
        _curve(by_spread, [p.spread for p in chosen], chosen, f"N = {n_models}")
    by_count.set(xscale="log", yscale="log", xlabel="N, models of each kind", ylabel="forgetting quality F")
    by_count.set_xticks([10, 64, 512], ["10", "64", "512"])
    by_count.minorticks_off()
    by_shift.set(xlabel="shift, in sd of the retrained models")
    by_spread.set(xscale="log", xlabel="sd unlearned / sd retrained")
    by_spread.set_xticks([0.1, 0.25, 0.5, 1, 2, 4], ["0.1", "0.25", "0.5", "1", "2", "4"])
    by_spread.minorticks_off()
    for axes in (by_count, by_shift, by_spread):
        axes.set_ylim(3e-4, 0.4)
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8, frameon=False, loc="lower center" if axes is not by_count else "lower left")
        axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _curve(axes: object, x: list[float], points: list[Point], label: str) -> None:
    axes.errorbar(
        x, [p.quality for p in points], [2 * p.standard_error for p in points],
        marker="o", markersize=3, linewidth=1.4, capsize=2, label=label,
    )  # fmt: skip


if __name__ == "__main__":
    frame.exit_with(main)
