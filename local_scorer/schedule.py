"""In which order a run does its jobs: entries in turns, and trainings among them, which feel the same load."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import count, islice, zip_longest
from operator import itemgetter

from local_scorer.execution import pool
from local_scorer.execution.job import Job
from local_scorer.execution.pool import Engine
from local_scorer.execution.submission import SubmissionError
from local_scorer.metric.clock import STOPPED_AT, STUDIED_TO
from local_scorer.runs.record import Entry, Run, RunRecord
from local_scorer.runs.store import RunFolder

CALIBRATIONS = 4  # models trained for the clock at least, where a pack or an earlier command gave the others
RUNS_A_TRAINING = 64  # a board that takes longer sees more of how the load changes, and so must its trainings
FIRST = 2  # of the trainings, done before the runs: the time at which a run is stopped follows from them


def with_trainings(
    record: RunRecord, timed: Sequence[Job], unlearned: Sequence[Job], folder: RunFolder, again: bool = False
) -> tuple[RunRecord, list[Job]]:
    """Return the record with the trainings that are the clock of each entry, and those that are to be done.

    An entry that is new to the board in the folder is timed beside trainings among its runs: those of `timed` that
    are missing and, if these are few, further ones. Another one keeps what it was timed beside.

    Args:
        timed: the trainings that the run has in any case.
        again: the entries of this command are measured anew.
    """
    earlier = _earlier_trainings(folder)
    known = {
        runs
        for runs, keys in earlier.items()
        if not again and all(folder.result_path(key).is_file() for key in keys)
    }
    missing = {job.key for job in unlearned if not job.is_done(folder)}
    new = [entry for entry in record.entries if missing & set(entry.keys) and entry.keys not in known]
    trainings = [job for job in timed if not job.is_done(folder)]
    enough = max(CALIBRATIONS, round(len(missing) / RUNS_A_TRAINING))
    if new and len(trainings) < enough:
        start = sum(job.role == timed[0].role for job in timed)
        further = (replace(timed[0], index=index) for index in count(start))
        todo = (job for job in further if not job.is_done(folder))
        trainings += islice(todo, enough - len(trainings))
    keys = tuple(job.key for job in trainings)
    beside = earlier | {entry.keys: () if trainings == list(timed) else keys for entry in new}
    entries = [replace(entry, trainings=beside.get(entry.keys, entry.trainings)) for entry in record.entries]
    return replace(record, entries=tuple(entries)), trainings


def do_all(
    originals: Sequence[Job],
    trainings: Sequence[Job],
    timed: Sequence[Job],
    unlearned: Sequence[Job],
    submitted: Sequence[Job],
    folder: RunFolder,
    engine: Engine,
    show_progress: bool,
    over_limit: bool,
) -> None:
    """Look at submissions first, since a bad one ends the run; then train and unlearn.

    Args:
        trainings: those that are to be done.
        timed: all that the run has, for the time at which a run is stopped where none is to be done.
    """
    jobs = list(dict.fromkeys([*submitted, *originals, *timed, *trainings, *unlearned]))
    progress = pool.Progress(len(jobs), sum(job.is_done(folder) for job in jobs), engine.slots, show_progress)
    first = [*originals, *trainings[:FIRST]]
    rest = spread([job for job in unlearned if not job.is_done(folder)], trainings[FIRST:])
    try:
        for job, failure in pool.run(submitted, folder, engine, progress, later=[*first, *rest]).items():
            raise SubmissionError(f"{job.submission}, checkpoint {job.index}: {failure.reason}")
        pool.run(first, folder, engine, progress, later=rest)
        if rest:
            share = STUDIED_TO if over_limit else STOPPED_AT
            seconds = share * retraining_seconds(trainings[:FIRST] or timed, folder)
            pool.run(rest, folder, engine, progress, limit=seconds)
    finally:
        progress.close()


def spread(runs: Sequence[Job], trainings: Sequence[Job]) -> list[Job]:
    """Return the runs of all entries in rounds, one of each at a time, with the trainings evenly among them."""
    of_entry: dict[str | None, list[Job]] = defaultdict(list)
    for run in runs:
        of_entry[run.entry].append(run)
    rounds = [run for turn in zip_longest(*of_entry.values()) for run in turn if run is not None]
    places = [((number + 0.5) / len(jobs), job) for jobs in (rounds, trainings) for number, job in enumerate(jobs)]
    return [job for _, job in sorted(places, key=itemgetter(0))]


def retraining_seconds(trained: Sequence[Job], folder: RunFolder) -> float:
    """Return the average wall-clock seconds of training, on the slowest kind of machine that did some."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for job in trained:
        result = folder.load_result(job.key)
        seconds[result.header.machine].append(result.wall_seconds)
    return max(sum(values) / len(values) for values in seconds.values())


def _earlier_trainings(folder: RunFolder) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Return what the entries of the board in a folder were timed beside, by the keys of their runs."""
    entries: tuple[Entry, ...] = ()
    with contextlib.suppress(ValueError):  # there is none, or it cannot be read
        entries = Run.open(folder).record.entries
    return {entry.keys: entry.trainings for entry in entries}
