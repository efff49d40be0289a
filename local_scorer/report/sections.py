"""What the report page shows of one row: what it earned, on which examples, and how its runs differ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from local_scorer import metric
from local_scorer.metric import score
from local_scorer.metric.attacks import Attack
from local_scorer.metric.score import ModelSet
from local_scorer.report import plots, svg
from local_scorer.report.formats import plain, summary
from local_scorer.report.plots import CONFIDENCE, COPIES, FIRST_SET, RETRAINED, SECOND_SET, UNLEARNED, Kind
from local_scorer.report.rows import Row
from local_scorer.report.svg import Drawing, Gallery
from local_scorer.runs.record import CEILING, FLOOR
from local_scorer.statistics.shift import shift_and_spread

N_EXAMPLES = 3  # shown at either end
AXIS = {  # what the rules compare
    "official": CONFIDENCE,
    "notebook": "loss against the model's own prediction",
}


@dataclass(frozen=True)
class Compared:
    """A row's models beside the retrained ones, per forget example.

    Attributes:
        statistic: ``[n_models, n_forget]``, what the rules compare.
        epsilons, points: ``[n_forget]``.
        shift, ratio: ``[n_forget]``, see `statistics.shift`.
    """

    row: Row
    models: ModelSet
    statistic: np.ndarray
    epsilons: np.ndarray
    points: np.ndarray
    shift: np.ndarray
    ratio: np.ndarray

    @property
    def kinds(self) -> tuple[Kind, Kind]:
        """What the row's models are, and what they are held against."""
        if self.row.entry == CEILING:
            return SECOND_SET, FIRST_SET
        return COPIES if self.row.entry == FLOOR else UNLEARNED, RETRAINED


@dataclass(frozen=True)
class Context:
    """What every section needs beside its own row.

    Attributes:
        statistic: ``[n_models, n_forget]``, of the retrained models.
        ceiling: the second set of retrained models beside the first.
        clock: the one that decides, "cpu" or "wall".
        training_seconds: row -> by that clock, the median of the trainings that it is timed by.
        faces: uint8 ``[n_forget, 3, height, width]``, or None.
    """

    rules: str
    class_names: tuple[str, ...]
    retrained: ModelSet
    statistic: np.ndarray
    ceiling: Compared
    clock: str
    training_seconds: dict[str, float]
    faces: np.ndarray | None


@dataclass(frozen=True)
class Card:
    """One forget example: `right` of the row's models and `right_retrained` predict its class."""

    example: int
    face: str | None
    class_name: str
    epsilon: float
    points: str
    drawing: Drawing
    attack: str
    right: int
    right_retrained: int


@dataclass(frozen=True)
class Line:
    """A line of the table of runs: mean with deviation, and range, of the row's models and the retrained ones."""

    name: str
    ours: tuple[str, str]
    theirs: tuple[str, str]


@dataclass(frozen=True)
class Section:
    """The section on a row whose models were evaluated, rejected ones included.

    Attributes:
        hardest, easiest: the examples that are told apart most and least easily.
        accuracies: of each run; None for the references.
        shares: lowest and highest time of a run over that of retraining; None if unknown or of several machines.
    """

    compared: Compared
    epsilons: Drawing
    shifts: Drawing
    hardest: list[Card]
    easiest: list[Card]
    accuracies: Drawing | None
    shares: tuple[float, float] | None
    runs: list[Line]


def compare(row: Row, models: ModelSet, retrained: np.ndarray, rules: str) -> Compared:
    """Compare a row's models with the statistic of the retrained ones, ``[n_models, n_forget]``."""
    statistic = score.statistic(models, rules)
    eps = metric.epsilons(statistic, retrained, rules)
    points = metric.points(eps, models.n_models, rules)
    return Compared(row, models, statistic, eps, points, *shift_and_spread(statistic, retrained))


