"""Run a notebook as Kaggle would, from top to bottom in a clean kernel, and look at what it hands in.

The kernel is a process of its own, with this interpreter. What lies in /kaggle on Kaggle lies in a scratch folder
here: the input in the competition's layout with pictures of a prepared data set, an empty tmp and an empty
working, where the notebook starts.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Subset

from data_prep import dataset, folders
from data_prep.dataset import PreparedDataset
from data_prep.loaders import FaceDataset
from kaggle_submission.tools import kaggle_tree, notebook, rewrite
from kaggle_submission.tools.rewrite import RUNS
from local_scorer.execution import cells, checkpoint, submission
from local_scorer.execution.checkpoint import WeightsError
from local_scorer.execution.submission import SubmissionError
from local_scorer.models.nets import resnet18
from local_scorer.models.recipes import Recipe

OUTPUTS = 10  # the competition's notebooks build a ResNet-18 of width 64 with this number
A_MOMENT = Recipe("a moment", "adam", lr=1e-3, weight_decay=0.0, epochs=1)
MOCK_SECONDS = 120.0
WORKING_BYTES = 20 << 30  # what /kaggle/working holds
NEARLY = 0.9
# Participants report 4 passes through the retain set as 6 of the 8 hours on a P100, and 5 to 6 as all of them.
HOURS, HOURS_PER_PASS = 8.0, 1.5
HOURS_IN_DOUBT = 6.0
SURELY_TOO_LONG = 2.0  # times the hours; below, a rehearsal cannot tell
REMEDY = "Save net.state_dict() of the net that was handed in, as float32, or as float16 to halve the disk."


@dataclass(frozen=True)
class Finding:
    """What one check found: `level` is "ok", "warn" or "FAIL"; a failure's text says how to mend it."""

    level: str
    name: str
    text: str


@dataclass(frozen=True)
class Rehearsal:
    """What a rehearsal found, and what was changed in the notebook for it."""

    findings: tuple[Finding, ...]
    changes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return all(finding.level != "FAIL" for finding in self.findings)


def rehearse(
    path: Path,
    prepared: Path,
    runs: int = 4,
    limit_images: int = 256,
    timeout: float = 1800.0,
    keep: Path | None = None,
) -> Rehearsal:
    """Rehearse a notebook, or an entry as the notebook that is made of it.

    Args:
        prepared: folder of a prepared data set.
        runs: how many runs stand for the 512.
        limit_images: pictures a split.
        timeout: seconds for the whole notebook.
        keep: folder for the scratch tree and the notebook as it ran; None to delete them.

    Raises:
        ValueError: the notebook or the data set cannot be read, or `keep` holds something.
    """
    content = _read(path)
    data = dataset.load(prepared)
    if keep is not None:
        folders.refuse_full(keep)
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as folder:
        stage = _Stage(Path(folder).resolve(), data, runs, limit_images)
        findings, changes = stage.rehearse(content, timeout)
        if keep is not None:
            shutil.copytree(stage.root, keep, dirs_exist_ok=True)
    return Rehearsal(tuple(findings), tuple(changes))


