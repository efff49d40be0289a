"""The steps of a job: train a model, unlearn once, evaluate what that left, or rescore a checkpoint.

A job ends in a finished file in the run folder. Entry code runs in a process of its own that leaves nothing
but a checkpoint; `keeper` holds its clocks. Another process, which never saw the entry, loads that checkpoint
and evaluates it. So replaced modules, hooks, flags and patched functions end with the entry's process.
"""

from __future__ import annotations

import io
import json
import random
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import nn

import data_prep.dataset
from data_prep.dataset import PreparedDataset
from data_prep.loaders import loaders
from local_scorer.execution import checkpoint, contract, kaggle_input
from local_scorer.execution.job import Job
from local_scorer.metric import logit_scaled_confidence
from local_scorer.models import nets, timing
from local_scorer.runs import store
from local_scorer.runs.store import Header, JobResult, RunFolder

SPLITS_OF_TRAINING = {
    "original": ("retain", "forget"),
    "retrained": ("retain",),  # what the entries are compared with
    "ceiling": ("retain",),  # a second, independent set: the best that an entry could do
}


def train(job: Job, folder: RunFolder, device: str, header: dict[str, object]) -> None:
    """Train a model from a fresh start on what its role may see, and store its result."""
    data = open_data(job)
    rows = np.sort(np.concatenate([data.rows(split) for split in SPLITS_OF_TRAINING[job.role]]))
    images = torch.from_numpy(np.ascontiguousarray(data.images[rows])).to(device)
    labels = torch.from_numpy(data.columns["age_group"][rows]).to(device)
    net = nets.fresh_net(n_outputs(job, data), job.width, job.job_seed).to(device)
    timing.warm_up(net, data.size, device)
    with timing.Stopwatch(device) as watch:
        nets.train(net, images, labels, job.recipe, class_counts(data, n_outputs(job, data)), job.job_seed)
    if job.role == "original":
        weights = {name: tensor.cpu().contiguous() for name, tensor in net.state_dict().items()}
        save_weights(weights, folder.weights_path(job.key))
        header = {**header, "weights_sha256": data_prep.dataset.sha256_of(folder.weights_path(job.key))}
    _store(job, folder, net, data, device, watch.seconds, header)


def unlearn(job: Job, folder: RunFolder, device: str, private: Path, start: Callable[[], None]) -> float:
    """Run the entry once on a fresh copy of the original; leave its checkpoint, net.pt, in `private`.

    Args:
        private: holds the entry as entry.py.
        start: called just before the entry gets to work. What it imports is on nobody's clock.

    Returns:
        The seconds that it took by this process's clock.
    """
    data = open_data(job)
    weights = folder.weights_path(job.weights_key)
    entry = private / "entry.py"
    source = contract.read_source(entry)
    contract.import_packages(source)
    if kaggle_input.is_named_in(source):
        kaggle_input.write(private, training_labels(data), n_outputs(job, data), weights)
    net = nets.empty_net(n_outputs(job, data), job.width).to(device)
    checkpoint.load_into(net, checkpoint.read_state_dict(weights))
    net.eval()
    timing.warm_up(net, data.size, device)
    retain_loader, forget_loader, val_loader = loaders(data)
    start()
    with timing.Stopwatch(device) as watch:
        unlearning = contract.load_entry(entry, job.entry_hash, device=job.device, root=private)
        seed_everything(job.job_seed)
        unlearning(net, retain_loader, forget_loader, val_loader)
    torch.save({name: tensor.detach().cpu() for name, tensor in net.state_dict().items()}, private / "net.pt")
    return watch.seconds.wall


def evaluate(tasks: Iterable[tuple[Job, Path]], folder: RunFolder, device: str, header: dict[str, object]) -> None:
    """Evaluate checkpoints that `unlearn` left, and store each result before the next is looked at.

    Args:
        tasks: jobs of one `Job.evaluation`, each with the folder that its checkpoint is in.

    Raises:
        WeightsError: a checkpoint does not fit the architecture or holds non-finite weights.
    """
    data = net = None
    for job, work in tasks:
        if net is None:
            data = open_data(job)
            net = nets.empty_net(n_outputs(job, data), job.width).to(device)
        checkpoint.load_into(net, checkpoint.read_state_dict(work / "net.pt"))
        seconds = timing.Seconds(**json.loads((work / "seconds.json").read_text()))
        _store(job, folder, net, data, device, seconds, header)


def rescore(job: Job, folder: RunFolder, device: str, header: dict[str, object]) -> None:
    """Evaluate a checkpoint of a submission and store the result, in float32; its time is not known.

    Raises:
        SubmissionError: the zip does not hold the checkpoint.
        WeightsError: it is not a plain state dict, does not fit the architecture or holds non-finite weights.
    """
    data = open_data(job)
    net = nets.empty_net(n_outputs(job, data), job.width)
    checkpoint.load_into(net, checkpoint.read_submitted(job.submission, job.index))
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


def n_outputs(job: Job, data: PreparedDataset) -> int:
    """Return the number of outputs of the job's nets."""
    return job.outputs or data.n_classes


def training_labels(data: PreparedDataset) -> np.ndarray:
    """Return the labels of the full training set, retain and forget: int64 ``[n]``."""
    return np.concatenate([data.labels("retain"), data.labels("forget")])


def class_counts(data: PreparedDataset, n_outputs: int) -> torch.Tensor:
    """Count the pictures of each class in the full training set: int64 ``[n_outputs]``."""
    return torch.from_numpy(np.bincount(training_labels(data), minlength=n_outputs))


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
        outputs = np.empty((0, n_outputs(job, data)), np.float32)
        accuracy[split] = float("nan")
        if len(rows):
            images = torch.from_numpy(np.ascontiguousarray(data.images[rows])).to(device)
            outputs = nets.predict_logits(net, images).numpy()
            accuracy[split] = float((outputs.argmax(axis=1) == split_labels).mean())
        if split == "retain":
            retain_confidence = logit_scaled_confidence(outputs, split_labels).astype(np.float32)
        if split in store.LOGITS:
            logits[split], labels[split] = outputs, split_labels
    header = Header(
        role=job.role,
        index=job.index,
        entry=job.entry,
        entry_hash=job.entry_hash,
        data=data.name,
        fingerprint=job.fingerprint,
        recipe=job.recipe,
        width=job.width,
        seed=job.seed,
        job_seed=job.job_seed,
        original=job.original,
        device=job.device,
        finished=time.time(),
        **header,
    )
    result = JobResult(
        header=header,
        logits=logits,
        labels=labels,
        accuracy=accuracy,
        wall_seconds=seconds.wall,
        cpu_seconds=seconds.cpu,
        retain_confidence=retain_confidence,
    )
    folder.save_result(job.key, result)
