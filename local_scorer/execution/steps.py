"""One job: train the original, retrain a model without the forget set, unlearn once, or rescore a checkpoint.

A job ends in a finished file in the run folder. Entry code runs in a process of its own that leaves nothing
but a checkpoint; another process, which never saw the entry, loads that checkpoint and evaluates it. So
replaced modules, hooks, flags and patched functions end with the entry's process.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

import data_prep.dataset
from data_prep.dataset import PreparedDataset
from data_prep.loaders import loaders
from local_scorer.execution import checkpoint as submission
from local_scorer.execution import contract
from local_scorer.models import nets as models
from local_scorer.models import timing
from local_scorer.models.nets import Recipe
from local_scorer.runs import store
from local_scorer.runs.store import JobResult, RunFolder

TRAINED_ROLES = ("original", "retrained", "ceiling")
SPLITS_OF_TRAINING = {
    "original": ("retain", "forget"),
    "retrained": ("retain",),  # what the entries are compared with
    "ceiling": ("retain",),  # a second, independent set: the best that an entry could do
}


class WeightsError(ValueError):
    """A checkpoint that cannot be scored. The message says why."""


@dataclass(frozen=True)
class Job:
    """A description of one job, complete enough to run it on any machine that has the data.

    Attributes:
        role: "original", "retrained", "ceiling", "unlearned" or "submitted".
        index: number of the model within its role, from 0.
        data: folder of the prepared dataset; `fingerprint` is its content hash.
        seed: the run's seed; the job's own seed follows from it, the role and the index.
        device: "cpu" or "cuda".
        entry, entry_hash: name and hash of the entry's source, or of the zip for role "submitted".
        submission: the zip that holds checkpoint `index`, for role "submitted".
    """

    role: str
    index: int
    data: str
    fingerprint: str
    recipe: Recipe
    width: int
    seed: int
    device: str
    entry: str | None = None
    entry_hash: str | None = None
    submission: str | None = None

    @property
    def key(self) -> str:
        """Content key: equal for jobs with equal results, wherever data and entry lie."""
        return store.content_key(
            {
                "role": self.role,
                "index": self.index,
                "data": self.fingerprint,
                "recipe": asdict(self.recipe),
                "width": self.width,
                "seed": self.seed,
                "device": self.device,
                "entry": self.entry_hash,
            }
        )

    @property
    def job_seed(self) -> int:
        return derive_seed(self.seed, self.role, self.index)

    @property
    def original(self) -> Job:
        """The job that trains the original model which this job unlearns from."""
        return replace(self, role="original", index=0, entry=None, entry_hash=None)

    @property
    def label(self) -> str:
        """What this job works at, in one or two words."""
        return self.entry or self.role

    def is_done(self, folder: RunFolder) -> bool:
        return folder.is_done(self.key, needs_weights=self.role == "original")


def derive_seed(run_seed: int, role: str, index: int) -> int:
    """Return the seed of one job, in ``[0, 2**31)``, so that numpy and torch both take it.

    >>> derive_seed(0, "retrained", 0) != derive_seed(0, "ceiling", 0)
    True
    """
    digest = hashlib.sha256(f"{run_seed}/{role}/{index}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def train(job: Job, folder: RunFolder, device: str, header: dict[str, object]) -> None:
    """Train a model from a fresh start on what its role may see, and store its result."""
    data = open_data(job)
    rows = np.sort(np.concatenate([data.rows(split) for split in SPLITS_OF_TRAINING[job.role]]))
    images = torch.from_numpy(np.ascontiguousarray(data.images[rows])).to(device)
    labels = torch.from_numpy(data.examples["age_group"].to_numpy(dtype=np.int64)[rows]).to(device)
    net = models.fresh_net(data.n_classes, job.width, job.job_seed).to(device)
    timing.warm_up(net, data.size, device)
    with timing.Stopwatch(device) as watch:
        models.train(net, images, labels, job.recipe, class_counts(data), job.job_seed)
    if job.role == "original":
        weights = {name: tensor.cpu().contiguous() for name, tensor in net.state_dict().items()}
        save_weights(weights, folder.weights_path(job.key))
        header = {**header, "weights_sha256": data_prep.dataset.sha256_of(folder.weights_path(job.key))}
    _store(job, folder, net, data, device, watch.seconds, header)


def unlearn(job: Job, folder: RunFolder, device: str, work: Path, say: Callable[[bytes], None]) -> None:
    """Run the entry once on a fresh copy of the original; leave checkpoint and seconds in `work`.

    Args:
        say: told ``b"start"`` just before the entry gets to work, and ``b"end"`` just after.
    """
    data = open_data(job)
    unlearning = contract.load_entry(folder.root / "entries" / f"{job.entry_hash}.py")
    net = models.fresh_net(data.n_classes, job.width, seed=0).to(device)
    net.load_state_dict(load_weights(folder.weights_path(job.original.key)))
    net.eval()
    timing.warm_up(net, data.size, device)
    retain_loader, forget_loader, val_loader = loaders(data)
    seed_everything(job.job_seed)
    say(b"start")
    with timing.Stopwatch(device) as watch:
        unlearning(net, retain_loader, forget_loader, val_loader)
    say(b"end")
    save_weights({name: tensor.detach().cpu() for name, tensor in net.state_dict().items()}, work / "net.pt")
    (work / "seconds.json").write_text(json.dumps(asdict(watch.seconds)))


def evaluate(job: Job, folder: RunFolder, device: str, work: Path, header: dict[str, object]) -> None:
    """Evaluate the checkpoint that `unlearn` left in `work`, and store the result.

    Raises:
        WeightsError: the checkpoint does not fit the architecture or holds non-finite weights.
    """
    data = open_data(job)
    net = models.fresh_net(data.n_classes, job.width, seed=0)
    load_checkpoint(net, work / "net.pt")
    seconds = timing.Seconds(**json.loads((work / "seconds.json").read_text()))
    _store(job, folder, net.to(device), data, device, seconds, header)


def rescore(job: Job, folder: RunFolder, device: str, header: dict[str, object]) -> None:
    """Evaluate a checkpoint of a submission and store the result, in float32; its time is not known.

    Raises:
        SubmissionError: the checkpoint is not a plain state dict.
        WeightsError: it does not fit the architecture or holds non-finite weights.
    """
    data = open_data(job)
    net = models.fresh_net(data.n_classes, job.width, seed=0)
    put_weights(net, submission.read_weights(job.submission, job.index))
    seconds = timing.Seconds(wall=float("nan"), cpu=float("nan"))
    _store(job, folder, net.to(device), data, device, seconds, header)


def open_data(job: Job) -> PreparedDataset:
    """Open the job's data set.

    Raises:
        ValueError: it has changed since the job was planned.
    """
    data = data_prep.dataset.load(job.data)
    if data.fingerprint != job.fingerprint:
        raise ValueError(f"{job.data} has changed while the run was under way. Start the command again.")
    return data


def class_counts(data: PreparedDataset) -> torch.Tensor:
    """Count the pictures of each class in the full training set, retain and forget: int64 ``[n_classes]``."""
    labels = np.concatenate([data.labels("retain"), data.labels("forget")])
    return torch.from_numpy(np.bincount(labels, minlength=data.n_classes))


def seed_everything(seed: int) -> None:
    """Seed the global generators of this process, which an entry may draw from."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def save_weights(weights: dict[str, torch.Tensor], path: Path) -> None:
    """Write a state dict atomically."""
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    store.write_atomically(path, buffer.getvalue())


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict to the CPU; nothing but tensors can come out of the file."""
    return torch.load(path, map_location="cpu", weights_only=True)


def load_checkpoint(net: nn.Module, path: Path) -> None:
    """Load a checkpoint that foreign code wrote into `net`.

    Raises:
        WeightsError: the file is no state dict of this architecture, or holds non-finite weights.
    """
    try:
        weights = load_weights(path)
    except Exception as error:  # torch.load raises whatever the damaged bytes lead to
        raise WeightsError(f"The checkpoint cannot be read as a plain state dict ({error}).") from error
    put_weights(net, weights)


def put_weights(net: nn.Module, weights: object) -> None:
    """Load a state dict that foreign code made into `net`, in the precision of `net`.

    Raises:
        WeightsError: it is no state dict of this architecture, or holds non-finite weights.
    """
    expected = net.state_dict()
    if not isinstance(weights, dict):
        raise WeightsError(f"The checkpoint holds a {type(weights).__name__}, not a state dict.")
    for name, tensor in expected.items():
        if name not in weights:
            raise WeightsError(f"The model lost its weight {name!r}: it must stay a ResNet-18.")
        if not isinstance(weights[name], torch.Tensor) or weights[name].shape != tensor.shape:
            found = list(getattr(weights[name], "shape", []))
            raise WeightsError(f"Weight {name!r} has shape {found} instead of {list(tensor.shape)}.")
        if tensor.is_floating_point() and not weights[name].is_floating_point():
            raise WeightsError(f"Weight {name!r} has the type {weights[name].dtype} instead of {tensor.dtype}.")
        if not torch.isfinite(weights[name].float()).all():
            raise WeightsError(f"Weight {name!r} is not finite (NaN or infinity).")
    foreign = sorted(set(weights) - set(expected), key=str)
    if foreign:
        raise WeightsError(f"The model has gained the weight {foreign[0]!r}: it must stay a ResNet-18.")
    net.load_state_dict(weights)


def _store(
    job: Job,
    folder: RunFolder,
    net: nn.Module,
    data: PreparedDataset,
    device: str,
    seconds: timing.Seconds,
    header: dict[str, object],
) -> None:
    logits, labels, accuracy = {}, {}, {}
    for split in store.ACCURACIES:
        rows = data.rows(split)
        split_labels = data.labels(split)
        outputs = np.empty((0, data.n_classes), np.float32)
        accuracy[split] = float("nan")
        if len(rows):
            images = torch.from_numpy(np.ascontiguousarray(data.images[rows])).to(device)
            outputs = models.predict_logits(net, images).numpy()
            accuracy[split] = float((outputs.argmax(axis=1) == split_labels).mean())
        if split in store.LOGITS:
            logits[split], labels[split] = outputs, split_labels
    header = {
        "role": job.role,
        "index": job.index,
        "entry": job.entry,
        "entry_hash": job.entry_hash,
        "data": data.name,
        "fingerprint": job.fingerprint,
        "recipe": asdict(job.recipe),
        "width": job.width,
        "seed": job.seed,
        "job_seed": job.job_seed,
        "device": job.device,
        **header,
    }
    result = JobResult(header, logits, labels, accuracy, seconds.wall, seconds.cpu)
    folder.save_result(job.key, result)
