"""The order in which a run does its jobs."""

from local_scorer.execution.job import Job
from local_scorer.models.recipes import RECIPES
from local_scorer.run import spread


def jobs(count, role, entry=None):
    return [Job(role, index, "data", "f", RECIPES["quick"], 16, 0, "cpu", entry=entry) for index in range(count)]


def test_entries_take_turns_and_trainings_are_spread_evenly_among_their_runs():
    runs = [*jobs(4, "unlearned", "one"), *jobs(2, "unlearned", "other")]
    order = spread(runs, jobs(3, "ceiling"))
    assert [(job.entry or job.role, job.index) for job in order] == [
        ("one", 0), ("ceiling", 0), ("other", 0), ("one", 1), ("ceiling", 1), ("other", 1), ("one", 2),
        ("ceiling", 2), ("one", 3),
    ]  # fmt: skip


def test_runs_and_trainings_may_come_alone():
    runs, trainings = jobs(2, "unlearned", "one"), jobs(2, "ceiling")
    assert (spread(runs, []), spread([], trainings), spread([], [])) == (runs, trainings, [])
