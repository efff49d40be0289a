"""Importances by squared gradients of small batches against torch.func's gradient of each picture, as a ratio.

    python -m benchmarks.importances --repeats 5

Both take the same net, pictures and batches of 32 in turn, in one process with one thread. Per-picture gradients
are the less noisy estimate; the entries take small batches because those fit the time limit.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional
from torch.utils.data import TensorDataset

from kaggle_submission import gisa
from local_scorer.models import nets as models
from local_scorer.runs import store


def of_each_picture(net: nn.Module, images: torch.Tensor, labels: torch.Tensor, batch: int) -> list[torch.Tensor]:
    """Return the mean over pictures of the squared gradient of each parameter, by ``vmap(grad)``."""
    parameters = {name: parameter.detach() for name, parameter in net.named_parameters()}
    buffers = dict(net.named_buffers())

    def loss(parameters: dict[str, torch.Tensor], image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(functional_call(net, (parameters, buffers), (image[None],)), label[None])

    gradients_of = vmap(grad(loss), in_dims=(None, 0, 0))
    totals = [torch.zeros_like(parameter) for parameter in parameters.values()]
    for some, their_labels in zip(images.split(batch), labels.split(batch), strict=True):
        for total, gradient in zip(totals, gradients_of(parameters, some, their_labels).values(), strict=True):
            total += gradient.square().sum(dim=0)
    return [total / len(labels) for total in totals]


def main() -> None:
    """Time both in turn; print seconds a thousand pictures and the ratio."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.importances", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--width", type=int, default=16, choices=models.WIDTHS)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    images = torch.randint(0, 256, (args.images, 3, args.size, args.size)).float()
    labels = torch.randint(0, 8, (args.images,))
    net = models.fresh_net(8, args.width, seed=0).eval()
    batch = gisa.IMPORTANCE_BATCH
    seconds: dict[str, list[float]] = {"batches": [], "pictures": []}
    for repeat in range(args.repeats + 1):  # the first pair warms up
        begin = time.perf_counter()
        gisa.importances(net, TensorDataset(images, labels))
        middle = time.perf_counter()
        of_each_picture(net, images, labels, batch)
        if repeat:
            seconds["batches"].append(middle - begin)
            seconds["pictures"].append(time.perf_counter() - middle)
    median = {name: statistics.median(values) * 1000 / args.images for name, values in seconds.items()}
    print(
        f"{args.size} px, width {args.width}, {args.images} pictures in batches of {batch}, {args.repeats} repeats"
    )
    print(f"{store.environment()['processor']}, torch {torch.__version__}")
    for name, value in median.items():
        print(f"{name:9} {value:7.3f} s a thousand pictures (median)")
    print(f"ratio     {median['pictures'] / median['batches']:7.2f} (pictures / batches)")


if __name__ == "__main__":
    main()