class _Stage:
    """A scratch tree with the prepared pictures in the place of the competition's."""

    def __init__(self, root: Path, data: PreparedDataset, runs: int, limit: int):
        self.root, self.data, self.runs, self.limit = root, data, runs, limit
        self.input, self.tmp, self.working = _places(root)
        self.original = kaggle_tree.train_original(data, A_MOMENT, 64, OUTPUTS, seed=0, limit=limit)
        kaggle_tree.write(data, self.input, self.original, limit=limit)

    def rehearse(self, content: dict, timeout: float) -> tuple[list[Finding], list[str]]:
        """Run the notebook on the pictures and check what it leaves; then run it on the copy without them."""
        try:
            fitted, changes = _fitted(content, self.root, self.runs)
        except ValueError as error:
            return [Finding("FAIL", "runs", str(error))], []
        failure = _execute(fitted, self.root, timeout)
        if failure:
            return [failure], changes
        findings = [Finding("ok", "run", f"All its cells ran, with {self.runs} runs instead of {RUNS}.")]
        findings += [*self._check_zip(), self._check_disk(), self._check_time()]
        if all(finding.level != "FAIL" for finding in findings):
            findings.append(self._check_mock(content))
        return findings, changes

    def _check_zip(self) -> list[Finding]:
        path = self.working / "submission.zip"
        if not path.is_file():
            return [
                Finding(
                    "FAIL", "zip", "There is no submission.zip in /kaggle/working: write it as the last thing."
                )
            ]
        try:
            found = submission.open_submission(path)
        except SubmissionError as error:
            return [Finding("FAIL", "zip", str(error).replace(str(self.root), ""))]
        if found.n_models != self.runs:
            text = (
                f"submission.zip holds {found.n_models} checkpoints after {self.runs} runs: save one in every run."
            )
            return [Finding("FAIL", "number", text)]
        findings = [
            Finding("ok", "zip", f"submission.zip holds {found.n_models} checkpoints under the right names.")
        ]
        kinds, sets = set(), []
        for index in range(found.n_models):
            name = submission.CHECKPOINT.format(index)
            try:
                weights = checkpoint.read_submitted(path, index)
            except ValueError as error:
                return [*findings, Finding("FAIL", "weights", str(error))]
            try:
                checkpoint.check_weights(weights, self.original)
            except WeightsError as error:
                return [*findings, Finding("FAIL", "weights", f"{name}: {error} {REMEDY}")]
            kinds |= {
                str(tensor.dtype).removeprefix("torch.")
                for tensor in weights.values()
                if tensor.is_floating_point()
            }
            sets.append(weights)
        text = f"Names and shapes of the original's weights, all finite, in {' and '.join(sorted(kinds))}."
        return [*findings, Finding("ok", "weights", text), self._check_spread(sets)]

    def _check_spread(self, sets: list[dict[str, torch.Tensor]]) -> Finding:
        """Check that no two runs left the same model, and that the original was changed."""
        for second in range(len(sets)):
            for first in range(second):
                if all(torch.equal(sets[first][name], sets[second][name]) for name in self.original):
                    text = f"Runs {first} and {second} left the same model, and equal models score nothing."
                    return Finding("FAIL", "spread", text + " Set no seed, and draw something at random.")
        trained = [
            name for name, tensor in self.original.items() if tensor.is_floating_point() and "running" not in name
        ]
        original = torch.cat([self.original[name].flatten() for name in trained])
        stacked = torch.stack(
            [torch.cat([weights[name].float().flatten() for name in trained]) for weights in sets]
        )
        change = float((stacked.mean(dim=0) - original).norm() / original.norm())
        spread = float((stacked - stacked.mean(dim=0)).norm() / len(sets) ** 0.5 / original.norm())
        text = f"No two runs are equal. Weights moved by {change:.2%}, and differ between runs by {spread:.2%}."
        return Finding("ok", "spread", text)

    def _check_disk(self) -> Finding:
        working, tmp = (RUNS / self.runs * _size_of(folder) for folder in (self.working, self.tmp))
        text = (
            f"{RUNS} runs would put {working / 2**30:.1f} GiB into /kaggle/working, which holds "
            f"{WORKING_BYTES >> 30}, and {tmp / 2**30:.1f} into /kaggle/tmp."
        )
        if working > WORKING_BYTES:
            remedy = " Keep checkpoints in /kaggle/tmp, or save them in half precision."
            return Finding("FAIL", "disk", text + remedy)
        if working > NEARLY * WORKING_BYTES:
            return Finding("warn", "disk", text + " That is nearly all: half precision would take half.")
        return Finding("ok", "disk", text)

    def _check_time(self) -> Finding:
        """Compare a run with a pass through the retain set, whose time on Kaggle is known."""
        saved = sorted(
            path.stat().st_mtime for path in (self.root / "kaggle").rglob("*.pth") if path.parent != self.input
        )
        if len(saved) < 2:
            return Finding("warn", "time", "The checkpoints were deleted, so the time of a run is not known.")
        seconds = (saved[-1] - saved[0]) / (len(saved) - 1)
        fixed, one_pass = self._time_plain_pass()
        passes = max(0.0, seconds - fixed) / one_pass
        hours = passes * HOURS_PER_PASS
        shown, all_of_them = min(self.limit, len(self.data.rows("retain"))), len(self.data.rows("retain"))
        here = RUNS * (fixed + max(0.0, seconds - fixed) * all_of_them / shown) / 3600
        text = (
            f"A run took {seconds:.1f} s with {shown} pictures to retain, as long as {passes:.1f} plain passes "
            f"through them. {RUNS} runs with all {all_of_them:,} would take {here:.1f} h on this machine, which "
            f"is no P100; there, with the competition's pictures, expect roughly {hours:.1f} of {HOURS:g} h."
        )
        if hours > SURELY_TOO_LONG * HOURS:
            return Finding("FAIL", "time", text + " Do less in each run.")
        if hours > HOURS_IN_DOUBT:
            return Finding("warn", "time", text + " That may be too long: watch the clock on Kaggle.")
        return Finding("ok", "time", text)

    def _time_plain_pass(self) -> tuple[float, float]:
        """Return the seconds of loading and saving a model, and of one pass of plain training, here and now."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        place = self.root / "plain.pth"
        start = time.perf_counter()
        net = resnet18(OUTPUTS)
        net.load_state_dict(torch.load(self.input / "original_model.pth", map_location=device, weights_only=True))
        torch.save(net.state_dict(), place)
        fixed = time.perf_counter() - start
        place.unlink()
        net.to(device).train()
        optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
        pictures = FaceDataset(self.data, "retain")
        some = Subset(pictures, range(min(self.limit, len(pictures))))
        loader = DataLoader(some, batch_size=64, shuffle=True)
        _train_pass(net, loader, optimizer, device)  # the first one warms up
        start = time.perf_counter()
        _train_pass(net, loader, optimizer, device)
        return fixed, time.perf_counter() - start

    def _check_mock(self, content: dict) -> Finding:
        """Run the notebook on the copy of the data that participants see."""
        root = self.root / "mock"
        folder, _, working = _places(root)
        folder.mkdir()
        (folder / "empty.txt").touch()
        failure = _execute(_fitted(content, root, self.runs)[0], root, MOCK_SECONDS)
        if failure:
            text = f"Where the data folder holds only empty.txt, as while you edit: {failure.text}"
            return Finding("warn", "mock", text)
        if not (working / "submission.zip").is_file():
            return Finding("warn", "mock", "Where the data folder holds empty.txt, it writes no submission.zip.")
        return Finding(
            "ok", "mock", "Where the data folder holds empty.txt, it ends at once with a submission.zip."
        )


def _read(path: Path) -> dict:
    if path.suffix == ".py":
        return notebook.build(path)
    return cells.read(path)


def _places(root: Path) -> tuple[Path, Path, Path]:
    """Make the folders of Kaggle below `root`; return those of the competition's data, of tmp and of working."""
    kaggle = root / "kaggle"
    for name in ("input", "tmp", "working"):
        (kaggle / name).mkdir(parents=True)
    return kaggle / "input" / notebook.COMPETITION, kaggle / "tmp", kaggle / "working"


