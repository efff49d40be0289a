"""ResNet-18 of any width, and training from a seeded fresh start.

The network takes float32 pictures ``[B, 3, H, W]`` with values 0 to 255, not normalised, as in the
competition. Pictures stay uint8 on the device and are converted a batch at a time, so a training step runs
no Python per example.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torchvision
from torch import nn
from torch.nn import functional
from torchvision.models.resnet import BasicBlock

from local_scorer.models.recipes import WIDTHS, Recipe


def resnet18(n_classes: int, width: int = 64) -> nn.Module:
    """Build torchvision's ResNet-18 with `width` channels in the stem instead of 64.

    Width 64 is torchvision's own model. Draws its initial weights from torch's global generator.

    Raises:
        ValueError: the width is not one of `WIDTHS`.
    """
    if width not in WIDTHS:
        raise ValueError(f"width must be one of {', '.join(map(str, WIDTHS))}, found {width}.")
    net = torchvision.models.resnet18(weights=None, num_classes=n_classes)
    if width == 64:
        return net
    net.inplanes = width
    net.conv1 = nn.Conv2d(3, width, kernel_size=7, stride=2, padding=3, bias=False)
    net.bn1 = nn.BatchNorm2d(width)
    for stage, stride in enumerate((1, 2, 2, 2)):
        layer = net._make_layer(BasicBlock, width << stage, 2, stride=stride)
        setattr(net, f"layer{stage + 1}", layer)
    net.fc = nn.Linear(8 * width, n_classes)
    for module in net.modules():  # the rule of torchvision's constructor
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net


def fresh_net(n_classes: int, width: int, seed: int) -> nn.Module:
    """Build a ResNet-18 whose initial weights depend on `seed` alone; the global generator is untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return resnet18(n_classes, width)


def empty_net(n_classes: int, width: int) -> nn.Module:
    """Build a ResNet-18 whose weights are yet to be loaded: until then they are whatever memory held."""
    with _no_initial_weights():
        return resnet18(n_classes, width)


