"""Job results, records and runs that are made up from numbers, for the tests of whatever reads them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from local_scorer.metric.score import ModelSet
from local_scorer.models.recipes import RECIPES
from local_scorer.runs.record import Counts, Data, Entry, Provenance, Run, RunRecord, RunSettings
from local_scorer.runs.store import ACCURACIES, LOGITS, Environment, Header, JobResult, RunFolder

ENVIRONMENT = Environment(
    python="3.12.0",
    system="Linux x86_64",
    processor="A processor",
    cores=2,
    packages={"torch": "2.9.0", "numpy": "2.3.0"},
    toolkit_commit="abc",
)
MADE_ON = {"workers": 2, "threads": 1, "gpu": None, "environment": ENVIRONMENT}  # what a header says of that
HEADER = Header(
    role="retrained",
    index=0,
    entry=None,
    entry_hash=None,
    data="tiny",
    fingerprint="f",
    recipe=RECIPES["quick"],
    width=16,
    seed=0,
    job_seed=1,
    original=0,
    device="cpu",
    **MADE_ON,
)


def logits_of(confidences: object, labels: Sequence[int], n_classes: int = 2) -> np.ndarray:
    """Return logits ``[..., n, n_classes]`` whose logit-scaled confidence in `labels` is as given."""
    confidences = np.asarray(confidences, dtype=np.float64)
    logits = np.zeros((*confidences.shape, n_classes), np.float32)
    logits[..., np.arange(len(labels)), np.asarray(labels, dtype=int)] = confidences + np.log(n_classes - 1)
    return logits


def job_result(
    confidence: Mapping[str, object] | float = 1.0,
    labels: Mapping[str, Sequence[int]] | Sequence[int] = (0, 1),
    n_classes: int = 2,
    seconds: float = 1.0,
    accuracy: Mapping[str, float] | None = None,
    retain_confidence: Sequence[float] = (),
    **header: object,
) -> JobResult:
    """Return a finished job by the confidence of its model in the true class.

    Args:
        confidence: one for all pictures, or split -> one for each.
        labels: of every split, or split -> labels.
        seconds: of the wall clock; twice as many of the CPU.
        accuracy: split -> share; 0.5 where it says nothing.
        header: what differs from `HEADER`.
    """
    labels = labels if isinstance(labels, Mapping) else dict.fromkeys(LOGITS, labels)
    logits = {}
    for split in LOGITS:
        value = confidence[split] if isinstance(confidence, Mapping) else confidence
        logits[split] = logits_of(np.broadcast_to(value, len(labels[split])), labels[split], n_classes)
    return JobResult(
        header=replace(HEADER, **header),
        logits=logits,
        labels={split: np.array(labels[split], dtype=np.int64) for split in LOGITS},
        accuracy={split: (accuracy or {}).get(split, 0.5) for split in ACCURACIES},
        wall_seconds=seconds,
        cpu_seconds=2 * seconds,
        retain_confidence=np.array(retain_confidence, dtype=np.float32),
    )


def model_set(
    confidences: object,
    labels: Sequence[int] = (0, 1),
    retain: float = 0.8,
    test: float = 0.6,
    seconds: float = 10.0,
) -> ModelSet:
    """Return a set of models by their confidences, ``[n_models, n_forget]``."""
    n = len(confidences)
    return ModelSet(
        logits=logits_of(confidences, labels),
        labels=np.array(labels),
        retain_accuracy=np.full(n, retain),
        forget_accuracy=np.full(n, 0.5),
        test_accuracy=np.full(n, test),
        wall_seconds=np.full(n, seconds),
        cpu_seconds=np.full(n, 2 * seconds),
    )


def run_data(**changes: object) -> Data:
    """Return what a record says of a dataset of two classes, with 2 pictures to forget."""
    data = Data(
        name="tiny",
        fingerprint="f",
        class_names=("young", "old"),
        counts=Counts(retain=64, forget=2, validation=0, test=24),
        settings={},
        seed=0,
    )
    return replace(data, **changes)


def run_record(
    retrained: Sequence[str],
    ceiling: Sequence[str],
    *entries: Entry,
    original: str = "original",
    **changes: object,
) -> RunRecord:
    """Return the record of a run by the keys of its jobs."""
    record = RunRecord(
        rules="official",
        n_models=len(retrained),
        data=run_data(),
        settings=RunSettings(recipe=RECIPES["quick"], width=16, size=32, seed=0, device="cpu", workers=2),
        originals=(original,),
        retrained=tuple(retrained),
        ceiling=tuple(ceiling),
        entries=entries,
        provenance=Provenance(command="python -m local_scorer leaderboard", environment=ENVIRONMENT),
    )
    return replace(record, **changes)


def save_jobs(folder: RunFolder, name: str, results: Sequence[JobResult]) -> tuple[str, ...]:
    """Save finished jobs and return their keys: the name with a number."""
    keys = tuple(f"{name}{index}" for index in range(len(results)))
    for key, result in zip(keys, results, strict=True):
        folder.save_result(key, result)
    return keys


def saved_run(root: Path, record: RunRecord) -> Run:
    """Save a record and open the run."""
    Run(RunFolder(root), record).save()
    return Run.open(root)
