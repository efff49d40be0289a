"""Shares of the time of retraining, their intervals, and the verdicts on them."""

import doctest
import math

import numpy as np
import pytest

from local_scorer.metric import clock
from local_scorer.metric.clock import Timed, TimeRatio, Times

NO_KINDS = np.array([])


def ratio_of(seconds, trainings, machines=NO_KINDS, trained_on=NO_KINDS, at=NO_KINDS, trained_at=NO_KINDS):
    runs = Timed(np.array(seconds), np.array(machines), np.array(at, float))
    return clock.time_ratio(runs, Timed(np.array(trainings), np.array(trained_on), np.array(trained_at, float)))


def times(cpu, wall, decides="cpu"):
    return Times(decides, TimeRatio(*cpu), TimeRatio(*wall))


def test_doctests():
    result = doctest.testmod(clock)
    assert result.attempted >= 1
    assert result.failed == 0


def test_the_median_run_over_the_median_training():
    """One run and one training that something held up change nothing."""
    assert ratio_of([2.0, 3.0, 50.0], [20.0, 20.0, 70.0]).ratio == pytest.approx(0.15)


def test_equal_seconds_leave_no_doubt():
    found = ratio_of([3.0] * 4, [20.0] * 4)
    assert (found.ratio, found.low, found.high) == pytest.approx((0.15, 0.15, 0.15))


def test_the_interval_holds_the_ratio_and_is_the_same_each_time():
    random = np.random.default_rng(1)
    seconds, trainings = 4 * random.lognormal(0, 0.2, 16), 20 * random.lognormal(0, 0.1, 6)
    found = ratio_of(seconds, trainings)
    assert found.low < found.ratio < found.high
    assert found == ratio_of(seconds, trainings)
    wider = ratio_of(seconds, 20 * (trainings / 20) ** 4)
    assert wider.high - wider.low > found.high - found.low


def test_the_interval_holds_the_truth_in_most_of_the_evaluations():
    """16 runs beside 8 trainings, lognormal: the true ratio is that of the medians."""
    random = np.random.default_rng(2)
    drawn = [ratio_of(4 * random.lognormal(0, 0.1, 16), 20 * random.lognormal(0, 0.1, 8)) for _ in range(100)]
    assert 88 <= sum(found.low <= 0.2 <= found.high for found in drawn) <= 99


def test_a_run_is_held_against_the_trainings_before_and_after_it():
    """The machine is twice as slow after the first quarter; of the trainings, half were before."""
    at, trained_at = np.arange(0.0, 400.0, 10.0), [-2.0, -1.0, 101.0, 300.0]
    slow = np.where(at > 100, 2.0, 1.0)
    found = ratio_of(3.8 * slow, [20.0, 20.0, 40.0, 40.0], at=at, trained_at=trained_at)
    assert found.ratio == pytest.approx(0.19)
    assert ratio_of(3.8 * slow, [20.0, 20.0, 40.0, 40.0]).ratio > 0.25


def test_runs_and_trainings_come_in_any_order_and_from_several_machines():
    kinds, trained_on = ["a", "b", "a", "b"], ["b", "a", "b", "a"]
    found = ratio_of([2.0, 8.0, 4.0, 4.0], [40.0, 20.0, 20.0, 10.0], kinds, trained_on, [1, 0, 2, 9], [0, 2, 9, 1])
    assert found.ratio == pytest.approx(0.2)  # each run has a training of its kind at its very time


def test_times_that_are_known_in_part_do_not_count():
    """As where half of an entry's runs were made by an earlier version."""
    some, all_of_them = [math.nan, 5.0], [0.0, 10.0]
    assert ratio_of([3.0, 3.0], [10.0, 20.0], at=some, trained_at=all_of_them).ratio == pytest.approx(0.2)
    assert ratio_of([3.0, 3.0], [10.0, 20.0], at=all_of_them, trained_at=some).ratio == pytest.approx(0.2)
    assert ratio_of([3.0, 3.0], [10.0, 20.0], at=all_of_them, trained_at=all_of_them).ratio == pytest.approx(0.225)


def test_each_kind_of_machine_is_compared_with_itself():
    """Four times as slow a machine takes four times as long for both."""
    found = ratio_of([3.0, 12.0, 12.0], [20.0, 80.0], ["quick", "slow", "slow"], ["quick", "slow"])
    assert (found.ratio, found.low, found.high) == pytest.approx((0.15, 0.15, 0.15))


def test_times_of_a_machine_that_trained_nothing_do_not_enter():
    assert ratio_of([3.0, 500.0], [20.0], ["quick", "slow"], ["quick"]).ratio == pytest.approx(0.15)
    assert math.isnan(ratio_of([500.0], [20.0], ["slow"], ["quick"]).ratio)


def test_unknown_seconds_have_no_ratio():
    assert math.isnan(ratio_of([math.nan, math.nan], [20.0]).ratio)


def test_a_training_takes_time():
    with pytest.raises(ValueError, match=r"^The seconds of a training must be positive, found 0\.0\.$"):
        ratio_of([1.0], [0.0, 20.0])


def test_the_device_names_the_clock():
    assert (clock.deciding_clock("cpu"), clock.deciding_clock("cuda")) == ("cpu", "wall")


@pytest.mark.parametrize(
    ("found", "is_over", "waits", "is_near"),
    [
        (times((0.19, 0.18, 0.199), (0.278, 0.25, 0.3)), False, False, False),  # a busy machine
        (times((0.19, 0.18, 0.199), (0.45, 0.35, 0.6)), False, False, False),  # in bursts: the wall is in doubt
        (times((0.05, 0.05, 0.05), (0.6, 0.5, 0.7)), False, True, False),  # sleeps
        (times((0.25, 0.24, 0.26), (0.12, 0.11, 0.13)), True, False, False),  # threads or children
        (times((0.19, 0.18, 0.21), (0.19, 0.18, 0.2)), False, False, True),
        (times((0.21, 0.19, 0.22), (0.21, 0.19, 0.22)), True, False, True),
        (times((0.6, 0.6, 0.6), (0.1, 0.1, 0.1), "wall"), False, False, False),  # on a GPU
        (times((0.1, 0.1, 0.1), (0.6, 0.6, 0.6), "wall"), True, False, False),
        (times((math.nan,) * 3, (math.nan,) * 3), False, False, False),
    ],
)
def test_verdict(found, is_over, waits, is_near):
    assert (found.is_over, found.waits, found.is_near) == (is_over, waits, is_near)
    assert bool(clock.verdict(found)) is (is_over or waits or is_near)
