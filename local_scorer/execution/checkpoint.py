"""A checkpoint that foreign code made: read without running anything that is in it, and checked.

It is opened with ``weights_only``, as the competition's server did: nothing but tensors can come out of it.

This is the one definition of what counts as the state dict of a ResNet-18 that can be scored.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import torch
from torch import nn

from local_scorer.execution import submission
from local_scorer.execution.submission import MAX_BYTES
from local_scorer.models import nets


class WeightsError(ValueError):
    """A checkpoint that cannot be scored. The message says why."""


def read_state_dict(source: bytes | Path, name: str = "The checkpoint") -> dict[str, torch.Tensor]:
    """Return the state dict in a file or in its bytes, on the CPU and in its own precision.

    Args:
        name: what the checkpoint is called in an error.

    Raises:
        WeightsError: it holds anything but a flat dict of ordinary tensors, or more than `MAX_BYTES`.
    """
    content = source if isinstance(source, bytes) else _read(source, name)
    _check_container(content, name)
    try:
        weights = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever the bytes lead to
        if type(error).__name__ == "UnpicklingError":
            raise WeightsError(
                f"{name} holds more than tensors and would run code when opened: it was refused unopened. "
                "Save net.state_dict() and nothing else."
            ) from error
        raise WeightsError(f"{name} cannot be read ({type(error).__name__}). Save net.state_dict().") from error
    ordinary = isinstance(weights, dict) and all(
        isinstance(key, str) and isinstance(tensor, torch.Tensor) and _is_plain(tensor)
        for key, tensor in weights.items()
    )
    if not ordinary:
        raise WeightsError(f"{name} is not a state dict of ordinary tensors. Save net.state_dict().")
    return weights


def read_submitted(path: Path | str, index: int) -> dict[str, torch.Tensor]:
    """Return the state dict of one checkpoint of a submission.zip, on the CPU and in its own precision.

    Raises:
        SubmissionError: there is no such checkpoint, or it cannot be unpacked.
        WeightsError: it holds anything but a flat dict of ordinary tensors.
    """
    return read_state_dict(submission.read_member(path, index), submission.CHECKPOINT.format(index))


def shape_of(weights: dict[str, torch.Tensor], name: str = "The checkpoint") -> tuple[int, int]:
    """Return stem width and number of outputs of a state dict.

    Raises:
        WeightsError: it is not that of a ResNet-18.
    """
    stem, head = weights.get("conv1.weight"), weights.get("fc.weight")
    if stem is None or head is None or stem.ndim != 4 or head.ndim != 2:
        raise WeightsError(f"{name} lacks conv1.weight or fc.weight: it must be the state dict of a ResNet-18.")
    return len(stem), len(head)


def check_weights(weights: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Check that a state dict has the names, shapes and kinds of `expected`, and finite values.

    Raises:
        WeightsError: it does not have them.
    """
    for name, tensor in expected.items():
        if name not in weights:
            raise WeightsError(f"The model lost its weight {name!r}: it must stay a ResNet-18.")
        found = weights[name]
        if found.shape != tensor.shape:
            raise WeightsError(f"Weight {name!r} has shape {list(found.shape)} instead of {list(tensor.shape)}.")
        if tensor.is_floating_point() and not found.is_floating_point():
            raise WeightsError(f"Weight {name!r} has the type {found.dtype} instead of {tensor.dtype}.")
        if not torch.isfinite(found.float()).all():
            raise WeightsError(f"Weight {name!r} is not finite (NaN or infinity).")
    foreign = sorted(set(weights) - set(expected))
    if foreign:
        raise WeightsError(f"The model has gained the weight {foreign[0]!r}: it must stay a ResNet-18.")


def load_into(net: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Check a state dict and load it into `net`, in the precision of `net`.

    Raises:
        WeightsError: it does not fit the architecture or holds non-finite weights.
    """
    check_weights(weights, net.state_dict())
    net.load_state_dict(weights)


def read_resnet18(source: bytes | Path, name: str = "The checkpoint") -> dict[str, torch.Tensor]:
    """Return the state dict of a ResNet-18 of whatever width and number of outputs.

    Raises:
        WeightsError: it is something else.
    """
    weights = read_state_dict(source, name)
    width, outputs = shape_of(weights, name)
    if width not in nets.WIDTHS:
        raise WeightsError(f"{name} has {width} channels in its stem: a ResNet-18 here has one of {nets.WIDTHS}.")
    check_weights(weights, nets.empty_net(outputs, width).state_dict())
    return weights


def _read(path: Path, name: str) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise WeightsError(f"{name} cannot be read ({error}).") from error
    if len(content) > MAX_BYTES:
        raise WeightsError(f"{name} has more than the {MAX_BYTES:,} bytes that it may have.")
    return content


def _check_container(content: bytes, name: str) -> None:
    """Check that a checkpoint, which is a zip itself, does not unpack to more than it may."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            size = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise WeightsError(
            f"{name} is not a file that torch.save wrote: save net.state_dict() with it."
        ) from error
    if size > MAX_BYTES:
        raise WeightsError(f"{name} unpacks to {size:,} bytes, more than the {MAX_BYTES:,} it may have.")


def _is_plain(tensor: torch.Tensor) -> bool:
    dense = tensor.layout == torch.strided and tensor.device.type == "cpu"
    return dense and not tensor.is_quantized and not tensor.is_complex()
