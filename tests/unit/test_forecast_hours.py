"""The forecast of a notebook's hours on Kaggle: what a run is made of, and how it grows with the pictures."""

import re

import pytest

from kaggle_submission.tools import forecast
from kaggle_submission.tools.forecast import Timed

FIXED, RETAIN, FORGET = 0.5, 0.01, 0.04
PLAIN = 0.01


def timed(cost, noise=(0.0,), speeds=(1.0, 1.0, 1.0)):
    """Return what would be timed of a run that takes `cost(retain, forget)` seconds, with less of each kind.

    Args:
        speeds: of the machine while each of the three is timed.
    """
    return tuple(
        Timed(retain, forget, tuple((cost(retain, forget) + more) / speed for more in noise), PLAIN / speed)
        for (retain, forget), speed in zip(((256, 128), (128, 128), (256, 64)), speeds, strict=True)
    )


def linear(retain, forget):
    return FIXED + RETAIN * retain + FORGET * forget


def test_a_run_is_split_into_its_parts():
    counts = timed(linear)
    work = forecast.split_work(counts, tuple(one.seconds[0] for one in counts))
    assert (work.fixed, work.retain, work.forget) == pytest.approx((FIXED, RETAIN, FORGET))


def test_one_plain_pass_in_each_run_takes_the_hours_that_participants_reported():
    counts = timed(lambda retain, forget: 0.01 * retain)
    work = forecast.split_work(counts, tuple(one.seconds[0] for one in counts))
    assert work.hours_on_kaggle(9_825, 200, plain=0.01) == pytest.approx(forecast.HOURS_PER_PASS)


def test_work_on_few_pictures_to_forget_is_not_taken_for_work_on_those_to_retain():
    """Ten passes through the forget set are a fifth of a pass through the retain set where that is 50 times it."""
    counts = timed(lambda retain, forget: 0.01 * 10 * forget)
    work = forecast.split_work(counts, tuple(one.seconds[0] for one in counts))
    assert work.hours_on_kaggle(10_000, 200, plain=0.01) == pytest.approx(forecast.HOURS_PER_PASS / 5)


@pytest.mark.parametrize("shorter", [min, lambda retain, forget: forget])
def test_batches_that_are_zipped_end_with_the_shorter_set(shorter):
    counts = timed(lambda retain, forget: 0.02 * shorter(retain, forget))
    work = forecast.split_work(counts, tuple(one.seconds[0] for one in counts))
    assert work.retain * 20_000 + work.forget * 400 == pytest.approx(0.02 * 400)


def hours_and_range(text):
    """Return the hours that a forecast expects, and between which it says that they lie."""
    found = re.search(r"roughly (\S+) of .* from (\S+) to (\S+) by", text)
    return tuple(map(float, found.groups()))


def test_runs_that_differ_widen_the_range_around_the_same_hours():
    steady = hours_and_range(forecast.forecast(timed(linear, (0.0,) * 3), 9_825, 200).text)
    shaky = hours_and_range(forecast.forecast(timed(linear, (-0.2, 0.0, 0.2)), 9_825, 200).text)
    assert steady[0] == steady[1] == steady[2] == shaky[0]
    assert shaky[1] < shaky[0] < shaky[2]


def test_a_machine_that_is_busy_for_a_while_changes_nothing():
    steady = forecast.forecast(timed(linear, (0.0,) * 3), 9_825, 200).text
    busy = forecast.forecast(timed(linear, (0.0,) * 3, speeds=(1.0, 0.5, 0.8)), 9_825, 200).text
    assert hours_and_range(busy) == hours_and_range(steady)


def test_one_timed_run_gives_no_range():
    assert "unknown: use --runs 4" in forecast.forecast(timed(linear), 9_825, 200).text


@pytest.mark.parametrize(("passes", "level"), [(1, "ok"), (5, "warn"), (12, "FAIL")])
def test_the_level_follows_the_hours(passes, level):
    counts = timed(lambda retain, forget: 0.01 * passes * retain, (0.0,) * 3)
    assert forecast.forecast(counts, 9_825, 200).level == level
