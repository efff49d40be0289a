"""Importances by squared gradients of small batches against torch.func's gradient of each picture, as a ratio.

    python -m benchmarks.importances --repeats 5

Both take the same net, pictures and batches of 32 in turn, in one process with one thread. Per-picture gradients
are the less noisy estimate; the entries take small batches because those fit the time limit.
"""

from __future__ import annotations

import statistics
import time

import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional
from torch.utils.data import TensorDataset

from kaggle_submission import gisa
from local_scorer.models import nets
from studies import frame

COLUMNS = ("size", "width", "pictures", "batch", "repeats", "batches_seconds", "pictures_seconds", "ratio")


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
    """Time both in turn."""
    parser = frame.parser("benchmarks.importances", __doc__, "speed-importances")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--width", type=int, default=16, choices=nets.WIDTHS)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    images = torch.randint(0, 256, (args.images, 3, args.size, args.size)).float()
    labels = torch.randint(0, 8, (args.images,))
    net = nets.fresh_net(8, args.width, seed=0).eval()
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
    medians = [statistics.median(values) * 1000 / args.images for values in seconds.values()]
    row = (args.size, args.width, args.images, batch, args.repeats, *medians, medians[1] / medians[0])
    notes = ["Seconds a thousand pictures (median)."]
    frame.publish("benchmarks.importances", args.results, COLUMNS, [row], None, notes)


if __name__ == "__main__":
    frame.exit_with(main)
