"""Entries that cheat the clock, reach for what is not theirs, or leave something behind, each run once."""

import pytest

from local_scorer.runs.store import Failure, RunFolder
from studies import faults


@pytest.fixture(scope="module")
def ran(tiny_data, tmp_path_factory):
    """Return a function that gives an entry's result or failure, and the run folder."""
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    base, jobs = faults.plan(folder, tiny_data)
    assert faults.outcomes(folder, [base]) == {base: None}
    found = faults.outcomes(folder, list(jobs.values()))

    def outcome(name):
        if name not in jobs:
            pytest.skip("this system has no Landlock")
        return found[jobs[name]] or folder.load_result(jobs[name].key)

    return outcome, folder, base


@pytest.mark.parametrize("name", faults.WORKERS)
def test_work_is_on_the_clock_wherever_it_is_done(ran, name):
    result = ran[0](name)
    assert not isinstance(result, Failure), result
    assert result.cpu_seconds >= 0.95 * faults.WORK  # the system may count in ticks of 0.01
    assert result.wall_seconds >= faults.WORK


@pytest.mark.parametrize("name", faults.LIARS)
def test_a_clock_that_lies_fails_the_run(ran, name):
    failure = ran[0](name)
    assert isinstance(failure, Failure)
    assert failure.kind in ("clock", "exception")


@pytest.mark.parametrize("name", faults.HARMLESS)
def test_what_does_no_harm_is_scored(ran, name):
    result = ran[0](name)
    assert not isinstance(result, Failure), result
    assert result.wall_seconds < 60


@pytest.mark.parametrize("name", faults.FAILING)
def test_what_fails_is_a_short_failure(ran, name):
    failure = ran[0](name)
    assert isinstance(failure, Failure)
    assert len(failure.reason) <= 2000


def test_nothing_was_lost_and_nothing_is_left(ran):
    _, folder, base = ran
    assert base.is_done(folder)
    assert folder.weights_path(base.key).is_file()
    assert faults.left_behind(folder) == []
