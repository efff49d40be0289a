"""Training speed: this toolkit's loop against a plain one in the organisers' style, as a ratio in one run.

    python -m benchmarks.retrain --size 32 64 --width 16 16 --images 1536 512

Both train the same network with the same recipe on the same pictures for one epoch at a time, in turn, in one
process with one thread. The plain loop is a DataLoader over dict samples, a forward and a backward pass and
torch.optim.Adam with its defaults, pictures in torch's standard memory layout.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from local_scorer.models import nets
from local_scorer.models.recipes import RECIPES
from studies import frame

COLUMNS = ("size", "width", "pictures", "repeats", "plain_seconds", "toolkit_seconds", "ratio")


class DictSamples(Dataset):
    """Random uint8 pictures in the competition's item format."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor):
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, object]:
        return {
            "image": self.images[index].float(),
            "image_id": f"{index}-0",
            "age_group": int(self.labels[index]),
            "age": 30,
            "person_id": str(index),
        }


def plain_epoch(net: nn.Module, loader: DataLoader, optimizer: torch.optim.Optimizer, device: str) -> None:
    """Train one epoch as the competition's starter notebook does."""
    criterion = nn.CrossEntropyLoss()
    net.train()
    for sample in loader:
        inputs, targets = sample["image"].to(device), sample["age_group"].to(device)
        optimizer.zero_grad()
        loss = criterion(net(inputs), targets)
        loss.backward()
        optimizer.step()
    net.eval()


def main() -> None:
    """Time both loops for every case."""
    parser = frame.parser("benchmarks.retrain", __doc__, "speed-training")
    parser.add_argument("--size", type=int, nargs="+", default=[32, 32, 64], help="of each case")
    parser.add_argument("--width", type=int, nargs="+", default=[16, 64, 16], help="of each case")
    parser.add_argument("--images", type=int, nargs="+", default=[1536, 384, 512], help="of each case")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cases = list(zip(args.size, args.width, args.images, strict=True))
    rows = [(*case, args.repeats, *measured(*case, args.repeats, args.device)) for case in cases]
    notes = ["Seconds a thousand pictures (median)."]
    frame.publish("benchmarks.retrain", args.results, COLUMNS, rows, None, notes)


def measured(size: int, width: int, n_images: int, repeats: int, device: str) -> tuple[float, float, float]:
    """Return median seconds a thousand pictures of the plain loop and of ours, timed in turn, and their ratio."""
    images = torch.randint(0, 256, (n_images, 3, size, size), dtype=torch.uint8)
    labels = torch.randint(0, 8, (n_images,))
    recipe = replace(RECIPES["report"], augment=False, epochs=1)
    counts = torch.bincount(labels, minlength=8)
    loader = DataLoader(DictSamples(images, labels), batch_size=recipe.batch_size, shuffle=True)
    on_device = images.to(device), labels.to(device)
    plain, toolkit = [], []
    for repeat in range(repeats + 1):
        net = nets.fresh_net(8, width, seed=repeat).to(device)
        optimizer = torch.optim.Adam(net.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
        plain.append(_seconds(device, partial(plain_epoch, net, loader, optimizer, device)))
        net = nets.fresh_net(8, width, seed=repeat).to(device)
        arguments = (net, *on_device, recipe, counts)
        toolkit.append(_seconds(device, partial(nets.train, *arguments, seed=repeat)))
    medians = [
        statistics.median(values[1:]) * 1000 / n_images for values in (plain, toolkit)
    ]  # the first warms up
    return *medians, medians[0] / medians[1]


def _seconds(device: str, work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


if __name__ == "__main__":
    frame.exit_with(main)
