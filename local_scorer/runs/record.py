"""A stored run: which jobs it is made of, and what their models left behind, read once.

    run = Run.open("runs/default")
    run.names                  # the entries
    run.models("finetune")     # arrays of its N models; "retrained" and "no unlearning" are names too
    run.retrained              # what all of them are compared with

``run.json`` in the run folder is the record; the arrays are in the files of the finished jobs.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from local_scorer import metric
from local_scorer.metric.score import ModelSet
from local_scorer.models.recipes import Recipe
from local_scorer.runs import schema
from local_scorer.runs.pack import Pack
from local_scorer.runs.store import Environment, Failure, Header, JobResult, RunFolder, write_atomically

SCHEMA = 2
FLOOR, CEILING = "no unlearning", "retrained"  # names of the two rows that the entries are read by
SETUPS = ("competition", "full")
KEY = re.compile(r"[\w-]{1,64}")  # becomes part of a file name


@dataclass(frozen=True)
class Counts:
    """Pictures in each split."""

    retain: int
    forget: int
    validation: int
    test: int


@dataclass(frozen=True)
class Data:
    """The prepared dataset of a run; `settings` and `seed` are those in its manifest."""

    name: str
    fingerprint: str
    class_names: tuple[str, ...]
    counts: Counts
    settings: dict[str, Any]
    seed: int | None


@dataclass(frozen=True)
class RunSettings:
    """How models were trained and jobs were run.

    Attributes:
        size: the pictures' height and width in pixels.
        outputs: of the nets; 0 in older records, where they are one per class.
    """

    recipe: Recipe
    width: int
    size: int
    seed: int
    device: str
    workers: int
    outputs: int = 0


@dataclass(frozen=True)
class Entry:
    """One entry: the hash of its code, and the keys of its runs; `error` says why it has none.

    The runs are N from each original, those from the first original first. `trainings` has the keys of the models
    that were trained among them, for the clock; empty where these are those of the whole run.
    """

    name: str
    hash: str | None
    keys: tuple[str, ...]
    error: str = ""
    trainings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Provenance:
    """The command that made a run, where, and what kept its entries from other runs and files."""

    command: str
    environment: Environment
    isolation: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RunRecord:
    """Which jobs make up a run: the content of ``run.json``.

    Attributes:
        rules: "official" or "notebook".
        setup: "competition", N runs from each original; or "full", one run from each of N originals.
        n_models: N; without a pack also the number of retrained models.
        originals: keys of the jobs that trained the originals; empty where a pack gave them.
        retrained, ceiling: keys of the two sets of N retrained models; the first is what all are compared with.
            Empty where a pack gave them.
        n_originals: K, models that each entry unlearns from.
        reference: SHA-256 of the pack, whose copy is ``reference.npz`` in the run folder; None without one.
        calibration: with a pack, keys of the models that were trained here for the clock.
    """

    rules: str
    n_models: int
    data: Data
    settings: RunSettings
    originals: tuple[str, ...]
    retrained: tuple[str, ...]
    ceiling: tuple[str, ...]
    entries: tuple[Entry, ...]
    provenance: Provenance
    setup: str = "competition"
    n_originals: int = 1
    reference: str | None = None
    calibration: tuple[str, ...] = ()
    schema: int = SCHEMA

    @property
    def n_sets(self) -> int:
        """How many sets of N models an entry is scored in: one for each original, or one of all."""
        return 1 if self.setup == "full" else self.n_originals


@dataclass(frozen=True)
class Run:
    """A run folder and its record; what is read of it is kept."""

    folder: RunFolder
    record: RunRecord
    _models: dict[tuple[str, ...], ModelSet] = field(default_factory=dict, init=False, repr=False, compare=False)
    _sets: dict[str, tuple[ModelSet, ...]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def open(cls, folder: RunFolder | Path | str) -> Run:
        """Open a run folder.

        Raises:
            ValueError: it holds no run, or ``run.json`` is damaged or of another version.
        """
        folder = folder if isinstance(folder, RunFolder) else RunFolder(folder)
        path = folder.root / "run.json"
        if not path.is_file():
            raise ValueError(
                f"{folder.root} holds no run: it has no run.json. "
                "Make one with 'python -m local_scorer leaderboard --out DIR'."
            )
        try:
            return cls(folder, read_record(path.read_bytes()))
        except ValueError as error:
            raise ValueError(f"{path} cannot be read: {error}. Run the leaderboard again.") from error

    def save(self) -> None:
        """Write ``run.json``."""
        text = json.dumps(asdict(self.record), indent=2) + "\n"
        write_atomically(self.folder.root / "run.json", text.encode())

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the entries, without the two references."""
        return tuple(entry.name for entry in self.record.entries)

    @property
    def readable(self) -> tuple[str, ...]:
        """The names of the entries whose runs are all finished."""
        return tuple(entry.name for entry in self.record.entries if entry.keys and not self.missing(entry.name))

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The keys of all jobs."""
        own = (key for entry in self.record.entries for key in (*entry.trainings, *entry.keys))
        record = self.record
        keys = (*record.originals, *record.retrained, *record.ceiling, *record.calibration, *own)
        return tuple(dict.fromkeys(keys))

    def entry(self, name: str) -> Entry:
        """Return what the record says of an entry, or of one of the two references.

        Raises:
            ValueError: the run has no such entry.
        """
        references = (
            Entry(name=CEILING, hash=None, keys=self.record.ceiling),
            Entry(name=FLOOR, hash=None, keys=self.record.originals),
        )
        for entry in (*self.record.entries, *references):
            if entry.name == name:
                return entry
        known = ", ".join(sorted([*self.names, CEILING, FLOOR]))
        raise ValueError(f"{self.folder.root} has no entry {name!r}; it has {known}.")

    def models(self, name: str) -> ModelSet:
        """Return what the N runs of an entry from the first original left behind: the first of its `sets`."""
        return self.sets(name)[0]

    def sets(self, name: str) -> tuple[ModelSet, ...]:
        """Return what the models of an entry left behind, N models for each original; one set in the full set-up.

        Of the floor, these are N copies of each original, in the full set-up the N originals; of the ceiling, as
        many sets of N models as there are.

        Raises:
            ValueError: the run has no such entry, or a result is missing or damaged.
        """
        if name not in self._sets:
            self._sets[name] = tuple(self._split(name))
        return self._sets[name]

    def _split(self, name: str) -> Iterator[ModelSet]:
        n_models = self.record.n_models
        if name == FLOOR and self.record.setup == "competition":
            for number in range(self.original.n_models):
                yield self.original.part(number, number + 1).repeated(n_models)
            return
        models = self._packed("ceiling") if name == CEILING and self.pack else self._read(self.entry(name).keys)
        for start in range(0, models.n_models - n_models + 1, n_models):
            yield models.part(start, start + n_models)

    @property
    def original(self) -> ModelSet:
        """The models that entries unlearn from, one or several; errors as for `sets`."""
        if not self.record.originals:
            return self._packed("original").part(0, self.record.n_originals)
        return self._read(self.record.originals)

    @property
    def retrained(self) -> ModelSet:
        """The models that all others are compared with; errors as for `sets`."""
        return self._packed("retrained") if self.pack else self._read(self.record.retrained)

    @property
    def timed(self) -> tuple[ModelSet, ...]:
        """The models whose training is the clock of the whole run; errors as for `sets`."""
        if self.pack:
            return (self._read(self.record.calibration),)
        return self.retrained, self._read(self.record.ceiling)

    def timed_beside(self, name: str) -> tuple[ModelSet, ...]:
        """Return the models whose training is the clock of a row: those trained among its runs, if any were."""
        trained = tuple(key for key in self.entry(name).trainings if self.folder.result_path(key).is_file())
        return (self._read(trained),) if trained else self.timed

    @cached_property
    def pack(self) -> Pack | None:
        """The reference pack that originals and retrained models come from, if any.

        Raises:
            ValueError: it is missing, damaged, or another one than the record says.
        """
        if self.record.reference is None:
            return None
        opened = Pack(self.folder.pack_path)
        if opened.sha256 != self.record.reference:
            raise ValueError(f"{opened.path} is another pack than the one of this run. Run the leaderboard again.")
        return opened

    def missing(self, name: str) -> tuple[str, ...]:
        """Return the keys of an entry's runs that have no result."""
        return tuple(key for key in self.entry(name).keys if not self.folder.result_path(key).is_file())

    def failure(self, name: str) -> tuple[int, Failure] | None:
        """Return the first failure of an entry, with the index of the run; None if none is recorded."""
        for key in self.missing(name):
            found = self.folder.load_failure(key)
            if found:
                return self.entry(name).keys.index(key), found
        return None

    def headers(self, keys: Sequence[str]) -> tuple[Header, ...]:
        """Return what finished jobs say about themselves; none of their arrays is unpacked.

        Jobs without a result, or with a damaged one, are left out.
        """
        found = []
        for key in keys:
            with contextlib.suppress(FileNotFoundError, ValueError):
                found.append(self.folder.load_header(key))
        return tuple(found)

    def _packed(self, kind: str) -> ModelSet:
        """Return the models of one kind in the pack; for audits it keeps some of them only."""
        if (kind,) not in self._models:
            arrays = {
                name: self.pack.array(f"{kind}_{name}")
                for name in (
                    "retain_accuracy",
                    "forget_accuracy",
                    "test_accuracy",
                    "wall_seconds",
                    "cpu_seconds",
                    "test_logits",
                    "retain_confidence",
                    "validation_confidence",
                )
            }
            for clock in ("wall_seconds", "cpu_seconds"):  # of another machine: they enter no ratio
                arrays[clock] = np.full_like(arrays[clock], np.nan)
            self._models[(kind,)] = ModelSet(
                logits=self.pack.array(f"{kind}_forget_logits"),
                labels=self.pack.array("forget_labels"),
                test_labels=self.pack.array("test_labels"),
                **{name: array.astype(np.float32) if array.ndim > 1 else array for name, array in arrays.items()},
            )
        return self._models[(kind,)]

    def _read(self, keys: tuple[str, ...]) -> ModelSet:
        if keys not in self._models:
            try:
                results = [self.folder.load_result(key) for key in keys]
            except FileNotFoundError as error:
                raise ValueError(
                    f"{error.filename} is missing: the run is not finished. "
                    "Run the same leaderboard command again."
                ) from error
            if not results:
                raise ValueError(f"An entry of {self.folder.root} has no models: its file could not be read.")
            self._models[keys] = model_set(results)
        return self._models[keys]


