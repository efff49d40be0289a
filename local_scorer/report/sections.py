"""The report page's section on one row: what it earned, on which examples, and how its runs differ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from local_scorer import metric
from local_scorer.metric import score
from local_scorer.metric.attacks import Attack
from local_scorer.metric.score import TIME_LIMIT, ModelSet
from local_scorer.report import plots
from local_scorer.report import svg as figures
from local_scorer.report.board import Leaderboard, Row
from local_scorer.report.markup import (
    between,
    command,
    counted,
    facts,
    figure_card,
    interval,
    number,
    percent,
    plain,
    seconds,
    signed,
    status,
    summary,
    table,
    terms,
    text,
)
from local_scorer.report.plots import COPIES, FIRST_SET, RETRAINED, SECOND_SET, UNLEARNED, Kind
from local_scorer.report.svg import Gallery
from local_scorer.runs.record import CEILING, FLOOR, RunRecord
from local_scorer.statistics.shift import shift_and_spread

N_EXAMPLES = 3  # shown at either end
WORDS = {  # what the rules compare, and how an axis names it
    "official": ("confidence", "confidence, ln p/(1 − p) of the true class"),
    "notebook": ("loss", "loss against the model's own prediction"),
}


@dataclass(frozen=True)
class Compared:
    """A row's models beside the retrained ones, per forget example.

    Attributes:
        statistic: ``[n_models, n_forget]``, what the rules compare.
        epsilons, points: ``[n_forget]``.
        shift, ratio: ``[n_forget]``, see :func:`shift_and_spread`.
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

    @property
    def medians(self) -> tuple[float, float] | None:
        """Shift and ratio of the median example; None if none is known."""
        known = np.isfinite(self.shift)
        return (float(np.median(self.shift[known])), float(np.median(self.ratio[known]))) if known.any() else None


@dataclass(frozen=True)
class Context:
    """What every section needs beside its own row.

    Attributes:
        statistic: ``[n_models, n_forget]``, of the retrained models.
        ceiling: the second set of retrained models beside the first.
        retraining_seconds: mean over both sets.
        faces: uint8 ``[n_forget, 3, height, width]``, or None.
    """

    board: Leaderboard
    record: RunRecord
    retrained: ModelSet
    statistic: np.ndarray
    ceiling: Compared
    retraining_seconds: float
    faces: np.ndarray | None


def compare(row: Row, models: ModelSet, retrained: np.ndarray, rules: str) -> Compared:
    """Compare a row's models with the statistic of the retrained ones, ``[n_models, n_forget]``."""
    statistic = score.statistic(models, rules)
    eps = metric.epsilons(statistic, retrained, rules)
    points = metric.points(eps, models.n_models, rules)
    return Compared(row, models, statistic, eps, points, *shift_and_spread(statistic, retrained))


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
        return "A confidence is NaN or infinite: that shows a broken model, and epsilon is 50."
    if attack.kind == "spread":
        return "One kind of model spreads less than 1% as much as the other: epsilon is 50 whatever the means."
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
        f"“{positive.word}” {region.replace('-', '−')}: misses {round(attack.fnr * n_positive)} of {n_positive} "
        f"{positive.several}, takes in {round(attack.fpr * n_other)} of {n_other} {other.several}."
    )


def unscored_section(number_in_page: int, row: Row) -> str:
    """Return the section of a row without arrays: why there are none, and the last lines that it left."""
    details = plain(row.details).strip()
    last_lines = f"<p>The last lines that it left:</p>\n<pre>{text(details)}</pre>" if details else ""
    return (
        f'<section class="entry short" id="entry-{number_in_page}">{_header(row)}'
        f'<p class="reason">{text(row.reason)}</p>{last_lines}</section>'
    )


def scored_section(number_in_page: int, compared: Compared, context: Context, gallery: Gallery) -> str:
    """Return the section of a row whose models were evaluated, rejected ones included."""
    row = compared.row
    parts = [
        f'<section class="entry" id="entry-{number_in_page}">',
        _header(row),
        f'<p class="reason">{text(row.reason)}</p>' if row.reason else "",
        facts(_facts(compared, context)),
        _certainty(row, len(compared.points)),
        '<div class="pair">',
        _epsilon_figure(compared, context, gallery),
        _shift_figure(compared, context, gallery),
        "</div>",
        _examples(compared, context, gallery),
        "<h4>Utility, time, and spread from run to run</h4>",
        "" if row.is_reference else _runs_figure(compared, context, gallery) + _time(compared, context),
        _runs_table(compared, context),
        _provenance(row, context.record),
        "</section>",
    ]
    return "\n".join(part for part in parts if part)


def _header(row: Row) -> str:
    return f'<header><h3>{text(row.entry)}</h3>{status(row)}<a href="#leaderboard">to the leaderboard</a></header>'


