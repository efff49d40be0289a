"""Which trainings the entries of a run are timed beside, and the order in which it does its jobs."""

from dataclasses import replace

from local_scorer.execution.job import Job
from local_scorer.models.recipes import RECIPES
from local_scorer.runs.record import Entry, Run
from local_scorer.runs.store import RunFolder
from local_scorer.schedule import RUNS_A_TRAINING, spread, with_trainings
from tests.helpers.runs import job_result, run_record


def jobs(count, role, entry=None):
    job = Job(role, 0, "data", "f", RECIPES["quick"], 16, 0, "cpu", entry=entry, entry_hash=entry)
    return [replace(job, index=index) for index in range(count)]


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


TIMED = [*jobs(3, "retrained"), *jobs(3, "ceiling")]


def keys_of(done):
    return tuple(job.key for job in done)


def entry_of(runs):
    return Entry(runs[0].entry, "h", keys_of(runs))


def planned(folder, entries, runs):
    """Plan as a command does that names these entries, and save what it would."""
    record = run_record(keys_of(TIMED[:3]), keys_of(TIMED[3:]), *entries)
    record, trainings = with_trainings(record, TIMED, runs, folder)
    Run(folder, record).save()
    return {entry.name: entry.trainings for entry in record.entries}, trainings


def finish(folder, done, seconds=1.0):
    for job in done:
        folder.save_result(job.key, job_result(seconds=seconds))


def test_an_entry_that_comes_later_is_timed_beside_trainings_of_its_own(tmp_path):
    folder, first, later = RunFolder(tmp_path), jobs(3, "unlearned", "first"), jobs(3, "unlearned", "later")
    beside, trainings = planned(folder, [entry_of(first)], first)
    assert (beside, trainings) == ({"first": ()}, TIMED)
    finish(folder, [*TIMED, *first], seconds=10.0)
    entries = [entry_of(first), entry_of(later)]
    beside, trainings = planned(folder, entries, later)
    assert trainings == [replace(TIMED[0], index=index) for index in (3, 4, 5, 6)]
    assert beside == {"first": (), "later": keys_of(trainings)}
    finish(folder, [*trainings, *later], seconds=15.0)
    run = Run.open(folder)
    assert [set(models.wall_seconds) for models in run.timed_beside("later")] == [{15.0}]
    assert run.timed_beside("first") == run.timed
    assert planned(folder, [entry_of(first), entry_of(later)], [*first, *later]) == (beside, [])


def test_many_runs_have_more_trainings_among_them(tmp_path):
    folder, runs = RunFolder(tmp_path), jobs(8 * RUNS_A_TRAINING, "unlearned", "one")
    beside, trainings = planned(folder, [entry_of(runs)], runs)
    assert trainings == [*TIMED, *(replace(TIMED[0], index=index) for index in (3, 4))]
    assert beside == {"one": keys_of(trainings)}


def test_a_run_that_was_interrupted_goes_on_with_its_trainings(tmp_path):
    folder, runs = RunFolder(tmp_path), jobs(3, "unlearned", "one")
    planned(folder, [entry_of(runs)], runs)
    finish(folder, [*TIMED[:5], runs[0]])
    assert planned(folder, [entry_of(runs)], runs) == ({"one": ()}, TIMED[5:])


def test_trainings_of_a_later_entry_are_made_up_for_after_an_interruption(tmp_path):
    folder, runs = RunFolder(tmp_path), jobs(3, "unlearned", "later")
    finish(folder, TIMED)
    _, trainings = planned(folder, [entry_of(runs)], runs)
    assert planned(folder, [entry_of(runs)], runs) == ({"later": keys_of(trainings)}, trainings)
