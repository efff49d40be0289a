"""Quick checks of an entry on tiny data; a failure says how to mend it where that is known.

The first part decides: the entry runs as the competition ran it, with its nets of ten outputs and width 64. The
second part is advice on what a file needs to run elsewhere too. All is found out as in a real run, by jobs in
child processes with a time limit, except that `Observed` stands between the job and the entry and takes notes.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import random
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import data_prep.dataset
from local_scorer.execution import contract, kaggle_input, pool, syntax
from local_scorer.execution.contract import EntryError
from local_scorer.execution.job import Job
from local_scorer.execution.local import LocalEngine
from local_scorer.models.recipes import Recipe
from local_scorer.runs.store import Failure, RunFolder

PACKAGES = ("torch", "torchvision", "numpy", "pandas", "sklearn")
REPOSITORY = ("data_prep", "kaggle_submission", "local_scorer", "tests")
SEEDS = (
    (random, "seed"),
    (np.random, "seed"),
    (torch, "seed"),
    (torch, "manual_seed"),
    (torch.random, "manual_seed"),
)
SECONDS = 120.0  # for one run on tiny data, where an ordinary entry needs a few
WORKERS = 2
# Small steps and many, so that batch normalisation comes to know the pictures: entries train in eval mode too
RECIPE = Recipe("a moment", "adam", lr=1e-4, weight_decay=0.0, epochs=1, batch_size=8)
READABLE = "can be read as Python"
SELF_CONTAINED = "imports nothing from this repository"
SIGNATURE = f"loads and defines unlearning({', '.join(contract.ARGUMENTS)})"
RUNS = "runs to its end on the competition's batches"
CHANGED = "changes the net that it is given"
WEIGHTS = "leaves finite weights of the right shapes"
SPREAD = "gives different models under different seeds"
COMPETITION = (READABLE, SELF_CONTAINED, SIGNATURE, RUNS, CHANGED, WEIGHTS, SPREAD)

IMPORTS = f"imports only the standard library, {', '.join(PACKAGES)}"
NO_SEED = "sets no global seed"
EVAL_MODE = "leaves the net in eval mode"
NO_FILES = "writes no files into the working directory"
TUPLES = "runs on tuple batches"
OTHER_NET = "runs with another class count and width"
SMALL = "runs with few pictures to forget and a last batch of one picture"
PORTABLE = (IMPORTS, NO_SEED, EVAL_MODE, NO_FILES, TUPLES, OTHER_NET, SMALL)

PROBE = '''"""Run an entry under observation."""

from local_scorer.validate import Observed

unlearning = Observed({entry!r}, {folder!r}, {as_tuples!r}).unlearning
'''


@dataclass(frozen=True)
class Check:
    """One question about an entry; `fix` says how to mend it and is empty if it passed."""

    name: str
    passed: bool
    fix: str = ""

    @property
    def decides(self) -> bool:
        """Say whether the entry has to pass it to run in the competition."""
        return self.name in COMPETITION


@dataclass(frozen=True)
class _Trial:
    """One run of the entry: the net, the pictures of each split, the seed (by `index`), the form of batches.

    By default it is like the competition's: full batches of 64, and no rest of a single picture at any usual size.
    """

    n_classes: int = 10
    width: int = 64
    retain: int = 256
    forget: int = 96
    validation: int = 64
    index: int = 0
    as_tuples: bool = False

    @property
    def counts(self) -> dict[str, int]:
        return {"retain": self.retain, "forget": self.forget, "validation": self.validation, "test": 16}


@dataclass(frozen=True)
class _Outcome:
    """What was seen of a trial.

    Attributes:
        loaded: the entry's file was run and has the right function.
        returned: ``unlearning()`` came to its end; only then the next five mean anything.
        train_mode: names of modules in train mode.
        before, after: hashes of the weights.
        files: what lies in the working directory.
        seeds: lines of the entry that set a global seed.
        failure: why the trial has no result, or None.
        place: the line of the entry where it stopped, or an empty text.
    """

    loaded: bool
    returned: bool
    train_mode: list[str]
    before: str
    after: str
    files: list[str]
    seeds: list[int]
    failure: Failure | None
    place: str


FIRST, SECOND = _Trial(), _Trial(index=1)
FURTHER = {  # each differs in one thing, so that one cause shows in one place
    TUPLES: _Trial(as_tuples=True),
    OTHER_NET: _Trial(n_classes=3, width=32, retain=96, forget=72),
    SMALL: _Trial(retain=65, forget=5, validation=65),
}
REMEDIES = {
    SIGNATURE: "It has to load on its own and take these arguments.",
    TUPLES: "Take batch[0] and batch[1] where a batch is not a dict, as unpack() in the template does.",
    OTHER_NET: "Take the class count from net.fc.out_features, and other sizes from the net too.",
    SMALL: "Skip batches of one picture, which batch normalisation cannot use, and expect no full batches.",
    SPREAD: "It has to run whatever the seed is.",
    WEIGHTS: "Lower the learning rate if they grew without end; put back modules that you replaced.",
}
IN_TIME = "Look for a loop without end, or do less."


def validate(path: Path) -> list[Check]:
    """Check an entry, of a file or a notebook.

    Returns:
        The checks that were made, those of `COMPETITION` first. If one of these fails, those that build on it are
        left out, the second part with them.
    """
    try:
        source = contract.read_source(path)
        tree = syntax.parse(source)
    except EntryError as error:
        return [Check(READABLE, False, str(error))]
    except (SyntaxError, ValueError) as error:  # ValueError: a null byte
        return [Check(READABLE, False, f"{error}. Correct it; 'python {path}' shows the place.")]
    foreign, own = _foreign_imports(tree)
    remedy = "Copy what you need into the file: it is pasted into a notebook alone."
    checks = [Check(READABLE, True), _check(SELF_CONTAINED, own, remedy)]
    remedy = "Write what you need from it into the file, or do without."
    return [*checks, *_checks_of_runs(path, source, _check(IMPORTS, foreign, remedy))]


class Observed:
    """An entry, loaded in an empty working directory, and what its ``unlearning`` does, noted in `folder`.

    The empty file ``loaded`` appears once the entry is loaded, ``seen.json`` once ``unlearning`` has returned.
    """

    def __init__(self, entry: str, folder: str, as_tuples: bool):
        self._entry, self._folder, self._as_tuples = entry, Path(folder), as_tuples
        self._seeds: set[int] = set()
        (self._folder / "cwd").mkdir()
        os.chdir(self._folder / "cwd")
        for module, name in SEEDS:
            setattr(module, name, self._noting(getattr(module, name)))
        self._unlearning = contract.load_entry(entry, root=self._folder)
        (self._folder / "loaded").touch()

    def unlearning(
        self, net: nn.Module, retain_loader: DataLoader, forget_loader: DataLoader, val_loader: DataLoader
    ) -> None:
        """Call the entry's function and note what it does."""
        loaders = [retain_loader, forget_loader, val_loader]
        if self._as_tuples:
            loaders = [DataLoader(_Tuples(old.dataset), old.batch_size, shuffle=True) for old in loaders]
        before = _weights_hash(net)
        self._seeds.clear()  # what was set when it was loaded, on Kaggle once for all runs
        self._unlearning(net, *loaders)
        seen = {
            "train_mode": [name or "the net" for name, module in net.named_modules() if module.training],
            "before": before,
            "after": _weights_hash(net),
            "files": sorted(path.name for path in (self._folder / "cwd").iterdir()),
            "seeds": sorted(self._seeds),
        }
        (self._folder / "seen.json").write_text(json.dumps(seen))

    def _noting(self, function: Callable[..., object]) -> Callable[..., object]:
        """Return a function that sets a seed, and notes it where the entry calls it."""

        def seed(*arguments: object, **more: object) -> object:
            caller = sys._getframe(1)
            if caller.f_code.co_filename == self._entry:
                self._seeds.add(caller.f_lineno)
            return function(*arguments, **more)

        return seed