def read_record(text: str | bytes) -> RunRecord:
    """Return the record in the text of a ``run.json``.

    Raises:
        ValueError: it is damaged or of another version.
    """
    found = schema.from_json(Schema, text, ignore_unknown=True)
    if found.schema != SCHEMA:
        raise ValueError(f"it has schema {found.schema}, this version reads {SCHEMA}")
    record = schema.from_json(RunRecord, text)
    jobs = (*record.originals, *record.retrained, *record.ceiling, *record.calibration)
    for key in (*jobs, *(key for entry in record.entries for key in (*entry.keys, *entry.trainings))):
        if not KEY.fullmatch(key):
            raise ValueError(f"{key[:80]!r} is no key of a job")
    if record.n_models < 1 or record.n_originals < 1:
        raise ValueError("it has no number of models or of originals")
    if record.reference is None and not (record.retrained and record.ceiling and record.originals):
        raise ValueError("it names no retrained models")
    if record.reference is not None and not record.calibration:
        raise ValueError("it names no models for the clock")
    if record.setup not in SETUPS or (record.setup == "full" and record.n_originals != record.n_models):
        raise ValueError("its set-up is unknown, or is not one of as many originals as models")
    names = [FLOOR, CEILING, *(entry.name for entry in record.entries)]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two entries have the name {name[:80]!r}")
    return record


