"""Run a notebook as Kaggle would, from top to bottom in a clean kernel, and look at what it hands in.

The kernel is a process of its own, with this interpreter. What lies in /kaggle on Kaggle lies in a scratch folder
here: the input in the competition's layout with pictures of a prepared data set, an empty tmp and an empty
working, where the notebook starts.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from data_prep import dataset, folders
from data_prep.dataset import PreparedDataset
from kaggle_submission.tools import checks, clock, forecast, kaggle_tree, kernel, notebook, rewrite
from kaggle_submission.tools.checks import Finding
from kaggle_submission.tools.forecast import Timed
from kaggle_submission.tools.rewrite import RUNS
from local_scorer.execution import cells, kaggle_input
from local_scorer.models.recipes import Recipe

OUTPUTS = 10  # the competition's notebooks build a ResNet-18 of width 64 with this number
A_MOMENT = Recipe("a moment", "adam", lr=1e-3, weight_decay=0.0, epochs=1)
MOCK_SECONDS = 120.0


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
        limit_images: pictures a split; half of them to forget.
        timeout: seconds for the notebook from top to bottom, each of the three times that it runs.
        keep: folder for the scratch tree and the notebook as it ran; None to delete them.

    Raises:
        ValueError: the notebook or the data set cannot be read, or `keep` holds something.
    """
    content = _read(path)
    data = dataset.load(prepared)
    if keep is not None:
        folders.refuse_full(keep)
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as folder:
        root = Path(folder).resolve()
        original = kaggle_tree.train_original(data, A_MOMENT, 64, OUTPUTS, seed=0, limit=limit_images)
        stage = _Stage(content, root, data, original, runs, limit_images, timeout)
        findings, changes = stage.rehearse()
        if keep is not None:
            shutil.copytree(root, keep, dirs_exist_ok=True)
    return Rehearsal(tuple(findings), tuple(changes))


@dataclass(frozen=True)
class _Stage:
    """A notebook, and what is put in the place of the competition's data and its 512 runs."""

    content: dict
    root: Path
    data: PreparedDataset
    original: checks.Weights
    runs: int
    limit: int
    timeout: float

    def rehearse(self) -> tuple[list[Finding], list[str]]:
        """Run the notebook on pictures and check what it leaves, its time, and how it copes without them."""
        try:
            _, changes, doubts = _fitted(self.content, self.root, self.runs)
        except ValueError as error:
            return [Finding("FAIL", "runs", str(error))], []
        unsure = [Finding("warn", "runs", doubt) for doubt in doubts]
        retain = min(self.limit, len(self.data.rows("retain")))
        forget = min(max(1, retain // 2), len(self.data.rows("forget")))
        failure = self._run_with_pictures(self.root, retain, forget)
        if failure:
            return [*unsure, failure], changes
        findings = [
            *unsure,
            Finding("ok", "run", f"All its cells ran, with {self.runs} runs instead of {RUNS}."),
            *checks.check_submission(self.root, self.runs, self.original),
            checks.check_disk(self.root, self.runs),
            self._check_time(retain, forget),
        ]
        if all(finding.level != "FAIL" for finding in findings):
            findings.append(self._check_mock())
        return findings, changes

    def _run_with_pictures(self, root: Path, retain: int, forget: int) -> Finding | None:
        """Run the notebook below `root` with so many pictures; return what stopped it."""
        folder = kaggle_input.make_folders(root)
        limits = {"retain": retain, "forget": forget, "validation": self.limit}
        kaggle_tree.write(self.data, folder, self.original, limits=limits)
        return _execute(_fitted(self.content, root, self.runs)[0], root, self.timeout)

    def _check_time(self, retain: int, forget: int) -> Finding:
        """Run it again with half the pictures to retain, then to forget: so the work on each is known.

        Plain training is timed between them, by whose speed each is measured.
        """
        gpu = torch.cuda.is_available()
        seconds = [clock.seconds_of_runs(self.root, gpu)]
        if not seconds[0]:
            return Finding("warn", "time", "The checkpoints were deleted, so the time of a run is not known.")
        fewer = ((max(1, retain // 2), forget), (retain, max(1, forget // 2)))
        passes = forecast.time_plain_training(self.data, self.original, retain)
        plain = [next(passes)]
        for few_retain, few_forget in fewer:
            root = self.root / "timing"
            failure = self._run_with_pictures(root, few_retain, few_forget)
            seconds.append(clock.seconds_of_runs(root, gpu))
            shutil.rmtree(root)
            if failure or not seconds[-1]:
                why = failure.text if failure else "it left no checkpoints."
                text = f"With {few_retain} pictures to retain and {few_forget} to forget, {why}"
                return Finding("warn", "time", f"The time of 512 runs is not known. {text}")
            plain.append(next(passes))
        beside = (plain[0], (plain[0] + plain[1]) / 2, (plain[1] + plain[2]) / 2)
        numbers = ((retain, forget), *fewer)
        timed = tuple(Timed(*number, *of) for number, *of in zip(numbers, seconds, beside, strict=True))
        return forecast.forecast(timed, *(len(self.data.rows(split)) for split in ("retain", "forget")))

    def _check_mock(self) -> Finding:
        """Run the notebook on the copy of the data that participants see."""
        root = self.root / "mock"
        folder = kaggle_input.make_folders(root)
        folder.mkdir()
        (folder / "empty.txt").touch()
        failure = _execute(_fitted(self.content, root, self.runs)[0], root, MOCK_SECONDS)
        if failure:
            text = f"Where the data folder holds only empty.txt, as while you edit: {failure.text}"
            return Finding("warn", "mock", text)
        if not (root / "kaggle" / "working" / "submission.zip").is_file():
            return Finding("warn", "mock", "Where the data folder holds empty.txt, it writes no submission.zip.")
        return Finding(
            "ok", "mock", "Where the data folder holds empty.txt, it ends at once with a submission.zip."
        )


def _read(path: Path) -> dict:
    """Return a notebook, or the one that is made of an entry: a file, or a notebook that packs nothing itself."""
    if path.suffix == ".py":
        return notebook.build(path)
    content = cells.read(path)
    text = "".join("".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == "code")
    packs = str(RUNS) in text or "submission" in text
    return content if packs or "def unlearning(" not in text else notebook.build(path)


def _fitted(content: dict, root: Path, runs: int) -> tuple[dict, list[str], list[str]]:
    """Return the notebook with its code fitted for a rehearsal below `root`, the changes, and what is in doubt."""
    sources = ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == "code"]
    result = rewrite.fit(sources, str(root), runs, gpu=torch.cuda.is_available())
    waiting = iter(result.cells)
    fitted = [
        {**cell, "source": next(waiting), "outputs": []} if cell["cell_type"] == "code" else cell
        for cell in content["cells"]
    ]
    return {**content, "cells": fitted}, result.changes, result.doubts


def _execute(content: dict, root: Path, timeout: float) -> Finding | None:
    """Run a notebook in a fresh kernel; return what stopped it."""
    ending = kernel.execute(content, root, timeout)
    return Finding("FAIL", *ending) if ending else None
