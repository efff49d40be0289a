"""Look at what a notebook left in /kaggle/working: the zip, its checkpoints, their spread, and the disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from kaggle_submission.tools.rewrite import RUNS
from local_scorer.execution import checkpoint, submission
from local_scorer.execution.checkpoint import WeightsError
from local_scorer.execution.submission import SubmissionError

WORKING_BYTES = 20 << 30  # what /kaggle/working holds
NEARLY = 0.9
REMEDY = "Save net.state_dict() of the net that was handed in, as float32, or as float16 to halve the disk."

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Finding:
    """What one check found: `level` is "ok", "warn" or "FAIL"; a failure's text says how to mend it."""

    level: str
    name: str
    text: str


def check_submission(root: Path, runs: int, original: Weights) -> list[Finding]:
    """Check the submission.zip of a notebook that ran with so many runs; `root` holds its kaggle folder."""
    path = root / "kaggle" / "working" / "submission.zip"
    if not path.is_file():
        text = "There is no submission.zip in /kaggle/working: write it as the last thing."
        return [Finding("FAIL", "zip", text)]
    try:
        n_models = submission.open_submission(path).n_models
    except SubmissionError as error:
        return [Finding("FAIL", "zip", str(error).replace(str(root), ""))]
    if n_models != runs:
        text = f"submission.zip holds {n_models} checkpoints after {runs} runs: save one in every run."
        return [Finding("FAIL", "number", text)]
    names = Finding("ok", "zip", f"submission.zip holds {n_models} checkpoints under the right names.")
    try:
        models = [_read_weights(path, index, original) for index in range(n_models)]
    except ValueError as error:
        return [names, Finding("FAIL", "weights", str(error))]
    tensors = [tensor for weights in models for tensor in weights.values() if tensor.is_floating_point()]
    types = " and ".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors}))
    text = f"Names and shapes of the original's weights, all finite, in {types}."
    return [names, Finding("ok", "weights", text), _check_spread(models, original)]


def _read_weights(path: Path, index: int, original: Weights) -> Weights:
    weights = checkpoint.read_submitted(path, index)
    try:
        checkpoint.check_weights(weights, original)
    except WeightsError as error:
        raise ValueError(f"{submission.CHECKPOINT.format(index)}: {error} {REMEDY}") from error
    return weights


def _check_spread(models: list[Weights], original: Weights) -> Finding:
    """Check that no two runs left the same model, and say how far the weights moved."""
    for second in range(len(models)):
        for first in range(second):
            if all(torch.equal(models[first][name], models[second][name]) for name in original):
                text = f"Runs {first} and {second} left the same model, and equal models score nothing."
                return Finding("FAIL", "spread", text + " Set no seed, and draw something at random.")
    trained = [name for name, tensor in original.items() if tensor.is_floating_point() and "running" not in name]
    start = torch.cat([original[name].flatten() for name in trained])
    ends = torch.stack([torch.cat([weights[name].float().flatten() for name in trained]) for weights in models])
    change = float((ends.mean(dim=0) - start).norm() / start.norm())
    spread = float((ends - ends.mean(dim=0)).norm() / len(models) ** 0.5 / start.norm())
    text = f"No two runs are equal. Weights moved by {change:.2%}, and differ between runs by {spread:.2%}."
    return Finding("ok", "spread", text)


def check_disk(root: Path, runs: int) -> Finding:
    """Say what 512 runs would put into /kaggle/working and /kaggle/tmp."""
    working, tmp = (RUNS / runs * _size_of(root / "kaggle" / name) for name in ("working", "tmp"))
    text = (
        f"{RUNS} runs would put {working / 2**30:.1f} GiB into /kaggle/working, which holds "
        f"{WORKING_BYTES >> 30}, and {tmp / 2**30:.1f} into /kaggle/tmp."
    )
    if working > WORKING_BYTES:
        return Finding("FAIL", "disk", text + " Keep checkpoints in /kaggle/tmp, or save them in half precision.")
    if working > NEARLY * WORKING_BYTES:
        return Finding("warn", "disk", text + " That is nearly all: half precision would take half.")
    return Finding("ok", "disk", text)


def _size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