class _Tuples(Dataset):
    """A dataset of dicts as one of (picture, label) tuples."""

    def __init__(self, dataset: Dataset):
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> tuple:
        item = self._dataset[index]
        return item["image"], item["age_group"]


def _weights_hash(net: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in net.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().double().numpy().tobytes())
    return digest.hexdigest()


def _foreign_imports(tree: ast.Module) -> tuple[list[str], list[str]]:
    """Return which lines import packages that are not everywhere, and which import this repository."""
    foreign, own = [], []
    for line, module in _imports(tree):
        name = module.partition(".")[0]
        if not name or name in REPOSITORY:
            own.append(f"line {line} imports {name or 'its neighbours'}")
        elif name not in PACKAGES and name not in sys.stdlib_module_names:
            foreign.append(f"line {line} imports {name}")
    return foreign, own


def _imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Give line and name of every imported module; the name of a relative import is empty."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "" if node.level else node.module


def _checks_of_runs(path: Path, source: str, imports: Check) -> list[Check]:
    """Run the entry as in the competition, twice; if that goes well, run it in other ways too."""
    with tempfile.TemporaryDirectory(prefix="validate-") as root:
        bench = _Bench(Path(root).resolve(), path, source)
        first, second = bench.run([FIRST, SECOND])
        checks = _checks_of_competition(first, second, source)
        if not all(check.passed for check in checks):
            return checks
        seeds = [f"line {line} sets it" for line in first.seeds]
        in_train_mode = [f"{name} is in train mode" for name in first.train_mode[:1]]
        written = [f"it wrote {name}" for name in first.files]
        checks += [
            imports,
            _check(NO_SEED, seeds, "Delete it: other draws, of the scorer's and of your own, depend on it too."),
            _check(EVAL_MODE, in_train_mode, "End unlearning() with net.eval()."),
            _check(NO_FILES, written, "Keep it in memory: only the models are handed in."),
        ]
        outcomes = bench.run(list(FURTHER.values()))
        return checks + [_ran(name, outcome) for name, outcome in zip(FURTHER, outcomes, strict=True)]