def _fitted(content: dict, root: Path, runs: int) -> tuple[dict, list[str]]:
    """Return the notebook with its code fitted for a rehearsal below `root`, and the changes."""
    sources = ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == "code"]
    texts, changes = rewrite.fit(sources, str(root), runs, gpu=torch.cuda.is_available())
    waiting = iter(texts)
    fitted = [
        {**cell, "source": next(waiting), "outputs": []} if cell["cell_type"] == "code" else cell
        for cell in content["cells"]
    ]
    return {**content, "cells": fitted}, changes


def _execute(content: dict, root: Path, timeout: float) -> Finding | None:
    """Run a notebook in a fresh kernel that starts in /kaggle/working; return what stopped it.

    The notebook with its outputs is left in `root`.
    """
    try:
        import nbformat
        from nbclient import NotebookClient
        from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
    except ImportError as error:
        raise ValueError(
            f"{error}. Install what runs notebooks: pip install -r requirements-notebooks.txt"
        ) from error
    book = nbformat.from_dict(content)
    deadline = time.monotonic() + timeout
    started: list[int] = []
    client = NotebookClient(
        book,
        kernel_name="python3",
        timeout_func=lambda cell: max(1, int(deadline - time.monotonic())),
        on_cell_start=lambda cell, cell_index: started.append(cell_index),
        resources={"metadata": {"path": str(root / "kaggle" / "working")}},
        extra_arguments=["--log-level=ERROR"],
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    try:
        client.execute(env=environment)
    except CellExecutionError as error:
        message = (error.evalue or "").strip().partition("\n")[0].replace(str(root), "")
        if error.ename == "ModuleNotFoundError":
            return _missing_package(message, _cell(book, started))
        return Finding("FAIL", "exception", f"{_cell(book, started)} raised {error.ename}: {message}")
    except CellTimeoutError:
        text = f"{_cell(book, started)} had not ended when the {timeout:g} s of --timeout were over."
        return Finding("FAIL", "time-out", text + " Do less in each run, or give it more time.")
    except DeadKernelError:
        return Finding("FAIL", "killed", f"{_cell(book, started)} ended the whole process: is the memory full?")
    finally:
        nbformat.write(book, root / "notebook.ipynb")
    return None


def _missing_package(message: str, cell: str) -> Finding:
    """Say which package this machine lacks; Kaggle may have it."""
    module = message.partition("'")[2].partition("'")[0] or message
    text = (
        f"{cell} needs the package {module!r}, which is missing here. Install it in this environment and rehearse "
        "again. That says nothing about the notebook, if Kaggle has the package."
    )
    return Finding("FAIL", "package", text)


def _cell(book: dict, started: list[int]) -> str:
    """Name the code cell that ran last, by its number among the code cells and its first line of code."""
    index = started[-1]
    number = sum(cell["cell_type"] == "code" for cell in book["cells"][: index + 1])
    lines = [line.strip() for line in book["cells"][index]["source"].splitlines()]
    first = next((line for line in lines if line and not line.startswith("#")), "")
    return f"Code cell {number} ({first[:40]!r})"


def _train_pass(net: nn.Module, loader: DataLoader, optimizer: torch.optim.Optimizer, device: str) -> None:
    for batch in loader:
        if len(batch["age_group"]) > 1:  # batch normalisation cannot use a single picture
            loss = functional.cross_entropy(net(batch["image"].to(device)), batch["age_group"].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def _size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