def section(compared: Compared, context: Context, gallery: Gallery) -> Section:
    """Draw and count what the section on a row shows."""
    row, models, stem = compared.row, compared.models, svg.file_stem(compared.row.entry)
    name = plain(row.entry)
    hardest, easiest = _cards(compared, context, gallery)
    machines = (models.machines, context.retrained.machines, context.ceiling.models.machines)
    shares = getattr(models, f"{context.clock}_seconds") / context.training_seconds[row.entry]
    comparable = row.time_ratio is not None and len(np.unique(np.concatenate(machines))) <= 1
    return Section(
        compared=compared,
        epsilons=gallery.show(
            _epsilon_figure(compared, context), f"{stem}-epsilon", f"Epsilon of the forget examples: {name}."
        ),
        shifts=gallery.show(
            _shift_figure(compared, context), f"{stem}-shift", f"Shift and spread of each example: {name}."
        ),
        hardest=hardest,
        easiest=easiest,
        accuracies=None
        if row.is_reference
        else gallery.show(_runs_figure(compared, context), f"{stem}-runs", f"Accuracy of each run: {name}."),
        shares=(shares.min(), shares.max()) if comparable else None,
        runs=_lines(compared, context.retrained),
    )


def extremes(epsilons: np.ndarray, shift: np.ndarray, count: int = N_EXAMPLES) -> tuple[list[int], list[int]]:
    """Return the examples that are told apart most easily and least easily, each at most `count`.

    Among equal epsilons the larger shift is the easier. No example is in both lists.

    >>> extremes(np.array([50.0, 0.5, 50.0, 1.0]), np.array([1.0, 0.0, -3.0, 0.0]), count=1)
    ([2], [1])
    """
    order = np.lexsort((np.nan_to_num(np.abs(shift), nan=np.inf), epsilons)).tolist()
    n_worst = min(count, (len(order) + 1) // 2)
    n_best = min(count, len(order) - n_worst)
    return order[::-1][:n_worst], order[:n_best]


def attack_sentence(
    attack: Attack, n_unlearned: int, n_retrained: int, kinds: tuple[Kind, Kind] = (UNLEARNED, RETRAINED)
) -> str:
    """Say what the strongest attack on an example predicts and how often it errs."""
    if attack.kind == "nonfinite":
        return "A confidence is NaN or infinite, which shows a broken model: epsilon is 50."
    if attack.kind == "spread":
        return "One kind of model spreads less than 1% as much as the other: epsilon is 50 whatever the means are."
    if attack.kind == "disjoint":
        return "The two ranges do not overlap: epsilon is 50."
    if attack.kind == "none":
        return "No threshold of the official grid counts here: epsilon is 0."
    sides = [(kinds[0], n_unlearned), (kinds[1], n_retrained)]
    if attack.positive == "retrained":
        sides.reverse()
    (positive, n_positive), (other, n_other) = sides
    region = f"from {attack.low:.2f} {'on' if np.isinf(attack.high) else f'to {attack.high:.2f}'}"
    return (
        f"The attack says “{positive.word}” {region.replace('-', '−')}: it misses "
        f"{round(attack.fnr * n_positive)} of {n_positive} {positive.several} and takes in "
        f"{round(attack.fpr * n_other)} of {n_other} {other.several}."
    )


def _epsilon_figure(compared: Compared, context: Context) -> Figure:
    figure, axes = plots.new_figure(5.0, 3.1, margins=(0.55, 0.1, 0.55, 0.5))
    ceiling = None if compared.row.entry == CEILING else context.ceiling.epsilons
    n_models, kind = compared.models.n_models, compared.kinds[0]
    plots.epsilon_histogram(axes, compared.epsilons, n_models, context.rules, ceiling, kind)
    return figure


def _shift_figure(compared: Compared, context: Context) -> Figure:
    figure, axes = plots.new_figure(5.0, 3.1, margins=(0.65, 0.1, 0.35, 0.5))
    reference = None if compared.row.entry == CEILING else (context.ceiling.shift, context.ceiling.ratio)
    plots.shift_and_spread(axes, compared.shift, compared.ratio, reference, compared.kinds[0])
    return figure


def _runs_figure(compared: Compared, context: Context) -> Figure:
    figure, axes = plots.new_figure(7.0, 1.75, margins=(0.65, 0.2, 0.1, 0.5))
    plots.accuracy_ranges(axes, _accuracies(compared.models), _accuracies(context.retrained))
    return figure


def _cards(compared: Compared, context: Context, gallery: Gallery) -> tuple[list[Card], list[Card]]:
    """Return the cards of both ends, and keep all their drawings as one PNG, a line of panels for each end."""
    ends = extremes(compared.epsilons, compared.shift)
    rows = sum(map(bool, ends))
    overview, grid = plots.new_figure(
        10.2, 2.5 * rows, rows=rows, columns=N_EXAMPLES, squeeze=False, margins=(0.8, 0.15, 0.35, 0.5),
        gridspec_kw={"wspace": 0.34, "hspace": 0.55},
    )  # fmt: skip
    panels = iter(grid.flat)
    hardest, easiest = ([_card(example, compared, context, next(panels)) for example in end] for end in ends)
    for axes in panels:
        axes.remove()
    gallery.keep(overview, f"{svg.file_stem(compared.row.entry)}-examples")
    return hardest, easiest


def _card(example: int, compared: Compared, context: Context, overview: Axes) -> Card:
    """Draw one example into the overview, and return its card with a drawing of its own."""
    ours, theirs = compared.statistic[:, example], context.statistic[:, example]
    our, their = compared.kinds
    official = context.rules == "official"
    attack = metric.strongest_attack(ours, theirs) if official else None
    epsilon = float(compared.epsilons[example])
    figure, alone = plots.new_figure(3.4, 2.0, margins=(0.72, 0.05, 0.05, 0.45))
    for axes in (overview, alone):
        plots.confidences(axes, ours, theirs, attack, AXIS[context.rules], compared.kinds)
    overview.set_title(f"forget example {example}: epsilon {epsilon:.2f}", fontsize=9, color=plots.PALETTE["ink"])
    truth = compared.models.labels[example]
    right, right_retrained = (
        np.count_nonzero(models.logits[:, example].argmax(axis=-1) == truth)
        for models in (compared.models, context.retrained)
    )
    return Card(
        example=example,
        face=None if context.faces is None else svg.picture(context.faces[example]),
        class_name=context.class_names[truth],
        epsilon=epsilon,
        points=plots.fraction(compared.points[example]),
        drawing=svg.draw(
            figure,
            f"{svg.file_stem(compared.row.entry)}-{example}",
            f"Forget example {example} under {our.several} and {their.several}.",
        ),
        attack=attack_sentence(attack, len(ours), len(theirs), compared.kinds) if official else "",
        right=right,
        right_retrained=right_retrained,
    )


def _lines(compared: Compared, retrained: ModelSet) -> list[Line]:
    models = compared.models
    theirs = _accuracies(retrained)
    lines = [
        Line(f"{split} accuracy", summary(values, 100, "%"), summary(theirs[split], 100, "%"))
        for split, values in _accuracies(models).items()
    ]
    timed = np.isfinite([*models.wall_seconds, *retrained.wall_seconds]).all()  # not those made elsewhere
    if compared.row.entry != FLOOR and timed:  # doing nothing takes no time
        lines.append(Line("CPU seconds", summary(models.cpu_seconds), summary(retrained.cpu_seconds)))
        lines.append(Line("wall-clock seconds", summary(models.wall_seconds), summary(retrained.wall_seconds)))
    return lines


def _accuracies(models: ModelSet) -> dict[str, np.ndarray]:
    return {"retain": models.retain_accuracy, "forget": models.forget_accuracy, "test": models.test_accuracy}