@dataclass(frozen=True)
class Schema:
    """What is read of a record before anything else."""

    schema: int


def model_set(results: Sequence[JobResult]) -> ModelSet:
    """Stack the results of some jobs on the same data, one model each."""

    def stacked(values: list[np.ndarray]) -> np.ndarray:
        if len({value.shape for value in values}) > 1:
            raise ValueError("Results of one entry have different shapes: they belong to different data.")
        return np.stack(values)

    first = results[0]
    return ModelSet(
        logits=stacked([result.logits["forget"] for result in results]),
        labels=first.labels["forget"],
        retain_accuracy=np.array([result.accuracy["retain"] for result in results]),
        forget_accuracy=np.array([result.accuracy["forget"] for result in results]),
        test_accuracy=np.array([result.accuracy["test"] for result in results]),
        wall_seconds=np.array([result.wall_seconds for result in results]),
        cpu_seconds=np.array([result.cpu_seconds for result in results]),
        test_logits=stacked([result.logits["test"] for result in results]),
        test_labels=first.labels["test"],
        retain_confidence=stacked([result.retain_confidence for result in results]),
        validation_confidence=metric.logit_scaled_confidence(
            stacked([result.logits["validation"] for result in results]), first.labels["validation"]
        ).astype(np.float32),
        machines=np.array([result.header.machine for result in results]),
        finished=np.array([result.header.finished for result in results], dtype=np.float64),
    )
