import dataclasses
import sys
import time

import pytest

from local_scorer.execution import pool
from local_scorer.execution.job import Job
from local_scorer.models.recipes import RECIPES
from local_scorer.runs.store import Failure, RunFolder
from tests.helpers.runs import job_result

BASE = Job("retrained", 0, "data", "f", RECIPES["quick"], width=16, seed=0, device="cpu")
RETRAINED = [dataclasses.replace(BASE, index=index) for index in range(4)]
MINE = [dataclasses.replace(job, role="unlearned", entry="mine", entry_hash="a") for job in RETRAINED]
OTHER = [dataclasses.replace(job, role="unlearned", entry="other", entry_hash="b") for job in RETRAINED]
BROKEN = Failure("exception", "KeyError: 'age'.", "the last lines")


def finish(job, folder):
    """Leave a finished file, as a job does."""
    return folder.save_result(job.key, job_result())


class FakeEngine:
    """Ends one job, the oldest, at each wait; the jobs in `failing` fail."""

    def __init__(self, folder, slots=2, failing=()):
        self.slots = slots
        self.running = []
        self.submitted = []
        self.closed = False
        self._folder = folder
        self._failing = dict(failing)

    def submit(self, job, limit=None):
        assert len(self.running) < self.slots
        assert self._folder.try_lock(job.key) is None  # nobody else can start it
        self.running.append(job)
        self.submitted.append((job, limit))

    def wait(self, timeout):
        if not self.running:
            return []
        job = self.running.pop(0)
        failure = self._failing.get(job)
        if failure is None:
            finish(job, self._folder)
        return [(job, failure)]

    def close(self):
        self.closed = True
        self.running.clear()

    @property
    def started(self):
        return [job for job, _ in self.submitted]


class FakeProgress:
    """Counts what it is told."""

    def __init__(self):
        self.finished_jobs = []
        self.dropped_jobs = 0
        self.most_running = 0
        self.missing = []

    def finished(self, job, seconds):
        self.finished_jobs.append((job, seconds is not None))

    def dropped(self, count):
        self.dropped_jobs += count

    def show(self, running, missing):
        self.most_running = max(self.most_running, len(running))
        self.missing.append(len(missing))


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run")


def assert_free(folder, jobs):
    """Check that no lock is left behind."""
    for job in jobs:
        lock = folder.try_lock(job.key)
        assert lock is not None, job
        lock.close()


def test_every_job_is_run_once_in_order_and_in_the_free_slots(folder):
    engine, progress = FakeEngine(folder, slots=2), FakeProgress()
    assert pool.run(RETRAINED, folder, engine, progress) == {}
    assert engine.started == RETRAINED
    assert progress.most_running == 2
    assert progress.finished_jobs == [(job, True) for job in RETRAINED]
    assert not engine.closed  # it belongs to who opened it
    assert_free(folder, RETRAINED)


def test_nothing_to_do(folder):
    engine = FakeEngine(folder)
    assert pool.run([], folder, engine, FakeProgress()) == {}
    assert engine.submitted == []


def test_finished_jobs_are_skipped(folder):
    finish(RETRAINED[0], folder)
    finish(RETRAINED[2], folder)
    engine, progress = FakeEngine(folder), FakeProgress()
    pool.run(RETRAINED, folder, engine, progress)
    assert engine.started == [RETRAINED[1], RETRAINED[3]]
    assert len(progress.finished_jobs) == 2


def test_damaged_results_are_made_again(folder):
    finish(RETRAINED[0], folder).write_bytes(b"half")
    engine = FakeEngine(folder)
    pool.run(RETRAINED[:1], folder, engine, FakeProgress())
    assert engine.started == RETRAINED[:1]
    assert RETRAINED[0].is_done(folder)


def test_original_without_its_weights_is_made_again(folder):
    original = RETRAINED[0].original_job
    finish(original, folder)
    engine = FakeEngine(folder)
    pool.run([original], folder, engine, FakeProgress())
    assert engine.started == [original]


def test_limit_reaches_the_engine(folder):
    engine = FakeEngine(folder)
    pool.run(MINE[:1], folder, engine, FakeProgress(), limit=12.5)
    assert engine.submitted == [(MINE[0], 12.5)]


def test_jobs_of_a_later_stage_are_shown_and_not_run(folder):
    engine, progress = FakeEngine(folder), FakeProgress()
    pool.run(RETRAINED[:2], folder, engine, progress, later=MINE)
    assert engine.started == RETRAINED[:2]
    assert set(progress.missing) == {4}


def test_after_a_failure_the_rest_of_the_entry_is_dropped_and_others_go_on(folder):
    """One slot: the first run of `mine` fails before any other has started."""
    engine, progress = FakeEngine(folder, slots=1, failing={MINE[0]: BROKEN}), FakeProgress()
    failures = pool.run([*MINE, *OTHER], folder, engine, progress)
    assert failures == {MINE[0]: BROKEN}
    assert engine.started == [MINE[0], *OTHER]
    assert progress.dropped_jobs == 3
    assert folder.load_failure(MINE[0].key) == BROKEN
    assert not MINE[1].is_done(folder)
    assert_free(folder, [*MINE, *OTHER])


