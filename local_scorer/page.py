"""The report page: one HTML file that explains a run, and the same figures as PNG. Needs no torch.

The page loads nothing, from the network or elsewhere: style, script, figures and thumbnails are inside, and its
content security policy forbids the rest. `sections` has the part on each entry.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import data_prep.dataset
from local_scorer import plots, report, score
from local_scorer.figures import Gallery
from local_scorer.forecast import LEAST_MODELS, Forecast
from local_scorer.markup import (
    document,
    facts,
    interval,
    number,
    percent,
    plain,
    signed,
    status,
    table,
    terms,
    text,
)
from local_scorer.reading import AUDITED_MODELS
from local_scorer.report import CEILING, FLOOR, Leaderboard, Row, RunRecord
from local_scorer.score import TIME_LIMIT
from local_scorer.sections import Context, compare, scored_section, unscored_section
from local_scorer.store import RunFolder, write_atomically

HEADS = ["entry", "score", "95 % interval", "of ceiling", "F", "retain", "test", "time", "N", "status"]
EXPLANATIONS = [
    ("score", "F × retain × test. Perfect unlearning earns the ceiling, not 1."),
    ("95 % interval", "where the score would mostly lie if the whole run were repeated with other models."),
    ("of ceiling", "the score as a share of what a second set of retrained models earns."),
    ("F", "forgetting quality: mean points over the forget examples, 1 for an epsilon below 0.5 and half as much "
          "for each 0.5 more."),
    ("retain, test", "mean accuracy over that of the retrained models; above 1 is better than retraining."),
    ("time", f"wall-clock time of unlearning over that of retraining; the limit is {TIME_LIMIT:.0%}."),
    ("N", "models of each kind that the numbers rest on."),
    ("status", "scored, rejected (over the time limit), failed (its section says why), or floor or ceiling."),
]  # fmt: skip


def write_page(
    folder: RunFolder, board: Leaderboard, record: RunRecord, thumbnails: Path | None = None
) -> list[Path]:
    """Write ``report.html`` and ``figures/*.png`` into the run folder and return their paths.

    Args:
        board: what `report.collect` returns for the same record.
        thumbnails: folder of the prepared dataset, to show the pictures of the examples. Without it, or if it
            is not the data of this run, the page has no pictures and says so.

    Raises:
        ValueError: results of the original or the retrained models are missing or damaged.
    """
    gallery = Gallery(folder.root / "figures")
    faces, faces_note = _faces(record, thumbnails)
    parts = [
        _opening(board),
        _standings(board, gallery),
        _certainty(board),
        _audits(board),
        _how_to_read(board, faces_note),
        *_sections(folder, board, record, faces, gallery),
        _provenance(board, record),
    ]
    path = folder.root / "report.html"
    title = f"{record.data['name']}, N={board.n_models}: unlearning report"
    write_atomically(path, document(title, "\n".join(parts)).encode())
    return [path, *gallery.paths]


def _sections(
    folder: RunFolder, board: Leaderboard, record: RunRecord, faces: np.ndarray | None, gallery: Gallery
) -> list[str]:
    retrained = report.models_of(folder, record.retrained)
    second = report.models_of(folder, record.ceiling)
    statistic = score.statistic(retrained, board.rules)
    rows = {row.entry: row for row in board.rows}
    context = Context(
        board,
        record,
        retrained,
        statistic,
        ceiling=compare(rows[CEILING], second, statistic, board.rules),
        retraining_seconds=float(np.mean([retrained.wall_seconds, second.wall_seconds])),
        faces=faces,
    )
    keys = {entry["name"]: entry["keys"] for entry in record.entries}
    sections = []
    for position, row in enumerate(board.rows, 1):
        if not row.n_models:
            sections.append(unscored_section(position, row))
            continue
        if row.entry == CEILING:
            compared = context.ceiling
        elif row.entry == FLOOR:
            original = report.models_of(folder, [record.original])
            compared = compare(row, original.repeated(record.n_models), statistic, board.rules)
        else:
            compared = compare(row, report.models_of(folder, keys[row.entry]), statistic, board.rules)
        sections.append(scored_section(position, compared, context, gallery))
    return sections


def _faces(record: RunRecord, thumbnails: Path | None) -> tuple[np.ndarray | None, str]:
    """Return the pictures of the forget set, or a sentence why there are none."""
    if thumbnails is None:
        return None, "Pictures of the examples are left out; they are shown on request."
    try:
        data = data_prep.dataset.load(thumbnails)
    except (ValueError, OSError):
        return None, f"There are no pictures of the examples: {thumbnails} is not a prepared dataset."
    if data.fingerprint != record.data["fingerprint"]:
        return None, f"There are no pictures of the examples: {thumbnails} is not the data of this run."
    return data.images[data.rows("forget")], ""


def _opening(board: Leaderboard) -> str:
    counts, settings = board.data["counts"], board.provenance["settings"]
    scores = {row.entry: row.score for row in board.rows}
    tiles = [
        ("models of each kind", f"N = {board.n_models}", "unlearned beside retrained; the competition had 512."),
        ("pictures to forget", f"{counts['forget']}", f"and {counts['retain']} to retain."),
        ("floor", number(scores[FLOOR]), "earned by N copies of the original: nothing was done."),
        ("ceiling", number(scores[CEILING]), "earned by N more retrained models: perfect unlearning is not 1."),
        ("to forget", f"{board.to_forget:.2f} sd",
         "by which the original is more confident on the forget set than retrained models, in their standard "
         "deviations; near 0 nothing can be ranked."),
    ]  # fmt: skip
    notes = "".join(f"<li>{text(note)}</li>" for note in board.notes)
    return f"""<header>
<p class="kicker">Machine unlearning, scored at home</p>
<h1>{text(board.data["name"])}</h1>
<p class="lead">{_headline(board)}</p>
<p class="muted">{text(board.rules)} rules; pictures of {text(settings["size"])} px, ResNet-18 of width
{text(settings["width"])}, recipe {text(settings["recipe"]["name"])}, {text(settings["device"])}.</p>
{facts(tiles)}
{f'<ul class="notes" aria-label="Notes">{notes}</ul>' if notes else ""}
</header>"""


def _headline(board: Leaderboard) -> str:
    entries = [row for row in board.rows if not row.is_reference]
    scored = [row for row in entries if row.status == "scored"]
    if not scored:
        return f"None of {len(entries)} entries has a score." if entries else "There are no entries in this run."
    best = scored[0]
    among = "The only scored entry is" if len(scored) == 1 else f"The highest of {len(scored)} scored entries is"
    between = f" (95 % interval {interval(best)})" if best.score_low is not None else ""
    share = f", {best.share_of_ceiling:.0%} of the ceiling" if best.share_of_ceiling is not None else ""
    others = f" {len(entries) - len(scored)} more without a score." if len(entries) > len(scored) else ""
    return f'{among} <span class="u">{text(best.entry)}</span> with {best.score:.4f}{between}{share}.{others}'


def _standings(board: Leaderboard, gallery: Gallery) -> str:
    caption = f"By score; rejected and failed last. N={board.n_models} of each kind."
    lines = [_line(position, row) for position, row in enumerate(board.rows, 1)]
    return f"""<h2 id="leaderboard">Leaderboard</h2>
{_forest(board, gallery)}
{table(caption, HEADS, lines, sortable=True)}
{terms(EXPLANATIONS)}"""


def _forest(board: Leaderboard, gallery: Gallery) -> str:
    scored = [row for row in board.rows if row.score is not None]
    scores = {row.entry: row.score for row in scored}
    low, high = (
        [np.nan if end is None else end for end in ends]
        for ends in ([row.score_low for row in scored], [row.score_high for row in scored])
    )
    figure, axes = plots.new_figure(7.6, 0.9 + 0.34 * len(scored))
    plots.forest(
        axes, [plain(row.entry) for row in scored], list(scores.values()), low, high,
        [{CEILING: "retrained", FLOOR: "muted"}.get(row.entry, "unlearned") for row in scored],
        scores[FLOOR], scores[CEILING],
    )  # fmt: skip
    drawing = gallery.show(figure, "leaderboard", "Scores of all scored rows, with floor and ceiling.")
    bars = (
        "the bars 95 % intervals. Where bars overlap widely, the order is open"
        if np.isfinite(low).any()
        else "without intervals, which this run has not, so the order may be chance"
    )
    return (
        f'<figure class="card"><div class="scroll wide" tabindex="0">{drawing}</div>'
        f"<figcaption>The points are scores, {bars}. "
        "The dashed lines are the floor and the ceiling: real entries live between them.</figcaption></figure>"
    )


def _certainty(board: Leaderboard) -> str:
    """Return what would change if the evaluation were repeated; nothing under the notebook rules."""
    rows = [(position, row) for position, row in enumerate(board.rows, 1) if row.intervals]
    if not rows:
        return ""
    lines = []
    for position, row in rows:
        found = row.intervals
        ends = [
            (part.score_low, f"{part.score_low:.4f} to {part.score_high:.4f}")
            for part in (found.models, found.examples, found.both)
        ]
        ahead = row.forecast
        ends.append((ahead.score if ahead else None, _forecast(ahead)))
        lines.append(_cells(position, row, ends))
    heads = ["entry", "other models", "other forget set", "both", "forecast for N=512"]
    ties = "".join(f"<li>{text(tie)}</li>" for tie in board.ties)
    return f"""<h2 id="certainty">How sure is it?</h2>
<p>95 % intervals of the mean score over repetitions of the whole evaluation at N={board.n_models}: with other
models on this forget set, with these models on other forget sets, or both. Forget pictures count as independent;
where several show one person, the last two are too narrow.</p>
{table(f"95 % intervals of the score, N={board.n_models}.", heads, lines, sortable=True)}
{f'<ul class="notes" aria-label="Ties">{ties}</ul>' if ties else ""}"""


def _forecast(ahead: Forecast | None) -> str:
    if ahead is None:
        return f"needs N of at least {LEAST_MODELS}"
    return f"{ahead.score:.4f} ({ahead.score_low:.4f} to {ahead.score_high:.4f})"


AUDITS = [
    ("forget accuracy", "share of the forget set predicted right; the row retrained says what to aim at."),
    ("membership attack", "accuracy of a logistic regression on the losses of forget and test pictures (the "
                          "starting kit's); one half is blind, and the row retrained is the aim."),
    ("NoMUS", "(test accuracy + 1 − 2 |attack accuracy − ½|) / 2, of MUFAC's authors; more is better."),
    ("shift", "mean difference of the confidence on forget pictures, in standard deviations of the retrained "
              "models: the first way to lose points."),
    ("spread", "median ratio of the standard deviations of that confidence; below 1 the runs are too much alike: "
               "the second way."),
    ("supported epsilon", "median epsilon that the counts of errors support at 95 % (Clopper–Pearson), for the "
                          "strongest attack; N models cannot support more than the number in brackets."),
]  # fmt: skip


def _audits(board: Leaderboard) -> str:
    """Return other people's questions about the same models; nothing under the notebook rules."""
    lines = []
    for position, row in enumerate(board.rows, 1):
        if not row.distance:
            continue
        models, apart = row.behaviour, row.distance
        lines.append(_cells(position, row, [
            (row.forget_accuracy, percent(row.forget_accuracy, 1)),
            (models and models.attack_accuracy, percent(models and models.attack_accuracy, 1)),
            (models and models.nomus, number(models and models.nomus, 3)),
            (apart.shift, signed(apart.shift)),
            (apart.spread, f"×{apart.spread:.2f}"),
            (apart.supported_epsilon, f"{apart.supported_epsilon:.2f} ({apart.largest_supported_epsilon:.2f})"),
        ]))  # fmt: skip
    if not lines:
        return ""
    heads = ["entry", *(name for name, _ in AUDITS)]
    return f"""<h2 id="audits">Audits beside the score</h2>
<p>None of these enters the score.</p>
{table(f"Audits, N={board.n_models}; attacks on at most {AUDITED_MODELS} models.", heads, lines, sortable=True)}
{terms(AUDITS)}"""


def _line(position: int, row: Row) -> str:
    cells = [
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
    return (
        f"<tr{' class=reference' if row.is_reference else ''}>"
        f'<td><a href="#entry-{position}">{text(row.entry)}</a></td>{numbers}{last}</tr>'
    )


def _how_to_read(board: Leaderboard, faces_note: str) -> str:
    attacks = (
        "The dashed lines are the thresholds of the strongest attack on that example; the region between them is "
        "tinted in the colour of the kind that it predicts there."
        if board.rules == "official"
        else "No thresholds are drawn in: under the notebook rules a regression may decide."
    )
    return f"""<h2 id="entries">Entry by entry</h2>
<p>Throughout, <span class="u">orange</span> is the unlearned models of an entry and <span class="r">blue</span>
the models retrained without the forget set. In the drawings of single examples each tick is a model and each
curve a smoothed histogram, scaled to its own peak. {attacks} {text(faces_note)}</p>"""


def _provenance(board: Leaderboard, record: RunRecord) -> str:
    data = {**record.data, "class_names": ", ".join(map(str, record.data["class_names"]))}
    run = {**record.settings, "rules": board.rules, "models of each kind": record.n_models}
    return f"""<h2 id="provenance">Settings and provenance</h2>
<p>The command that made this run. Given again, it finds every job finished and prints the same leaderboard.</p>
<pre>{text(record.provenance["command"])}</pre>
<h4>Run</h4>
{terms(_leaves(run))}
<h4>Data</h4>
{terms(_leaves(data))}
<h4>Machine and software</h4>
{terms(_leaves(record.provenance.get("environment", {})))}
<footer>The numbers are also in leaderboard.csv and leaderboard.json, the figures as PNG in figures/. This page
loads nothing from elsewhere.</footer>"""


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