def _facts(compared: Compared, context: Context) -> list[tuple[str, str, str]]:
    row, ceiling, retrained = compared.row, context.ceiling.row, context.retrained
    ours = f" 95% interval {interval(row)}." if row.score_low is not None else ""
    time = "Not known: made elsewhere."
    if row.seconds is not None:
        time = f"{seconds(row.seconds)} a run in the mean; the limit is {TIME_LIMIT:.0%} of retraining."
    if row.entry == FLOOR:
        time = "Doing nothing takes no time."
    if row.entry == CEILING:
        time = f"{seconds(row.seconds)} to train one in the mean; 100% is the mean of both sets."
    beside = compared.kinds[1].several
    return [
        ("score", number(row.score), f"F × retain × test, from N={row.n_models} models of each kind.{ours}"),
        ("of the ceiling", percent(row.share_of_ceiling),
         f"Of the {number(ceiling.score)} that retraining again earns."),
        ("F", number(row.forgetting_quality),
         f"Mean points over {counted(len(compared.points), 'forget example')}; retraining again earns "
         f"{number(ceiling.forgetting_quality)}."),
        ("retain", number(row.retain_ratio, 3),
         f"{percent(row.retain_accuracy, 1)} right, {beside} {retrained.retain_accuracy.mean():.1%}."),
        ("test", number(row.test_ratio, 3),
         f"{percent(row.test_accuracy, 1)} right, {beside} {retrained.test_accuracy.mean():.1%}."),
        ("time", percent(row.time_ratio, 1), time),
    ]  # fmt: skip


def _certainty(row: Row, n_examples: int) -> str:
    """Return the score's intervals and its forecast; nothing under the notebook rules."""
    if row.intervals is None:
        return ""
    found, ahead = row.intervals, row.forecast
    lines = [
        (f"95% interval, {what} redrawn", between(part.score_low, part.score_high))
        for what, part in (
            (f"N={found.n_models} models", found.models),
            (counted(n_examples, "forget example"), found.examples),
            ("both", found.both),
        )
    ]
    if ahead:
        spread = between(ahead.score_low, ahead.score_high)
        lines.append((f"forecast for N={ahead.n_models}", f"{number(ahead.score)}, 95% interval {spread}"))
    return terms(lines)


def _epsilon_figure(compared: Compared, context: Context, gallery: Gallery) -> str:
    row, rules, points = compared.row, context.board.rules, compared.points
    is_ceiling = row.entry == CEILING
    figure, axes = plots.new_figure(5.0, 3.1, margins=(0.55, 0.1, 0.55, 0.5))
    ceiling = None if is_ceiling else context.ceiling.epsilons
    plots.epsilon_histogram(axes, compared.epsilons, compared.models.n_models, rules, ceiling, compared.kinds[0])
    drawing = gallery.show(
        figure, f"{figures.file_stem(row.entry)}-epsilon", f"Epsilon of the forget examples: {plain(row.entry)}."
    )
    outline = (
        "Some attack tells even two sets of retrained models apart to this degree."
        if is_ceiling
        else "The outline is a second set of retrained models: what retraining again gets."
    )
    return figure_card(
        drawing,
        f"Each forget example earns points by its epsilon, and F is their mean: {points.sum():.2f} points over "
        f"{counted(len(points), 'example')} make {points.mean():.4f}. {outline}",
    )


def _shift_figure(compared: Compared, context: Context, gallery: Gallery) -> str:
    row, word = compared.row, WORDS[context.board.rules][0]
    reference = None if row.entry == CEILING else (context.ceiling.shift, context.ceiling.ratio)
    figure, axes = plots.new_figure(5.0, 3.1, margins=(0.65, 0.1, 0.35, 0.5))
    plots.shift_and_spread(axes, compared.shift, compared.ratio, reference, compared.kinds[0])
    drawing = gallery.show(
        figure, f"{figures.file_stem(row.entry)}-shift", f"Shift and spread of each example: {plain(row.entry)}."
    )
    medians = "No example has a finite shift."
    if compared.medians:
        shift, ratio = compared.medians
        medians = f"The median example is shifted by {signed(shift)} and spreads ×{ratio:.2f}."
    beside = compared.kinds[1].several
    return figure_card(
        drawing,
        f"The two ways to lose points, a dot for each forget example. Right of the middle: more {word} than under "
        f"{beside}. Below the line: the runs are more alike than {beside}. {medians}",
    )


def _runs_figure(compared: Compared, context: Context, gallery: Gallery) -> str:
    row = compared.row
    figure, axes = plots.new_figure(7.0, 1.75, margins=(0.65, 0.2, 0.1, 0.5))
    plots.accuracy_ranges(axes, _accuracies(compared.models), _accuracies(context.retrained))
    drawing = gallery.show(
        figure, f"{figures.file_stem(row.entry)}-runs", f"Accuracy of each run: {plain(row.entry)}."
    )
    return figure_card(
        f'<div class="scroll wide" tabindex="0">{drawing}</div>',
        f"Dots are the N={row.n_models} runs and the orange bar is their mean; the blue band spans the retrained "
        "models, the blue bar is their mean. Accuracy on the forget set should be that of retraining, not low.",
    )


def _time(compared: Compared, context: Context) -> str:
    row = compared.row
    if row.time_ratio is None:
        return "<p>The time is not known: these models were made elsewhere.</p>"
    shares = compared.models.wall_seconds / context.retraining_seconds
    return (
        f"<p>Unlearning took {percent(row.time_ratio, 1)} of the time of retraining in the mean, "
        f"{shares.min():.1%} to {shares.max():.1%} in single runs; the mean counts against the limit of "
        f"{TIME_LIMIT:.0%}.</p>"
    )


