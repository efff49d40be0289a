"""Seconds of the entry's own work: start-up and evaluation stay off the clock."""

from __future__ import annotations

import copy
import os
import time
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional


@dataclass(frozen=True)
class Seconds:
    """Wall-clock seconds, and CPU seconds of this process and of its finished children."""

    wall: float
    cpu: float


class Stopwatch:
    """Measure a ``with`` block, synchronised on a GPU: ``with Stopwatch(device) as watch: ...``.

    The result is in ``watch.seconds`` after the block.
    """

    def __init__(self, device: torch.device | str):
        self.device = torch.device(device)
        self.seconds = Seconds(0.0, 0.0)

    def __enter__(self) -> Stopwatch:
        self._synchronise()
        self._wall, self._cpu = time.perf_counter(), _cpu_seconds()
        return self

    def __exit__(self, *exception: object) -> None:
        self._synchronise()
        self.seconds = Seconds(time.perf_counter() - self._wall, _cpu_seconds() - self._cpu)

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def warm_up(net: nn.Module, size: int, device: torch.device | str) -> None:
    """Run one throw-away training step on a copy of `net`, so that start-up cost is on nobody's clock.

    Args:
        size: height and width of the pictures.
    """
    net = copy.deepcopy(net).to(device).train()
    images = torch.zeros(8, 3, size, size, device=device)
    labels = torch.zeros(8, dtype=torch.int64, device=device)
    functional.cross_entropy(net(images), labels).backward()


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