def test_runs_under_way_when_an_entry_fails_come_to_their_end(folder):
    engine = FakeEngine(folder, slots=2, failing={MINE[0]: BROKEN})
    progress = FakeProgress()
    pool.run(MINE, folder, engine, progress)
    assert engine.started == MINE[:2]
    assert MINE[1].is_done(folder)
    assert progress.dropped_jobs == 2


def test_failed_jobs_are_tried_again(folder):
    folder.save_failure(MINE[0].key, BROKEN)
    engine = FakeEngine(folder)
    assert pool.run(MINE[:1], folder, engine, FakeProgress()) == {}
    assert engine.started == MINE[:1]
    assert folder.load_failure(MINE[0].key) is None


def test_failed_training_stops_everything(folder):
    engine = FakeEngine(folder, slots=2, failing={RETRAINED[1]: BROKEN})
    with pytest.raises(RuntimeError) as error:
        pool.run(RETRAINED, folder, engine, FakeProgress())
    log = folder.log_path(RETRAINED[1].key)
    assert str(error.value) == f"Training model 1 (retrained) failed: KeyError: 'age'. The log is {log}."
    assert engine.started == RETRAINED[:3]
    assert RETRAINED[0].is_done(folder)
    assert_free(folder, RETRAINED)


def test_interrupted_run_frees_its_locks(folder):
    class Interrupted(FakeEngine):
        def wait(self, timeout):
            raise KeyboardInterrupt

    engine = Interrupted(folder)
    with pytest.raises(KeyboardInterrupt):
        pool.run(RETRAINED, folder, engine, FakeProgress())
    assert not engine.closed  # it belongs to who opened it
    assert_free(folder, RETRAINED)


def test_job_of_another_run_is_waited_for(folder, monkeypatch):
    """Another run holds job 0 and finishes it while this one has nothing else left to do."""
    lock = folder.try_lock(RETRAINED[0].key)

    def other_run_ends(seconds):
        assert seconds == pool.LOOK_AGAIN
        finish(RETRAINED[0], folder)
        lock.close()

    monkeypatch.setattr(time, "sleep", other_run_ends)
    engine, progress = FakeEngine(folder), FakeProgress()
    pool.run(RETRAINED, folder, engine, progress)
    assert engine.started == RETRAINED[1:]
    assert progress.finished_jobs == [*((job, True) for job in RETRAINED[1:]), (RETRAINED[0], False)]
    assert_free(folder, RETRAINED)


def test_job_that_another_run_gave_up_is_taken_over(folder, monkeypatch):
    lock = folder.try_lock(RETRAINED[0].key)
    monkeypatch.setattr(time, "sleep", lambda seconds: lock.close())
    engine = FakeEngine(folder)
    pool.run(RETRAINED[:1], folder, engine, FakeProgress())
    assert engine.started == RETRAINED[:1]


def test_leftovers_of_dead_runs_are_swept(folder):
    left = folder.new_work_folder("dead")
    pool.run([], folder, FakeEngine(folder), FakeProgress())
    assert not left.exists()


def test_time_left_by_hand():
    progress = pool.Progress(total=10, done=0, slots=2, show=False)
    assert progress.seconds_left(RETRAINED) is None
    progress.finished(RETRAINED[0], 10.0)
    progress.finished(RETRAINED[1], 20.0)
    progress.finished(RETRAINED[2], None)  # done elsewhere: says nothing about the time
    assert progress.seconds_left(RETRAINED) == 30  # 4 x 15 s in 2 slots
    assert progress.seconds_left(MINE) == 9  # not seen yet: 0.3 of a training each
    progress.finished(MINE[0], 2.0)
    assert progress.seconds_left([*MINE, OTHER[0], RETRAINED[0]]) == (4 * 2 + 4.5 + 15) / 2
    assert progress.seconds_left([dataclasses.replace(BASE, role="ceiling")]) == 7.5
    assert progress.seconds_left([]) == 0
    progress.close()


def test_progress_shows_what_runs_and_the_time_left(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)  # for a log file it shows a line every 30 s
    monkeypatch.setenv("COLUMNS", "120")
    progress = pool.Progress(total=5, done=1, slots=1)
    progress.finished(RETRAINED[0], 100.0)
    progress.dropped(1)
    time.sleep(0.3)  # longer than between two looks
    progress.show([RETRAINED[1], MINE[0]], [RETRAINED[2]])
    assert "retrained 1, mine 1 | about 4 min left" in capsys.readouterr().err  # (100 + 30 + 100) s
    progress.close()
    assert "2/4 jobs" in capsys.readouterr().err


def test_hidden_progress_prints_nothing(capsys):
    progress = pool.Progress(total=5, done=0, slots=1, show=False)
    progress.finished(RETRAINED[0], 1.0)
    progress.dropped(1)
    progress.show([RETRAINED[1]], [])
    progress.close()
    assert capsys.readouterr() == ("", "")