def _checks_of_competition(first: _Outcome, second: _Outcome, source: str) -> list[Check]:
    if not first.loaded:
        return [_ran(SIGNATURE, first)]
    misnamed = contract.misnamed_loaders(source)
    checks = [Check(SIGNATURE, not misnamed, misnamed)]
    if not first.returned:
        return [*checks, _ran(RUNS, first)]
    checks.append(Check(RUNS, True))
    if first.before == first.after:
        remedy = "Change the net in place: what unlearning() returns is ignored."
        return [*checks, _check(CHANGED, ["the weights are what they were"], remedy)]
    checks += [Check(CHANGED, True), _ran(WEIGHTS, first)]
    if first.failure is not None:
        return checks
    if second.failure is None and second.after == first.after:
        lines = [f"line {line} sets a seed" for line in first.seeds]
        remedy = "Draw something at random and set no seed: equal models score nothing."
        return [*checks, _check(SPREAD, ["two seeds gave the same weights", *lines], remedy)]
    return [*checks, _ran(SPREAD, second)]


def _check(name: str, findings: Sequence[str], remedy: str) -> Check:
    if not findings:
        return Check(name, True)
    text = "; ".join(findings)
    return Check(name, False, f"{text[0].upper()}{text[1:]}. {remedy}".rstrip())


def _ran(name: str, outcome: _Outcome) -> Check:
    """Check that a trial has a result."""
    failure = outcome.failure
    if failure is None:
        return Check(name, True)
    if failure.kind == "time-out":
        finding = f"it had not ended after {SECONDS:.0f} s, where an ordinary entry needs a few"
        return _check(name, [finding], IN_TIME)
    remedy = REMEDIES.get(name, "")
    if package := re.match(r"ModuleNotFoundError: No module named '([\w.]+)'", failure.reason):
        remedy = f"The package is missing here, so nothing can be said of the rest: pip install {package[1]}."
    elif name == RUNS and contract.is_about_sizes(failure.reason):
        remedy = "Sizes do not fit: the net has 10 outputs and 512 features before them, and labels are 0 to 9."
    elif name == RUNS and contract.is_about_batches(failure.reason):
        remedy = "Pictures and labels of a batch are batch['image'] and batch['age_group']."
    return _check(name, [failure.reason.rstrip(".") + outcome.place], remedy)


