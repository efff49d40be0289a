"""One run from data and entries to a leaderboard: plan the jobs, do them, collect their arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import data_prep.dataset
from data_prep.options import OptionError
from local_scorer import schedule
from local_scorer.execution import contract, sandbox, submission
from local_scorer.execution.contract import EntryError
from local_scorer.execution.job import Job
from local_scorer.execution.pool import Engine
from local_scorer.execution.submission import SubmissionError
from local_scorer.models.recipes import RECIPES
from local_scorer.report import board
from local_scorer.report.board import Leaderboard
from local_scorer.runs import store
from local_scorer.runs.pack import Pack
from local_scorer.runs.record import (
    CEILING,
    FLOOR,
    Counts,
    Data,
    Entry,
    Provenance,
    Run,
    RunRecord,
    RunSettings,
)
from local_scorer.runs.store import RunFolder
from local_scorer.settings import Settings


def run(
    settings: Settings,
    entries: Sequence[Path],
    folder: RunFolder,
    engine: Engine,
    command: str = "",
    show_progress: bool = True,
    add: bool = False,
    again: bool = False,
) -> Leaderboard:
    """Run everything that is missing and return the leaderboard.

    Args:
        entries: entry files, and zips of `n_models` checkpoints made elsewhere.
        engine: where the jobs run; it stays open.
        add: keep the other entries of the board that the folder holds.
        again: measure the entries anew, also where their results are stored.

    Raises:
        ValueError: the data set cannot be used, two entries have the same name, or a board that is added to has
            other settings.
        RuntimeError: training a model failed.
    """
    isolation = {"sandbox": settings.sandbox, **sandbox.probe(settings.sandbox, settings.device).found()}
    data = _open_data(settings)
    check_names(entries)
    base = _base_job(settings, data)
    models = _train_here(base, settings) if settings.reference is None else _from_pack(base, settings, folder)
    n_runs = 1 if settings.setup == "full" else settings.n_models
    planned = [_plan_entry(base, path, folder, n_runs, models.weights) for path in entries]
    unlearned = [job for _, jobs in planned for job in jobs if job.role == "unlearned"]
    submitted = [job for _, jobs in planned for job in jobs if job.role == "submitted"]
    provenance = Provenance(command=command, environment=store.environment(), isolation=isolation)
    record = _record(settings, data, models, [entry for entry, _ in planned], engine.slots, provenance)
    if add:
        record = replace(record, entries=(*_other_entries(folder, record), *record.entries))
    if again:
        for job in (*unlearned, *submitted):
            folder.discard(job.key)
    record, trainings = schedule.with_trainings(record, models.timed, unlearned, folder, again)
    stored = Run(folder, record)
    stored.save()
    schedule.do_all(
        models.originals, trainings, models.timed, unlearned, submitted, folder, engine, show_progress,
        settings.over_limit,
    )  # fmt: skip
    return board.collect(stored)


def _open_data(settings: Settings) -> data_prep.dataset.PreparedDataset:
    """Open the data set of a run; it has pictures in every split, and its files are those of its manifest."""
    data = data_prep.dataset.load(settings.data)
    _check_unchanged(data)
    for split in data_prep.dataset.SPLITS:
        if not len(data.rows(split)):
            raise ValueError(f"{settings.data} has no pictures in its {split} split: nothing can be scored.")
    return data


def check_names(entries: Sequence[Path]) -> None:
    """Refuse entries that would have one row.

    Raises:
        OptionError: two have the same name, or one has that of a reference.
    """
    names = [contract.entry_name(path) for path in entries]
    rows = [*names, FLOOR, CEILING]
    taken = sorted({name for name in names if rows.count(name) > 1})
    if taken:
        raise OptionError(
            f"Every entry needs a name of its own: {', '.join(taken)} is taken. Name it once, or rename the file."
        )


def _base_job(settings: Settings, data: data_prep.dataset.PreparedDataset) -> Job:
    """Return the job that trains the first original, which all others vary."""
    return Job(
        role="original",
        index=0,
        data=str(Path(settings.data).absolute()),
        fingerprint=data.fingerprint,
        recipe=RECIPES[settings.recipe],
        width=settings.width,
        seed=settings.seed,
        device=settings.device,
        outputs=_spare_outputs(settings.outputs, data),
    )


def _record(
    settings: Settings,
    data: data_prep.dataset.PreparedDataset,
    models: _Models,
    entries: Sequence[Entry],
    workers: int,
    provenance: Provenance,
) -> RunRecord:
    """Return what ``run.json`` says of the run."""
    return RunRecord(
        rules=settings.rules,
        n_models=settings.n_models,
        data=_describe(data),
        settings=RunSettings(
            recipe=RECIPES[settings.recipe],
            width=settings.width,
            size=data.size,
            seed=settings.seed,
            device=settings.device,
            workers=workers,
            outputs=settings.outputs or data.n_classes,
        ),
        originals=_keys(models.originals),
        retrained=_keys(models.retrained),
        ceiling=_keys(models.ceiling),
        setup=settings.setup,
        n_originals=settings.n_originals,
        reference=models.reference,
        calibration=_keys(models.calibration),
        entries=tuple(entries),
        provenance=provenance,
    )


@dataclass(frozen=True)
class _Models:
    """The models that entries start from and are compared with.

    Attributes:
        originals, retrained, ceiling: jobs that train them here; empty where they come from a pack. Originals do
            not where the set-up is full or the pack holds outputs only.
        weights: for each original the name that a pack's weights are stored under, or None where it is trained.
        reference: SHA-256 of the pack.
        calibration: with a pack, the jobs that are trained here for the clock.
    """

    originals: list[Job]
    retrained: list[Job]
    ceiling: list[Job]
    weights: list[str | None]
    reference: str | None = None
    calibration: list[Job] = field(default_factory=list)

    @property
    def timed(self) -> list[Job]:
        """The trainings that times are compared with."""
        return [*self.retrained, *self.ceiling, *self.calibration]


def _train_here(base: Job, settings: Settings) -> _Models:
    return _Models(
        originals=_copies(base, settings.n_originals),
        retrained=_copies(base, settings.n_models, role="retrained"),
        ceiling=_copies(base, settings.n_models, role="ceiling"),
        weights=[None] * settings.n_originals,
    )


def _from_pack(base: Job, settings: Settings, folder: RunFolder) -> _Models:
    """Check that a pack fits the run, and put its originals into the run folder.

    Raises:
        ValueError: it does not fit.
    """
    from local_scorer import reference  # imports torch, which a board from stored results does without

    opened = Pack(settings.reference)
    header = opened.header
    reference.base_of(opened, Path(base.data), settings.device)
    for name, ours, theirs in (
        ("--recipe", asdict(base.recipe), header.recipe),
        ("--width", settings.width, header.width),
        ("--seed", settings.seed, header.seed),
    ):
        if ours != theirs:
            raise ValueError(f"{opened.path} was made with another {name}; give the same, or score with --fresh.")
    # A pack has few originals for the full set-up, and one of outputs only has none to start from.
    train_originals = settings.setup == "full" or not opened.has_weights
    for name, asked, held in (
        ("--originals", 0 if train_originals else settings.n_originals, header.n_originals),
        ("--models", settings.n_models, header.n_models),
    ):
        if asked > held:
            raise ValueError(f"{opened.path} allows {name} up to {held}, found {asked}.")
    if not folder.pack_path.is_file() or Pack(folder.pack_path).sha256 != opened.sha256:
        store.write_atomically(folder.pack_path, opened.path.read_bytes())
    if train_originals:
        originals, weights = _copies(base, settings.n_originals), [None] * settings.n_originals
    else:
        originals, weights = [], list(reference.put_originals(opened, folder)[: settings.n_originals])
    return _Models(
        originals=originals,
        retrained=[],
        ceiling=[],
        weights=weights,
        reference=opened.sha256,
        calibration=_copies(base, schedule.CALIBRATIONS, role="retrained"),
    )


def _other_entries(folder: RunFolder, record: RunRecord) -> tuple[Entry, ...]:
    """Return the entries of the board in `folder` that `record` does not have.

    Raises:
        ValueError: that board has other retrained models or other rules.
    """
    if not (folder.root / "run.json").is_file():
        return ()
    there = Run.open(folder).record
    same = ("data", "rules", "setup", "n_models", "n_originals", "originals", "retrained", "reference")
    if any(getattr(there, name) != getattr(record, name) for name in same):
        pairs = zip(_options(there).items(), _options(record).values(), strict=True)
        differ = [f"{name} {theirs} and not {ours}" for (name, theirs), ours in pairs if theirs != ours]
        raise ValueError(
            f"The board in {folder.root} is of {', '.join(differ) or 'other data'}. To add to it, give the same; "
            "for a board of its own give another --out."
        )
    names = {entry.name for entry in record.entries}
    return tuple(entry for entry in there.entries if entry.name not in names)


def _options(record: RunRecord) -> dict[str, object]:
    """Return what was asked for: option -> value."""
    settings = record.settings
    return {
        "--data": record.data.name,
        "--rules": record.rules,
        "--setup": record.setup,
        "--models": record.n_models,
        "--originals": record.n_originals,
        "--recipe": settings.recipe.name,
        "--width": settings.width,
        "--size": settings.size,
        "--outputs": settings.outputs,
        "--seed": settings.seed,
        "--device": settings.device,
        "--reference": (record.reference or "none")[:8],
    }


def _spare_outputs(outputs: int | None, data: data_prep.dataset.PreparedDataset) -> int:
    """Return a job's `outputs`: 0 where they are one per class, so that these jobs have one key.

    Raises:
        OptionError: there are fewer outputs than classes.
    """
    if outputs is not None and outputs < data.n_classes:
        raise OptionError(f"--outputs must be at least {data.n_classes}, the number of classes; found {outputs}.")
    return 0 if outputs in (None, data.n_classes) else outputs


def _copies(base: Job, count: int, **changes: Any) -> list[Job]:
    return [replace(base, index=index, **changes) for index in range(count)]


def _plan_entry(
    base: Job, path: Path, folder: RunFolder, n_runs: int, weights: Sequence[str | None]
) -> tuple[Entry, list[Job]]:
    """Return what the record says of the entry, and its jobs: none if the file cannot be read.

    Args:
        n_runs: from each original.
        weights: for each original, see `_Models`.
    """
    name = contract.entry_name(path)
    if path.suffix == ".zip":
        if len(weights) > 1:
            raise SubmissionError(f"{path} comes from one original: score it with --fresh --originals 1.")
        _check_submission(base, path, n_runs)
        digest = data_prep.dataset.sha256_of(path)
        jobs = _copies(base, n_runs, role="submitted", entry=name, entry_hash=digest, submission=str(path))
        return Entry(name=name, hash=digest, keys=_keys(jobs)), jobs
    try:
        source = contract.read_source(path)
    except EntryError as error:
        return Entry(name=name, hash=None, keys=(), error=str(error)), []
    digest = contract.source_hash(source)
    folder.keep_entry(source, digest)
    run = replace(base, role="unlearned", entry=name, entry_hash=digest)
    jobs = [
        job
        for number, stored in enumerate(weights)
        for job in _copies(run, n_runs, original=number, weights=stored)
    ]
    return Entry(name=name, hash=digest, keys=_keys(jobs)), jobs


def _keys(jobs: Sequence[Job]) -> tuple[str, ...]:
    return tuple(job.key for job in jobs)


def _check_submission(base: Job, path: Path, n_models: int) -> None:
    """Refuse a zip that does not fit the run."""
    found = submission.open_submission(path).n_models
    if found != n_models:
        raise SubmissionError(f"{path} holds {found} checkpoints, expected {n_models}: see --models.")
    from local_scorer.execution import checkpoint  # imports torch

    width, n_outputs = checkpoint.shape_of(checkpoint.read_submitted(path, 0), submission.CHECKPOINT.format(0))
    if width != base.width:
        raise SubmissionError(f"{path} holds models of width {width}: score them with --width {width}.")
    n_classes = data_prep.dataset.load(base.data).n_classes
    if n_outputs != (base.outputs or n_classes):
        remedy = "give the data set that they were made from with --data."
        if n_outputs > n_classes:
            remedy = f"score them with --outputs {n_outputs}, or {remedy}"
        raise SubmissionError(
            f"{path} holds models with {n_outputs} outputs, and {base.data} has {n_classes} classes: {remedy}"
        )


def _describe(data: data_prep.dataset.PreparedDataset) -> Data:
    return Data(
        name=data.name,
        fingerprint=data.fingerprint,
        class_names=tuple(data.class_names),
        counts=Counts(**{split: len(data.rows(split)) for split in data_prep.dataset.SPLITS}),
        settings=data.manifest["settings"],
        seed=data.manifest["seed"],
    )


def _check_unchanged(data: data_prep.dataset.PreparedDataset) -> None:
    """Refuse files that are not what the manifest says: results are stored under the manifest's hashes.

    Raises:
        ValueError: a file was changed.
    """
    for name in ("images.npy", "examples.csv"):
        if data_prep.dataset.sha256_of(data.folder / name) != data.manifest["sha256"].get(name):
            raise ValueError(
                f"{data.folder / name} is not what its manifest.json says: it was changed. Prepare the data set "
                f"again; 'python -m data_prep verify {data.folder}' shows more."
            )