def _examples(compared: Compared, context: Context, gallery: Gallery) -> str:
    worst, best = extremes(compared.epsilons, compared.shift)
    rows = -(-len([*worst, *best]) // N_EXAMPLES)
    overview, grid = plots.new_figure(
        10.2, 2.5 * rows, rows=rows, columns=N_EXAMPLES, squeeze=False, margins=(0.8, 0.15, 0.35, 0.5),
        gridspec_kw={"wspace": 0.34, "hspace": 0.55},
    )  # fmt: skip
    panels = iter(grid.flat)
    html = []
    says = ""
    if context.board.rules == "official":
        says = " Below each drawing stands what the strongest attack on that example says, and how often it errs."
    for title, why, examples in (
        ("Told apart most easily", "The forget examples of highest epsilon: here points are lost." + says, worst),
        ("Told apart least easily", "The forget examples of lowest epsilon: here points are earned.", best),
    ):
        if examples:
            cards = "\n".join(_card(example, compared, context, next(panels)) for example in examples)
            html.append(
                f'<div class="group"><h4>{title}</h4>\n<p class="muted">{why}</p>\n'
                f'<div class="trio">\n{cards}\n</div></div>'
            )
    for axes in panels:
        axes.remove()
    gallery.keep(overview, f"{figures.file_stem(compared.row.entry)}-examples")
    return "\n".join(html)


def _card(example: int, compared: Compared, context: Context, overview: Axes) -> str:
    """Draw one example into the overview, and return a card with a drawing of its own."""
    ours, theirs = compared.statistic[:, example], context.statistic[:, example]
    our, their = compared.kinds
    label = WORDS[context.board.rules][1]
    attack, sentence = None, ""
    if context.board.rules == "official":
        attack = metric.strongest_attack(ours, theirs)
        sentence = attack_sentence(attack, len(ours), len(theirs), compared.kinds)
    epsilon, earned = compared.epsilons[example], plots.fraction(compared.points[example])
    plots.confidences(overview, ours, theirs, attack, label, compared.kinds)
    overview.set_title(f"forget example {example}: epsilon {epsilon:.2f}", fontsize=9, color=plots.PALETTE["ink"])
    figure, axes = plots.new_figure(3.4, 2.0, margins=(0.72, 0.05, 0.05, 0.45))
    plots.confidences(axes, ours, theirs, attack, label, compared.kinds)
    drawing = figures.svg(
        figure,
        f"{figures.file_stem(compared.row.entry)}-{example}",
        f"Forget example {example} under {our.several} and {their.several}.",
    )
    face = ""
    if context.faces is not None:
        face = f'<img src="{figures.picture(context.faces[example])}" alt="Picture of forget example {example}">'
    truth = compared.models.labels[example]
    right, right_retrained = (
        np.count_nonzero(models.logits[:, example].argmax(axis=-1) == truth)
        for models in (compared.models, context.retrained)
    )
    return f"""<figure class="card"><header>{face}<div><strong>Forget example {example}</strong>
<span>class {text(context.record.data.class_names[truth])}</span>
<span>epsilon {epsilon:.2f}, points {earned}</span></div></header>{drawing}
<figcaption>{text(sentence)} Its class is predicted by {right} of {len(ours)} {our.word} and
{right_retrained} of {len(theirs)} {their.word} models.</figcaption></figure>"""


def _runs_table(compared: Compared, context: Context) -> str:
    (ours, theirs), (our, their) = (compared.models, context.retrained), compared.kinds
    lines = [
        (f"{split} accuracy", *summary(values, 100, "%"), *summary(_accuracies(theirs)[split], 100, "%"))
        for split, values in _accuracies(ours).items()
    ]
    if compared.row.entry != FLOOR and compared.row.seconds is not None:  # doing nothing takes no time
        lines.append(("seconds", *summary(ours.wall_seconds), *summary(theirs.wall_seconds)))
    return table(
        f"Mean, standard deviation and range over {ours.n_models} {our.several} and {theirs.n_models} "
        f"{their.several}.",
        ["per run", f"{our.word}, mean ± sd", "range", f"{their.word}, mean ± sd", "range"],
        [
            f'<tr><th scope="row">{name}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
            for name, *cells in lines
        ],
    )


def _provenance(row: Row, record: RunRecord) -> str:
    entry = next((entry for entry in record.entries if entry.name == row.entry), None)
    if entry is None:
        return ""
    ran = command(
        record.provenance.command,
        'This command ran it, with the <a href="#provenance">settings</a> at the end of the page.',
    )
    return f"""<h4>Where these numbers come from</h4>
<p>The exact text of the entry is in the run folder as <code>entries/{text(entry.hash)}.py</code>.</p>
{ran}"""


def _accuracies(models: ModelSet) -> dict[str, np.ndarray]:
    return {"retain": models.retain_accuracy, "forget": models.forget_accuracy, "test": models.test_accuracy}
