"""Training speed: this toolkit's loop against a plain one in the organisers' style, as a ratio in one run.

    python -m benchmarks.retrain --size 32 --width 16 --images 1536 --repeats 3

Both train the same network with the same recipe on the same pictures for one epoch at a time, in turn, in one
process with one thread. The plain loop is a DataLoader over dict samples, a forward and a backward pass and
torch.optim.Adam with its defaults, pictures in torch's standard memory layout.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from dataclasses import replace

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from local_scorer.models import nets as models
from local_scorer.models.recipes import RECIPES
from local_scorer.runs import store


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
    """Time both loops in turn and print seconds a thousand pictures, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--width", type=int, default=16, choices=models.WIDTHS)
    parser.add_argument("--images", type=int, default=1536)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    images = torch.randint(0, 256, (args.images, 3, args.size, args.size), dtype=torch.uint8)
    labels = torch.randint(0, 8, (args.images,))
    recipe = replace(RECIPES["report"], augment=False, epochs=1)
    counts = torch.bincount(labels, minlength=8)
    loader = DataLoader(DictSamples(images, labels), batch_size=recipe.batch_size, shuffle=True)
    on_device = images.to(args.device), labels.to(args.device)
    seconds: dict[str, list[float]] = {"plain": [], "toolkit": []}
    for repeat in range(args.repeats + 1):  # the first pair warms up
        net = models.fresh_net(8, args.width, seed=repeat).to(args.device)
        optimizer = torch.optim.Adam(net.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
        begin = time.perf_counter()
        plain_epoch(net, loader, optimizer, args.device)
        if args.device != "cpu":
            torch.cuda.synchronize()
        middle = time.perf_counter()
        net = models.fresh_net(8, args.width, seed=repeat).to(args.device)
        begin_toolkit = time.perf_counter()
        models.train(net, *on_device, recipe, counts, seed=repeat)
        if args.device != "cpu":
            torch.cuda.synchronize()
        if repeat:
            seconds["plain"].append(middle - begin)
            seconds["toolkit"].append(time.perf_counter() - begin_toolkit)
    median = {name: statistics.median(values) * 1000 / args.images for name, values in seconds.items()}
    print(f"{args.size} px, width {args.width}, {args.images} pictures, {args.repeats} repeats, {args.device}")
    print(f"{store.environment()['processor']}, torch {torch.__version__}, Python {platform.python_version()}")
    for name, value in median.items():
        print(f"{name:8} {value:7.3f} s a thousand pictures (median)")
    print(f"ratio    {median['plain'] / median['toolkit']:7.2f} (plain / toolkit; above 1, the toolkit is faster)")


if __name__ == "__main__":
    main()
