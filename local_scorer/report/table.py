"""The leaderboard as text, one screen wide."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from local_scorer.metric.clock import CLOCKS, TIME_LIMIT, deciding_clock
from local_scorer.report.board import Leaderboard
from local_scorer.report.rows import Row
from local_scorer.runs.record import CEILING, FLOOR

TABLE_WIDTH = 80  # columns of a usual terminal
SMALL_SCORE = 0.01
NEAR_LIMIT = "~"  # behind a time whose interval holds the limit
STATUSES = {FLOOR: "floor", CEILING: "ceiling"}
GAP = " "
LEAST_NAME_WIDTH = 10  # of an entry; a name that does not fit is cut here, not in the files


def table(board: Leaderboard) -> str:
    """Return the leaderboard as text of at most `TABLE_WIDTH` columns."""
    settings, counts = board.provenance.settings, board.data.counts
    header = ("entry", "score", "interval", "ceil.", "F", "retain", "test", "time", "N", "status")
    lines = [
        (
            printable(row.entry),
            _number(row.score, 4),
            _interval(row),
            _percent(row.share_of_ceiling),
            _number(row.forgetting_quality, 4),
            _number(row.retain_ratio, 3),
            _number(row.test_ratio, 3),
            _percent(row.time_ratio, 1) + (NEAR_LIMIT if row.is_near_limit else ""),
            str(row.n_models) if row.n_models else "-",
            row.status if not row.is_reference else STATUSES[row.entry],
        )
        for row in board.rows
    ]
    widths = [max(len(line[column]) for line in [header, *lines]) for column in range(len(header))]
    left = TABLE_WIDTH - sum(len(GAP) + width for width in widths[1:])
    widths[0] = min(widths[0], max(left, LEAST_NAME_WIDTH))
    above = [
        f"{board.data.name}: {counts.forget} picture{'' if counts.forget == 1 else 's'} to forget, "
        f"{counts.retain} to retain; {settings.size} px, ResNet-18 of width "
        f"{settings.width}, recipe {settings.recipe.name}, {settings.device}; {board.rules} rules, "
        f"{sizes(board)}.",
        f"What there is to forget: the original's confidence on the forget set lies {board.to_forget:.2f} "
        "standard deviations of the retrained models above theirs (median over examples).",
    ]
    standings = [_line(cells, widths) for cells in (header, ["-" * width for width in widths], *lines)]
    near = f", {NEAR_LIMIT} = near it" if any(row.is_near_limit for row in board.rows) else ""
    below = [
        "score = F x retain x test, with retain and test accuracy as ratios to the retrained models; interval = "
        f"95% for the mean score if the evaluation were repeated with other {_others(board)}; ceil. = score as "
        "a share of that of a second set of retrained models; time = "
        f"{CLOCKS[deciding_clock(settings.device)]} as a share of retraining, median of the runs, limit "
        f"{TIME_LIMIT:.0%}{near}; floor = {board.floor_models}.",
    ]
    below += [f"Tie: {tie}" for tie in board.ties]
    below += [_forecast(row) for row in board.rows if row.forecast]
    below += [f"{row.entry}: {row.status}. {row.reason}" for row in board.rows if row.reason]
    below += [f"Note: {note}" for note in board.notes]
    return "\n".join([*map(_wrapped, above), "", *standings, "", *map(_wrapped, below)])


def printable(text: str) -> str:
    """Return text that cannot move a terminal's cursor, colour it or turn its direction of writing.

    >>> printable("red \\x1b[31m")
    'red �[31m'
    """
    return "".join(sign if sign.isprintable() else "�" for sign in text)


def shortened(name: str, length: int, tail: int | None = None) -> str:
    """Return a name without its middle where it is too long; names that look alike often differ at the end.

    Args:
        tail: letters that stay after the cut; as many as before it by default.

    >>> shortened("finetune LR=1e-4", 11)
    'finet…=1e-4'
    """
    if len(name) <= length:
        return name
    tail = (length - 1) // 2 if tail is None else tail
    return f"{name[: length - 1 - tail]}…{name[len(name) - tail :]}"


def sizes(board: Leaderboard) -> str:
    """Say how many models of which kind are behind each score."""
    if board.setup == "full":
        return (
            f"full set-up: one run from each of N={board.n_models} originals, beside {board.n_retrained} "
            "retrained models"
        )
    if board.n_originals == 1:
        return f"N={board.n_models}"
    runs = f"N={board.n_models} runs from each of {board.n_originals} originals"
    return f"{runs}, beside {board.n_retrained} retrained models"


def _others(board: Leaderboard) -> str:
    if board.setup == "full":
        return "originals and other models"
    return "models" if board.n_originals == 1 else "originals"


def _wrapped(sentence: str) -> str:
    return "\n".join(map(printable, textwrap.wrap(sentence, TABLE_WIDTH, break_on_hyphens=False)))


def _forecast(row: Row) -> str:
    found = row.forecast
    return (
        f"Forecast for N={found.n_models}: {row.entry} {found.score:.4f} "
        f"({found.score_low:.4f} to {found.score_high:.4f})."
    )


def _interval(row: Row) -> str:
    """Return the interval of a row's score, of a small score with four decimals in the same width."""
    if row.score_low is None or row.score_high is None:
        return "-"
    if row.score < SMALL_SCORE:
        return "-".join(f"{end:.4f}".removeprefix("0") for end in (row.score_low, row.score_high))
    return f"{row.score_low:.3f}-{row.score_high:.3f}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first = shortened(cells[0], widths[0]).ljust(widths[0])
    middle = [cell.rjust(width) for cell, width in zip(cells[1:-1], widths[1:-1], strict=True)]
    return GAP.join([first, *middle, cells[-1]]).rstrip()


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:.{digits}%}"