class _Bench:
    """A temporary run folder with tiny data, where trials of one entry are run."""

    def __init__(self, root: Path, path: Path, source: str):
        self._root = root
        self._folder = RunFolder(root / "run")
        self._name = contract.entry_name(path)
        self._quotes = path.suffix == ".ipynb"  # a line of a notebook is known by its text, not by its number
        self._lines = source.splitlines()
        self._entry = self._folder.keep_entry(source, contract.source_hash(source))

    def run(self, trials: Sequence[_Trial]) -> list[_Outcome]:
        """Run the entry in every trial."""
        places = [Path(tempfile.mkdtemp(dir=self._root)) for _ in trials]
        jobs = [self._job(trial, place) for trial, place in zip(trials, places, strict=True)]
        self._have_done(list(dict.fromkeys(job.original_job for job in jobs)))
        for job, trial, place in zip(jobs, trials, places, strict=True):
            labels = np.arange(trial.retain + trial.forget) % trial.n_classes
            kaggle_input.write(place, labels, trial.n_classes, self._folder.weights_path(job.weights_key))
        failures = self._have_done(jobs)
        return [self._outcome(job, place, failures.get(job)) for job, place in zip(jobs, places, strict=True)]

    def _have_done(self, jobs: Sequence[Job]) -> dict[Job, Failure]:
        progress = pool.Progress(len(jobs), 0, WORKERS, show=False)
        with LocalEngine(self._folder, "cpu", WORKERS, sandbox="off") as engine:
            return pool.run(jobs, self._folder, engine, progress, limit=SECONDS)

    def _job(self, trial: _Trial, place: Path) -> Job:
        data = data_prep.dataset.load(_write_data(trial, place / "data"))
        probe = PROBE.format(entry=str(self._entry), folder=str(place), as_tuples=trial.as_tuples)
        digest = contract.source_hash(probe)
        self._folder.keep_entry(probe, digest)
        return Job(
            role="unlearned",
            index=trial.index,
            data=str(data.folder),
            fingerprint=data.fingerprint,
            recipe=RECIPE,
            width=trial.width,
            seed=0,
            device="cpu",
            entry=self._name,
            entry_hash=digest,
        )

    def _outcome(self, job: Job, place: Path, failure: Failure | None) -> _Outcome:
        returned = (place / "seen.json").is_file()
        nothing = {"train_mode": [], "before": "", "after": "", "files": [], "seeds": []}
        seen = json.loads((place / "seen.json").read_text()) if returned else nothing
        log = self._folder.log_path(job.key).read_text(errors="replace")
        lines = re.findall(rf'{self._entry.name}", line (\d+)', log if failure else "")
        return _Outcome(
            loaded=(place / "loaded").is_file(),
            returned=returned,
            failure=failure,
            place=self._place(int(lines[-1])) if lines else "",
            **seen,
        )

    def _place(self, line: int) -> str:
        return f" ({self._lines[line - 1].strip()!r})" if self._quotes else f" (line {line})"


def _write_data(trial: _Trial, out: Path) -> Path:
    """Write a dataset of noise, brighter for a higher class."""
    noise = np.random.default_rng(0)
    split = np.repeat(list(trial.counts), list(trial.counts.values()))
    n = len(split)
    labels = noise.permutation(np.arange(n) % trial.n_classes)
    light = 40 + 140 * labels / trial.n_classes
    images = noise.normal(light[:, None, None, None], 40, (n, 3, 32, 32)).clip(0, 255).astype(np.uint8)
    numbers = [f"{number:03d}" for number in range(n)]
    examples = pd.DataFrame({"image_id": numbers, "person_id": numbers, "age_group": labels, "age": 10 * labels})
    return data_prep.dataset.write(
        out,
        images=images,
        examples=examples.assign(split=split, source="noise"),
        name="tiny",
        class_names=[str(label) for label in range(trial.n_classes)],
        settings={},
        seed=0,
        sources={},
    )