@contextlib.contextmanager
def _no_initial_weights() -> Iterator[None]:
    """Have torch's layers draw no weights: to draw those of a ResNet-18 takes ten times as long as to build it."""

    def leave(tensor: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return tensor

    usual = {name: getattr(nn.init, name) for name in ("kaiming_uniform_", "kaiming_normal_", "uniform_")}
    try:
        for name in usual:
            setattr(nn.init, name, leave)
        yield
    finally:
        for name, function in usual.items():
            setattr(nn.init, name, function)


def train(
    net: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    recipe: Recipe,
    class_counts: torch.Tensor,
    seed: int,
    each_epoch: Callable[[range], Iterable[int]] = iter,
) -> None:
    """Train `net` in place and leave it in eval mode.

    Args:
        images: uint8 ``[n, 3, H, W]``, on the device of `net`.
        labels: int64 ``[n]``, on the device of `net`.
        class_counts: ``[n_classes]`` pictures of each class in the full training set.
        seed: batch order and augmentation depend on it alone.
        each_epoch: goes through the epochs, as tqdm does to show a bar.

    The batches of an epoch are of nearly equal size, at most half a batch off the recipe's. A last batch of a
    few pictures, as a plain loop would make it, spoils the running statistics of batch normalisation: on the
    built-in set of seed 2, where it had 3, it cost about a third of the training accuracy.
    """
    if recipe.optimizer not in ("adam", "sgd") or recipe.schedule not in ("constant", "cosine", "onecycle"):
        raise ValueError(f"Recipe {recipe.name!r} has an unknown optimizer or schedule.")
    device = images.device
    layout = _fastest_layout(net, images)
    images = images.contiguous(memory_format=layout)
    net.to(memory_format=layout).train()
    order = torch.Generator().manual_seed(seed)
    jitter = torch.Generator(device).manual_seed(seed)
    weights = None
    if recipe.class_weights == "inverse_count":
        weights = torch.where(class_counts > 0, 1.0 / class_counts.clamp(min=1), 0.0).to(device)
    optimizer = _optimizer(net, recipe)
    schedule = _schedule(optimizer, recipe, len(images))
    for _ in each_epoch(range(recipe.epochs)):
        for rows in _batches(len(images), recipe.batch_size, order):
            rows = rows.to(device)
            batch = images[rows].float()
            if recipe.augment:
                batch = augmented(batch, jitter)
            loss = functional.cross_entropy(net(batch), labels[rows], weight=weights)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if recipe.schedule == "onecycle":
                schedule.step()
        if recipe.schedule == "cosine":
            schedule.step()
    net.eval()


@torch.inference_mode()
def predict_logits(net: nn.Module, images: torch.Tensor, batch_size: int = 256) -> torch.Tensor:
    """Return the logits of `net` in eval mode, float32 ``[n, n_classes]`` on the CPU.

    Args:
        images: uint8 ``[n, 3, H, W]``, on the device of `net`.
    """
    layout = _fastest_layout(net, images)
    net.to(memory_format=layout).eval()
    batches = (batch.float().contiguous(memory_format=layout) for batch in images.split(batch_size))
    return torch.cat([net(batch).float().cpu() for batch in batches])


def augmented(batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Flip, rotate (up to 8 degrees), shift (up to 6 %) and zoom (up to 8 %) each picture at random.

    Args:
        batch: float32 ``[B, 3, H, W]``.
    """
    n = len(batch)
    draws = torch.rand(n, 5, generator=generator, device=batch.device) * 2 - 1
    angle = draws[:, 0] * (8 * torch.pi / 180)
    zoom = 1 + 0.08 * draws[:, 1]
    flip = torch.where(draws[:, 2] < 0, -1.0, 1.0)
    cos, sin = zoom * torch.cos(angle), zoom * torch.sin(angle)
    matrix = torch.stack(
        [
            torch.stack([flip * cos, -sin, 0.12 * draws[:, 3]], dim=1),
            torch.stack([flip * sin, cos, 0.12 * draws[:, 4]], dim=1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(matrix, list(batch.shape), align_corners=False)
    return functional.grid_sample(batch, grid, padding_mode="border", align_corners=False)


def _fastest_layout(net: nn.Module, images: torch.Tensor) -> torch.memory_format:
    """Channels last, except for wide nets and small pictures on a CPU, where it costs some 10 %."""
    wide, small = net.conv1.out_channels >= 64, images.shape[-1] < 128
    return torch.contiguous_format if images.device.type == "cpu" and wide and small else torch.channels_last


def _optimizer(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    # The fused CPU kernels came with torch 2.4; the sums are the same, the step is up to five times faster.
    fused = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 4)
    settings = {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "fused": fused}
    if recipe.optimizer == "adam":
        return torch.optim.Adam(net.parameters(), **settings)
    return torch.optim.SGD(net.parameters(), momentum=recipe.momentum, **settings)


def _schedule(
    optimizer: torch.optim.Optimizer, recipe: Recipe, n_images: int
) -> torch.optim.lr_scheduler.LRScheduler | None:
    """Return what changes the learning rate: "cosine" each epoch, "onecycle" each batch; None if constant."""
    if recipe.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=recipe.epochs)
    if recipe.schedule == "onecycle":
        steps = recipe.epochs * _n_batches(n_images, recipe.batch_size)
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, total_steps=steps, cycle_momentum=False)
    return None


def _batches(n: int, batch_size: int, order: torch.Generator) -> tuple[torch.Tensor, ...]:
    """Return the row numbers of each batch of one epoch: all rows, shuffled, in batches of nearly equal size."""
    rows = torch.randperm(n, generator=order)
    return rows.tensor_split(_n_batches(n, batch_size))


def _n_batches(n: int, batch_size: int) -> int:
    return max(1, round(n / batch_size))
