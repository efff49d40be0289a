"""Entries loaded as modules, so that a test can change their settings, and tiny loaders in both batch forms."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from local_scorer import validate
from local_scorer.models.nets import fresh_net

ENTRIES = Path(__file__).resolve().parents[2] / "kaggle_submission"
NAMES = sorted(path.stem for path in ENTRIES.glob("[!_]*.py"))


def load(name: str, **settings: object) -> ModuleType:
    """Load an entry as a module of its own, with some of its settings changed."""
    spec = importlib.util.spec_from_file_location(name, ENTRIES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for setting, value in settings.items():
        if not hasattr(module, setting):
            raise ValueError(f"{name}.py has no setting {setting}.")
        setattr(module, setting, value)
    return module


class Faces(Dataset):
    """Noise pictures with the given labels; items are dicts as on Kaggle, or tuples."""

    def __init__(self, labels: list[int], form: str = "dict", size: int = 32):
        random = torch.Generator().manual_seed(len(labels))
        self.images = torch.rand(len(labels), 3, size, size, generator=random) * 255
        self.labels = labels
        self.form = form

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> object:
        image, label = self.images[index], self.labels[index]
        if self.form == "tuple":
            return image, label
        return {"image": image, "image_id": str(index), "age_group": label}


def loader(labels: list[int], form: str = "dict", batch_size: int = 64) -> DataLoader:
    """Return a shuffled loader over noise pictures with the given labels."""
    return DataLoader(Faces(labels, form), batch_size=batch_size, shuffle=True)


def classes(n: int, n_classes: int) -> list[int]:
    """Return the labels 0, 1, ..., n_classes - 1, 0, 1, ... of `n` pictures."""
    return [index % n_classes for index in range(n)]


def given_net(n_classes: int) -> nn.Module:
    """Return a net of width 16 in eval mode whose batch-norm statistics fit the pictures, as after training."""
    net = fresh_net(n_classes, 16, seed=0)
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        net.train()(Faces(classes(16, n_classes)).images)
    for norm in norms:
        norm.momentum = 0.1
    return net.eval()


class OneLayer(nn.Module):
    """Pictures ``[B, 3, 2, 2]`` to logits by one linear layer, named as in a ResNet."""

    def __init__(self, n_classes: int = 3):
        super().__init__()
        self.fc = nn.Linear(12, n_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(images.flatten(1) / 255)


def small_faces(n: int, n_classes: int = 3) -> Faces:
    """Return pictures for `OneLayer`."""
    return Faces(classes(n, n_classes), size=2)


def small_loader(n: int, n_classes: int = 3, batch_size: int = 4) -> DataLoader:
    """Return a loader for `OneLayer`, in order."""
    return DataLoader(small_faces(n, n_classes), batch_size=batch_size)


def loss_of(net: nn.Module, faces: Faces) -> torch.Tensor:
    """Return the mean cross-entropy of the net on all the pictures."""
    return functional.cross_entropy(net(faces.images), torch.tensor(faces.labels))


def rates_of_steps(entry: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return a list into which the learning rate goes with each step that the entry takes from now on."""
    rates, take_step = [], entry.descend

    def step(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
        rates.append(optimizer.param_groups[0]["lr"])
        take_step(optimizer, loss)

    monkeypatch.setattr(entry, "descend", step)
    return rates


def states(net: nn.Module) -> dict[str, torch.Tensor]:
    """Return a copy of the net's state dict."""
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Say whether two state dicts hold the same bits."""
    return all(torch.equal(a[name], b[name]) for name in a)


def use_small_nets(monkeypatch):
    """Have `validate` take narrow nets, where width 64 takes four times as long, and wait on a busy machine."""
    monkeypatch.setattr(validate, "SECONDS", 900.0)
    first = replace(validate.FIRST, width=16, retain=128)
    monkeypatch.setattr(validate, "FIRST", first)
    monkeypatch.setattr(validate, "SECOND", replace(first, index=1))
    small = replace(validate.FURTHER[validate.SMALL], width=16)
    further = {**validate.FURTHER, validate.TUPLES: replace(first, as_tuples=True), validate.SMALL: small}
    monkeypatch.setattr(validate, "FURTHER", further)
