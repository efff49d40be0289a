"""The report page: one HTML file that explains a run, and the same figures as PNG. Needs no torch.

The page loads nothing, from the network or elsewhere: style, script, figures and thumbnails are inside, and its
content security policy forbids the rest. `sections` has the part on each entry.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import data_prep.dataset
from local_scorer.metric import score
from local_scorer.metric.score import TIME_LIMIT
from local_scorer.report import plots
from local_scorer.report.board import Leaderboard, Row
from local_scorer.report.markup import (
    between,
    command,
    counted,
    document,
    facts,
    interval,
    number,
    percent,
    plain,
    sentences,
    signed,
    status,
    table,
    terms,
    text,
)
from local_scorer.report.sections import Compared, Context, compare, scored_section, unscored_section
from local_scorer.report.svg import Gallery, svg
from local_scorer.runs.record import CEILING, FLOOR, Run, RunRecord
from local_scorer.runs.store import write_atomically
from local_scorer.statistics.audits import AUDITED_MODELS
from local_scorer.statistics.forecast import LEAST_MODELS

BUILT_IN = "synthetic"  # name of the data set that comes with this repository
NAME_LENGTH = 64  # of an entry in a table; a longer name loses its middle there
HEADS = ["entry", "score", "95% interval", "of ceiling", "F", "retain", "test", "time", "N", "status"]
EXPLANATIONS = [
    ("group", "entries with the same number cannot be told from the first of them."),
    ("score", "F × retain × test. Perfect unlearning earns the ceiling, not 1."),
    ("95% interval", "holds the mean score over repetitions with other models, for 95% of runs."),
    ("of ceiling", "the score as a share of what a second set of retrained models earns."),
    ("F", "forgetting quality: mean points over the forget examples, 1 for an epsilon below 0.5 and half as much "
          "for each 0.5 more."),
    ("retain, test", "mean accuracy over that of the retrained models; above 1 is better than retraining."),
    ("time", f"wall-clock time of unlearning over that of retraining; the limit is {TIME_LIMIT:.0%}."),
    ("N", "models of each kind that the numbers rest on."),
    ("status", "scored, rejected (over the time limit), failed (its section says why), or floor or ceiling."),
]  # fmt: skip


def write_page(run: Run, board: Leaderboard, thumbnails: Path | None = None, suffix: str = "") -> list[Path]:
    """Write ``report.html`` and ``figures/*.png`` into the run folder and return their paths.

    PNG files of an earlier page are removed from the folder of the figures.

    Args:
        board: what `board.collect` returns for the same run.
        thumbnails: folder of the prepared dataset, to show the pictures of the examples. Without it, or if it
            is not the data of this run, the page has no pictures and says so.
        suffix: of both names, such as "-notebook"; as for `report.write`.

    Raises:
        ValueError: results of the original or the retrained models are missing or damaged.
    """
    gallery = Gallery(run.folder.root / f"figures{suffix}")
    faces, faces_note = _faces(run.record, thumbnails)
    context, compared = _compared(run, board, faces)
    parts = [
        _opening(board),
        _standings(board, gallery),
        _certainty(board),
        _audits(board),
        _how_to_read(board, faces_note),
        *(
            scored_section(position, compared[row.entry], context, gallery)
            if row.entry in compared
            else unscored_section(position, row)
            for position, row in enumerate(board.rows, 1)
        ),
        _provenance(board, run.record, suffix),
    ]
    path = run.folder.root / f"report{suffix}.html"
    title = f"{board.data.name}, N={board.n_models}: unlearning report"
    write_atomically(path, document(title, "\n".join(parts)).encode())
    gallery.tidy()
    return [path, *gallery.paths]


def _compared(run: Run, board: Leaderboard, faces: np.ndarray | None) -> tuple[Context, dict[str, Compared]]:
    """Hold the models of every row that has some against the retrained ones."""
    retrained = run.retrained
    statistic = score.statistic(retrained, board.rules)
    compared = {
        row.entry: compare(row, run.models(row.entry), statistic, board.rules)
        for row in board.rows
        if row.n_models
    }
    ceiling = compared[CEILING]
    seconds = float(np.mean([retrained.wall_seconds, ceiling.models.wall_seconds]))
    return Context(board, run.record, retrained, statistic, ceiling, seconds, faces), compared


def _faces(record: RunRecord, thumbnails: Path | None) -> tuple[np.ndarray | None, str]:
    """Return the pictures of the forget set, or a sentence why there are none."""
    if thumbnails is None and record.data.name == BUILT_IN:  # its folder is gone or was made anew
        return None, ""
    if thumbnails is None:
        return None, "Pictures of the examples are left out; they are shown on request."
    try:
        data = data_prep.dataset.load(thumbnails)
    except (ValueError, OSError):
        return None, f"There are no pictures of the examples: {thumbnails} is not a prepared dataset."
    if data.fingerprint != record.data.fingerprint:
        return None, f"There are no pictures of the examples: {thumbnails} is not the data of this run."
    return data.images[data.rows("forget")], ""


def _opening(board: Leaderboard) -> str:
    counts, settings = board.data.counts, board.provenance.settings
    scores = {row.entry: row.score for row in board.rows}
    tiles = [
        ("models of each kind", f"N = {board.n_models}", "unlearned beside retrained; the competition had 512."),
        ("forget set", counted(counts.forget, "picture"), f"and {counts.retain} to retain."),
        ("floor", number(scores[FLOOR]), "earned by N copies of the original: nothing was done."),
        ("ceiling", number(scores[CEILING]), "earned by N more retrained models: perfect unlearning is not 1."),
        ("to forget", f"{board.to_forget:.2f} sd",
         "by which the original is surer there than retrained models; near 0 nothing can be ranked."),
    ]  # fmt: skip
    return f"""<header>
<p class="kicker">Machine unlearning, scored at home</p>
<h1>{text(board.data.name)}</h1>
<p class="lead">{_headline(board)}</p>
<p class="muted">{text(board.rules)} rules; pictures of {text(settings.size)} px, ResNet-18 of width
{text(settings.width)}, recipe {text(settings.recipe.name)}, {text(settings.device)}.</p>
{facts(tiles)}
</header>"""


def _headline(board: Leaderboard) -> str:
    entries = [row for row in board.rows if not row.is_reference]
    scored = [row for row in entries if row.status == "scored"]
    if not scored:
        if len(entries) == 1:
            return "The only entry has no score."
        return f"None of {len(entries)} entries has a score." if entries else "There are no entries in this run."
    best = scored[0]
    among = "The only scored entry is" if len(scored) == 1 else f"The highest of {len(scored)} scored entries is"
    ends = f" (95% interval {interval(best)})" if best.score_low is not None else ""
    share = f", {best.share_of_ceiling:.0%} of the ceiling" if best.share_of_ceiling is not None else ""
    others = f" {len(entries) - len(scored)} more without a score." if len(entries) > len(scored) else ""
    return f'{among} <span class="u">{text(_short(best))}</span> with {best.score:.4f}{ends}{share}.{others}'


def _standings(board: Leaderboard, gallery: Gallery) -> str:
    caption = f"By score; rejected and failed last. N={board.n_models} of each kind."
    groups = _groups(board)
    heads = [HEADS[0], "group", *HEADS[1:]] if groups else HEADS
    explanations = EXPLANATIONS if groups else EXPLANATIONS[1:]
    lines = [_line(position, row, groups) for position, row in enumerate(board.rows, 1)]
    ties = [f"Group {groups[tie.entries[0]]}: {tie}" for tie in board.ties]
    if ties:
        ties.append("Neighbours across groups may be tied too.")
    return f"""<h2 id="leaderboard">Leaderboard</h2>
{_forest(board, gallery)}
{table(caption, heads, lines, sortable=True)}
{sentences("Ties", ties, "ties")}
{_pairs(board)}
{sentences("Notes", board.notes)}
{terms(explanations)}"""


def _groups(board: Leaderboard) -> dict[str, int]:
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


def _pairs(board: Leaderboard) -> str:
    """Return who beats whom in how many redraws; nothing where nothing was compared."""
    if not board.comparisons:
        return ""
    shares = {}
    for pair in board.comparisons:
        style = "apart" if pair.told_apart else ""
        shares[pair.first, pair.second] = f"{pair.share:.0%}", style
        shares[pair.second, pair.first] = f"{1 - pair.share:.0%}", style
    rows = [row for row in board.rows if any(row.entry in pair for pair in shares)]
    lines = []
    for place, row in enumerate(rows, 1):
        cells = [shares.get((row.entry, other.entry), ("", "")) for other in rows]
        shown = "".join(f'<td class="{style}">{share}</td>' for share, style in cells)
        lines.append(f'<tr><th scope="row">{place}. {text(_short(row))}</th>{shown}</tr>')
    caption = (
        f"Share of {board.comparisons[0].n_resamples} redraws of models and forget examples in which the row "
        f"beats the column, N={board.n_models}. Bold: the two can be told apart."
    )
    heads = ["", *map(str, range(1, len(rows) + 1))]
    return f"<details><summary>Who beats whom, pair by pair</summary>{table(caption, heads, lines)}</details>"


def _forest(board: Leaderboard, gallery: Gallery) -> str:
    """Return the plot twice, for wide windows and for narrow ones; the page's style shows one of them."""
    scored = [row for row in board.rows if row.score is not None]
    scores = {row.entry: row.score for row in scored}
    low, high = (
        [np.nan if end is None else end for end in ends]
        for ends in ([row.score_low for row in scored], [row.score_high for row in scored])
    )
    kinds = [{CEILING: "retrained", FLOOR: "muted"}.get(row.entry, "unlearned") for row in scored]
    names = [plain(row.entry) for row in scored]
    label = "Scores of all scored rows, with floor and ceiling."

    def drawn(width: float, height: float, names_above: bool) -> Figure:
        figure, axes = plots.new_figure(width, 0.75 + height * len(scored))
        ends = low, high, kinds, scores[FLOOR], scores[CEILING]
        plots.forest(axes, names, list(scores.values()), *ends, names_above=names_above)
        return figure

    wide = gallery.show(drawn(10.2, 0.26, False), "leaderboard", label)
    narrow = svg(drawn(3.7, 0.4, True), "leaderboard-narrow", label)
    bars = (
        "the bars 95% intervals. Which entries cannot be told apart stands below."
        if np.isfinite(low).any()
        else "without intervals, which this run has not, so the order may be chance."
    )
    return (
        f'<figure class="card"><div class="for-wide">{wide}</div><div class="for-narrow">{narrow}</div>'
        f"<figcaption>The points are scores, {bars} The dashed lines are the floor and the ceiling. Most entries "
        "lie between; above the ceiling is luck or better accuracy.</figcaption></figure>"
    )


def _certainty(board: Leaderboard) -> str:
    """Return what would change if the evaluation were repeated; nothing under the notebook rules."""
    rows = [(position, row) for position, row in enumerate(board.rows, 1) if row.intervals]
    if not rows:
        return ""
    heads = ["entry", "other models", "other forget set", "both"]
    ahead = next((row.forecast for _, row in rows if row.forecast), None)
    if ahead:
        heads.append(f"forecast for N={ahead.n_models}")
    lines = []
    for position, row in rows:
        found = row.intervals
        ends = [
            (part.score_low, between(part.score_low, part.score_high))
            for part in (found.models, found.examples, found.both)
        ]
        if row.forecast:
            spread = between(row.forecast.score_low, row.forecast.score_high)
            ends.append((row.forecast.score, f"{number(row.forecast.score)} ({spread})"))
        elif ahead:
            ends.append((None, "–"))
        lines.append(_cells(position, row, ends))
    without = "" if ahead else f"<p>A forecast for 512 models needs N of at least {LEAST_MODELS}.</p>"
    return f"""<h2 id="certainty">How sure is it?</h2>
<p>95% intervals of the mean score over repetitions of the whole evaluation at N={board.n_models}: with other
models on this forget set, with these models on other forget sets, or both. Forget pictures count as independent;
where several show one person, the last two are too narrow.</p>
{table(f"95% intervals of the score, N={board.n_models}.", heads, lines, sortable=True)}
{without}"""


AUDITS = [
    ("forget accuracy", "share of the forget set predicted right; the row retrained says what to aim at."),
    ("membership attack", "accuracy of a logistic regression on the losses of forget and test pictures (the "
                          "starting kit's); one half is blind, and the row retrained is the aim."),
    ("NoMUS", "(test accuracy + 1 − 2 |attack accuracy − ½|) / 2, of MUFAC's authors; more is better. Here with "
              "the starting kit's attack, and the test set stands for the unseen one."),
    ("shift", "median difference of the mean confidence on a forget picture, in standard deviations of the "
              "retrained models: the first way to lose points."),
    ("size of shift", "the same without its sign, in the mean: shifts up and down do not cancel. Chance alone "
                      "gives some; the row retrained says how much."),
    ("spread", "median ratio of the standard deviations of that confidence; below 1 the runs are too much alike: "
               "the second way."),
    ("supported epsilon", "median epsilon with each error rate at its one-sided 95% upper bound; N models cannot "
                          "support more than the number in brackets. The attack was picked on the same models, so "
                          "it proves nothing about one picture."),
    ("KLoM forget", "KL divergence of the margins, unlearned from retrained, in 20 bins a picture; mean over "
                    "forget pictures and in brackets the 95th percentile. 0 is the aim; the row retrained says "
                    "what N models can show."),
    ("KLoM retain", "the same on retain pictures."),
    ("KLoM validation", "the same on validation pictures."),
]  # fmt: skip


def _audits(board: Leaderboard) -> str:
    """Return other people's questions about the same models; nothing under the notebook rules."""
    lines = []
    for position, row in enumerate(board.rows, 1):
        if not row.distance:
            continue
        models, apart = row.behaviour, row.distance
        shift, spread = (None if math.isnan(v) else v for v in (apart.median_shift, apart.median_spread))
        lines.append(_cells(position, row, [
            (row.forget_accuracy, percent(row.forget_accuracy, 1)),
            (models and models.attack_accuracy, percent(models and models.attack_accuracy, 1)),
            (models and models.nomus, number(models and models.nomus, 3)),
            (shift, signed(shift)),
            (apart.mean_absolute_shift, number(apart.mean_absolute_shift, 2)),
            (spread, "–" if spread is None else f"×{spread:.2f}"),
            (apart.supported_epsilon, f"{apart.supported_epsilon:.2f} ({apart.largest_supported_epsilon:.2f})"),
            *((mean, _mean_and_tail(mean, tail)) for mean, tail in (
                (row.klom.forget, row.klom.forget_95),
                (row.klom.retain, row.klom.retain_95),
                (row.klom.validation, row.klom.validation_95),
            )),
        ]))  # fmt: skip
    if not lines:
        return ""
    heads = ["entry", *(name for name, _ in AUDITS)]
    return f"""<h2 id="audits">Audits beside the score</h2>
<p>None of these enters the score.</p>
{table(f"Audits, N={board.n_models}; attacks on at most {AUDITED_MODELS} models.", heads, lines, sortable=True)}
{terms(AUDITS)}"""


def _mean_and_tail(mean: float | None, tail: float | None) -> str:
    return "–" if mean is None else f"{mean:.2f} ({tail:.2f})"


def _line(position: int, row: Row, groups: dict[str, int]) -> str:
    group = groups.get(row.entry)
    cells = [
        *([(group, str(group or "–"))] if groups else []),
        (row.score, number(row.score)),
        (row.score_low, interval(row)),
        (row.share_of_ceiling, percent(row.share_of_ceiling)),
        (row.forgetting_quality, number(row.forgetting_quality)),
        (row.retain_ratio, number(row.retain_ratio, 3)),
        (row.test_ratio, number(row.test_ratio, 3)),
        (row.time_ratio, percent(row.time_ratio, 1)),
        (row.n_models or None, str(row.n_models or "–")),
    ]
    return _cells(position, row, cells, f"<td>{status(row)}</td>")


def _cells(position: int, row: Row, cells: list[tuple[float | None, str]], last: str = "") -> str:
    """Return a line of a table: the row's name, then cells of a sort key and what is shown."""
    numbers = "".join(f'<td data-sort="{"" if key is None else key}">{shown}</td>' for key, shown in cells)
    link = f'<a href="#entry-{position}" title="{text(row.entry)}">{text(_short(row))}</a>'
    return f"<tr{' class=reference' if row.is_reference else ''}><td>{link}</td>{numbers}{last}</tr>"


def _short(row: Row) -> str:
    return plots.shortened(row.entry, NAME_LENGTH)


def _how_to_read(board: Leaderboard, faces_note: str) -> str:
    attacks = (
        "The dashed lines are the thresholds of the strongest attack on that example; the region between them is "
        "tinted in the colour of the kind that it predicts there."
        if board.rules == "official"
        else "No thresholds are drawn in: under the notebook rules a regression may decide."
    )
    return f"""<h2 id="entries">Entry by entry</h2>
<p>Throughout, <span class="u">orange</span> is the unlearned models of an entry and <span class="r">blue</span>
the models retrained without the forget set; a second set of these, in the section on the ceiling, is
<span class="s">another blue</span>. In the drawings of single examples each tick is a model and each curve a
smoothed histogram, scaled to its own peak. {attacks} {text(faces_note)}</p>"""


def _provenance(board: Leaderboard, record: RunRecord, suffix: str) -> str:
    data = {**asdict(record.data), "class_names": ", ".join(record.data.class_names)}
    run = {**asdict(record.settings), "rules": board.rules, "models of each kind": record.n_models}
    again = "The command that made this run. Given again, it finds every job finished and gives the same scores."
    return f"""<h2 id="provenance">Settings and provenance</h2>
{command(record.provenance.command, again)}
<h4>Run</h4>
{terms(_leaves(run))}
<h4>Data</h4>
{terms(_leaves(data))}
<h4>Machine and software</h4>
{terms(_leaves(asdict(record.provenance.environment)))}
<h4>What kept entries from other runs and files</h4>
{terms(_leaves(record.provenance.isolation))}
<footer>The numbers are also in leaderboard{suffix}.csv and leaderboard{suffix}.json, the figures as PNG in
figures{suffix}/. This page loads nothing from elsewhere.</footer>"""


def _leaves(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return the leaves of nested settings with their paths.

    >>> _leaves({"recipe": {"lr": 0.1}, "class_names": "a, b"})
    [('recipe lr', 0.1), ('class names', 'a, b')]
    """
    leaves = []
    for key, value in tree.items():
        name = f"{prefix}{key.replace('_', ' ')}"
        leaves += _leaves(value, f"{name} ") if isinstance(value, dict) else [(name, value)]
    return leaves
