"""Columns of the tables of the report page: what each is called, how it is explained, what it shows of a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

from local_scorer.metric.clock import TIME_LIMIT
from local_scorer.report.formats import between, factor, number, percent, signed
from local_scorer.report.rows import Row
from local_scorer.report.table import NEAR_LIMIT


@dataclass(frozen=True)
class Column:
    """A column of a table with a line for each row of the board.

    Attributes:
        head: its name.
        key: what a row is sorted by; None if the row has nothing there.
        shown: the text in the cell of a row.
        why: a sentence that explains it; empty where the text around the table does.
    """

    head: str
    key: Callable[[Row], float | None]
    shown: Callable[[Row], str]
    why: str = ""


def found(row: Row, path: str) -> Any:
    """Follow a dotted path of attributes from a row; None as soon as one of them is None, and for NaN.

    >>> found(Row("ssd", "scored"), "intervals.both.score_low") is None
    True
    """
    value = reduce(lambda value, name: None if value is None else getattr(value, name), path.split("."), row)
    return None if value != value else value


def of_number(head: str, path: str, show: Callable[..., str], why: str = "", **options: Any) -> Column:
    """Return a column of one number of the row."""
    return Column(head, lambda row: found(row, path), lambda row: show(found(row, path), **options), why)


def of_interval(head: str, path: str, why: str = "") -> Column:
    """Return a column of an interval of the score; `path` leads to what has `score_low` and `score_high`."""
    low, high = (f"{path}.{end}".lstrip(".") for end in ("score_low", "score_high"))
    return Column(head, lambda row: found(row, low), lambda row: between(found(row, low), found(row, high)), why)


def of_pair(head: str, path: str, bracketed: str, why: str = "") -> Column:
    """Return a column of one number of the row with another in brackets."""

    def shown(row: Row) -> str:
        value = found(row, path)
        return "–" if value is None else f"{number(value, 2)} ({number(found(row, bracketed), 2)})"

    return Column(head, lambda row: found(row, path), shown, why)


def share_of_time(row: Row) -> str:
    """Return the time of a row, marked where its interval holds the limit."""
    return percent(row.time_ratio, digits=1) + (f" {NEAR_LIMIT}" if row.is_near_limit else "")


STANDINGS = (
    of_number("score", "score", number, "F × retain × test. Perfect unlearning earns the ceiling, not 1."),
    of_interval(
        "95% interval", "",
        "It holds the mean score over repetitions 95% of the time: with other models from the same original, or, "
        "where there are several, from other originals.",
    ),
    of_number(
        "of ceiling", "share_of_ceiling", percent,
        "The score as a share of what a second set of retrained models earns.",
    ),
    of_number(
        "F", "forgetting_quality", number,
        "Forgetting quality: the mean points of the forget examples. An epsilon below 0.5 earns 1 point, and each "
        "0.5 more halves it.",
    ),
    of_number(
        "retain", "retain_ratio", number,
        "Mean accuracy on the retain set over that of the retrained models; above 1 is better than retraining.",
        digits=3,
    ),
    of_number("test", "test_ratio", number, "The same on the test set.", digits=3),
    Column(
        "time", lambda row: found(row, "time_ratio"), share_of_time,
        "The time of a run over that of a training on the same kind of machine, the median over runs: in CPU "
        f"seconds, on a GPU in wall-clock seconds. The limit is {TIME_LIMIT:.0%}; {NEAR_LIMIT} marks a time "
        "whose 95% interval holds it.",
    ),
    Column("N", lambda row: row.n_models or None, lambda row: str(row.n_models or "–"), "Models scored together."),
)  # fmt: skip

CERTAINTY = (
    of_interval("other models", "intervals.models"),
    of_interval("other forget set", "intervals.examples"),
    of_interval("both", "intervals.both"),
)

AUDITS = (
    of_number(
        "forget accuracy", "forget_accuracy", percent,
        "Share of the forget set that is predicted right. The row of retraining is the aim.", digits=1,
    ),
    of_number(
        "membership attack", "behaviour.attack_accuracy", percent,
        "Accuracy of a logistic regression on the losses of forget and test pictures, as in the starting kit. "
        "One half is blind; the row of retraining is the aim.", digits=1,
    ),
    of_number(
        "NoMUS", "behaviour.nomus", number,
        "(test accuracy + 1 − 2 |attack accuracy − ½|) / 2, by the authors of MUFAC; more is better. The attack "
        "is the starting kit's, and the test set stands for their unseen set.", digits=3,
    ),
    of_number(
        "shift", "distance.median_shift", signed,
        "Difference between the mean confidences in a forget picture, in standard deviations of the retrained "
        "models; the median over pictures. It is the first way to lose points.",
    ),
    of_number(
        "size of shift", "distance.mean_absolute_shift", number,
        "The mean of the same without its sign, so that shifts up and down do not cancel. Chance alone gives "
        "some: the row of retraining says how much.", digits=2,
    ),
    of_number(
        "spread", "distance.median_spread", factor,
        "Median ratio of the standard deviations of that confidence. Below 1 the runs are too much alike: the "
        "second way to lose points.",
    ),
    of_pair(
        "supported epsilon", "distance.supported_epsilon", "distance.largest_supported_epsilon",
        "Median epsilon with each error rate at its one-sided 95% upper bound. N models support at most the "
        "number in brackets. The attack was picked on the same models, so this proves nothing about one picture.",
    ),
    of_pair(
        "KLoM forget", "klom.forget", "klom.forget_95",
        "KL divergence of the margins of unlearned models from those of retrained ones, in 20 bins for each "
        "forget picture: the mean over pictures, and the 95th percentile in brackets. 0 is the aim; the row of "
        "retraining says what N models can show.",
    ),
    of_pair("KLoM retain", "klom.retain", "klom.retain_95", "The same on retain pictures."),
    of_pair("KLoM validation", "klom.validation", "klom.validation_95", "The same on validation pictures."),
)  # fmt: skip


def of_forecast(n_models: int) -> Column:
    """Return the column of the score that is forecast for so many models."""

    def shown(row: Row) -> str:
        ahead = row.forecast
        return f"{number(ahead.score)} ({between(ahead.score_low, ahead.score_high)})" if ahead else "–"

    return Column(f"forecast for N={n_models}", lambda row: found(row, "forecast.score"), shown)


def of_group(groups: dict[str, int]) -> Column:
    """Return the column of the groups of entries that cannot be told apart."""
    return Column(
        "group",
        lambda row: groups.get(row.entry),
        lambda row: str(groups.get(row.entry, "–")),
        "Entries with the same number cannot be told from the first of them.",
    )
