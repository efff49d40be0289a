"""Quick checks of an entry on tiny data; each failure says how to mend it.

What the text shows is read off the text. The rest is found out as in a real run, by jobs in child processes
with a time limit, except that `observe` stands between the job and the entry and takes notes.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from torch import nn
from torch.utils.data import DataLoader, Dataset

import data_prep.dataset
from local_scorer.execution import contract, pool
from local_scorer.execution.contract import EntryError
from local_scorer.execution.job import Job
from local_scorer.execution.local import LocalEngine
from local_scorer.models.recipes import Recipe
from local_scorer.runs.store import Failure, RunFolder

PACKAGES = ("torch", "torchvision", "numpy", "pandas", "sklearn")
REPOSITORY = ("data_prep", "kaggle_submission", "local_scorer", "tests")
GLOBAL_SEEDS = (
    "random.seed",
    "numpy.random.seed",
    "torch.seed",
    "torch.manual_seed",
    "torch.random.seed",
    "torch.random.manual_seed",
    "torch.cuda.manual_seed",
    "torch.cuda.manual_seed_all",
)
SECONDS = 8.0  # for one run on tiny data, where an ordinary entry needs about one
WORKERS = 2
RECIPE = Recipe("a moment", "adam", lr=1e-3, weight_decay=0.0, epochs=1)

READABLE = "can be read as Python"
IMPORTS = f"imports only the standard library, {', '.join(PACKAGES)}"
SELF_CONTAINED = "imports nothing from this repository"
NO_SEED = "sets no global seed"
SIGNATURE = f"loads and defines unlearning({', '.join(contract.ARGUMENTS)})"
DICTS = "runs on dict batches, as on Kaggle"
EVAL_MODE = "leaves the net in eval mode"
NO_FILES = "writes no files into the working directory"
CHANGED = "changes the model"
WEIGHTS = "leaves finite weights of the right shapes"
TUPLES = "runs on tuple batches"
OTHER_NET = "runs with another class count and width"
SMALL = "runs with few pictures to forget and a last batch of one picture"
SPREAD = "gives different models under different seeds"
NAMES = (
    READABLE, IMPORTS, SELF_CONTAINED, NO_SEED, SIGNATURE, DICTS, EVAL_MODE, NO_FILES, CHANGED, WEIGHTS, TUPLES,
    OTHER_NET, SMALL, SPREAD,
)  # fmt: skip

PROBE = '''"""Run an entry under observation."""

from functools import partial

from local_scorer.validate import observe

unlearning = partial(observe, entry={entry!r}, folder={folder!r}, as_tuples={as_tuples!r})
'''


@dataclass(frozen=True)
class Check:
    """One question about an entry; `fix` says how to mend it and is empty if it passed."""

    name: str
    passed: bool
    fix: str = ""


@dataclass(frozen=True)
class _Trial:
    """One run of the entry: the net, the pictures of each split, the seed (by `index`), the form of batches."""

    n_classes: int = 8
    width: int = 16
    retain: int = 96
    forget: int = 72
    validation: int = 32
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
        returned: ``unlearning()`` came to its end; only then the next four mean anything.
        train_mode: names of modules in train mode.
        before, after: hashes of the weights.
        files: what lies in the working directory.
        failure: why the trial has no result, or None.
        line: the line of the entry where it stopped, or None.
    """

    loaded: bool
    returned: bool
    train_mode: list[str]
    before: str
    after: str
    files: list[str]
    failure: Failure | None
    line: int | None


FIRST = _Trial()
FURTHER = {
    TUPLES: _Trial(as_tuples=True),
    OTHER_NET: _Trial(n_classes=3, width=32),
    SMALL: _Trial(retain=65, forget=5, validation=65),
    SPREAD: _Trial(index=1),
}
REMEDIES = {
    SIGNATURE: "Define it with these arguments, and leave all other work to it.",
    DICTS: "Pictures and labels of a batch are batch['image'] and batch['age_group'].",
    TUPLES: "Take batch[0] and batch[1] where a batch is not a dict, as unpack() in the template does.",
    OTHER_NET: "Take the class count from net.fc.out_features, and other sizes from the net too.",
    SMALL: "Skip batches of one picture, which batch normalisation cannot use, and expect no full batches.",
    SPREAD: "It has to run whatever the seed is.",
    WEIGHTS: "Lower the learning rate if they grew without end; put back modules that you replaced.",
}
IN_TIME = "Look for a loop without end, or do less."


def validate(path: Path) -> list[Check]:
    """Check an entry file; the result holds every check of `NAMES`, in that order."""
    try:
        source = contract.read_source(path)
        tree = ast.parse(source, filename=path.name)
    except EntryError as error:
        checks = [Check(READABLE, False, str(error))]
    except (SyntaxError, ValueError) as error:  # ValueError: a null byte
        checks = [Check(READABLE, False, f"{error}. Correct it; 'python {path}' shows the place.")]
    else:
        checks = [Check(READABLE, True), *_checks_of_text(tree), *_checks_of_runs(path, source)]
    broken = next((check.name for check in reversed(checks) if not check.passed), "")
    not_run = f"not run: the check {broken!r} has to pass first."
    done = {check.name: check for check in checks}
    return [done.get(name, Check(name, False, not_run)) for name in NAMES]


def observe(net: nn.Module, *loaders: DataLoader, entry: str, folder: str, as_tuples: bool) -> None:
    """Load an entry and call it in an empty working directory; note in `folder` what it does.

    The empty file ``loaded`` appears once the entry is loaded, ``seen.json`` once it has returned.
    """
    working_directory = Path(folder) / "cwd"
    working_directory.mkdir()
    os.chdir(working_directory)
    unlearning = contract.load_entry(entry)
    (Path(folder) / "loaded").touch()
    if as_tuples:
        loaders = [DataLoader(_Tuples(old.dataset), old.batch_size, shuffle=True) for old in loaders]
    before = _weights_hash(net)
    unlearning(net, *loaders)
    seen = {
        "train_mode": [name or "the net" for name, module in net.named_modules() if module.training],
        "before": before,
        "after": _weights_hash(net),
        "files": sorted(path.name for path in working_directory.iterdir()),
    }
    (Path(folder) / "seen.json").write_text(json.dumps(seen))


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


def _checks_of_text(tree: ast.Module) -> list[Check]:
    foreign, own = [], []
    for line, module in _imports(tree):
        name = module.partition(".")[0]
        if not name or name in REPOSITORY:
            own.append(f"line {line} imports {name or 'its neighbours'}")
        elif name not in PACKAGES and name not in sys.stdlib_module_names:
            foreign.append(f"line {line} imports {name}")
    seeds = [f"line {line} calls {name}" for line, name in _calls(tree) if name in GLOBAL_SEEDS]
    return [
        _check(IMPORTS, foreign, "Write what you need from it into the file, or do without."),
        _check(SELF_CONTAINED, own, "Copy what you need into the file: it is pasted into a notebook alone."),
        _check(NO_SEED, seeds, "Delete it: every run has a seed of its own, and equal models score nothing."),
    ]


def _imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Give line and name of every imported module; the name of a relative import is empty."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "" if node.level else node.module


def _calls(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Give line and name of every called function, in full where the name was imported."""
    full = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            full |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            full |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            first, dot, rest = ast.unparse(node.func).partition(".")
            yield node.lineno, full.get(first, first) + dot + rest


def _checks_of_runs(path: Path, source: str) -> list[Check]:
    """Run the entry once; if that goes well, run it in every other way too. Stops at the first hurdle."""
    with tempfile.TemporaryDirectory(prefix="validate-") as root:
        bench = _Bench(Path(root).resolve(), contract.entry_name(path), source)
        (first,) = bench.run([FIRST])
        checks = _checks_of_first_run(first)
        if first.failure is None:
            outcomes = bench.run(list(FURTHER.values()))
            checks += [_ran(name, outcome) for name, outcome in zip(FURTHER, outcomes, strict=True)]
            second = outcomes[-1]
            if second.failure is None and second.after == first.after:
                remedy = "Draw something at random and set no seed: equal models score nothing."
                checks[-1] = _check(SPREAD, ["two seeds gave the same weights"], remedy)
    return checks


def _checks_of_first_run(first: _Outcome) -> list[Check]:
    if not first.loaded:
        return [_ran(SIGNATURE, first)]
    checks = [Check(SIGNATURE, True)]
    if not first.returned:
        return [*checks, _ran(DICTS, first)]
    in_train_mode = [f"{name} is in train mode" for name in first.train_mode[:1]]
    written = [f"it wrote {name}" for name in first.files]
    unchanged = ["the weights are what they were"] if first.before == first.after else []
    return [
        *checks,
        Check(DICTS, True),
        _check(EVAL_MODE, in_train_mode, "End unlearning() with net.eval()."),
        _check(NO_FILES, written, "Keep it in memory: only the models are handed in."),
        _check(CHANGED, unchanged, "Change the net in place: what unlearning() returns is ignored."),
        _ran(WEIGHTS, first),
    ]


def _check(name: str, findings: Sequence[str], remedy: str) -> Check:
    if not findings:
        return Check(name, True)
    text = "; ".join(findings)
    return Check(name, False, f"{text[0].upper()}{text[1:]}. {remedy}")


def _ran(name: str, outcome: _Outcome) -> Check:
    """Check that a trial has a result."""
    if outcome.failure is None:
        return Check(name, True)
    if outcome.failure.kind == "time-out":
        finding = f"it had not ended after {SECONDS:.0f} s, where an ordinary entry needs one or two"
        return _check(name, [finding], IN_TIME)
    where = f" (line {outcome.line})" if outcome.line else ""
    return _check(name, [outcome.failure.reason.rstrip(".") + where], REMEDIES[name])


class _Bench:
    """A temporary run folder with tiny data, where trials of one entry are run."""

    def __init__(self, root: Path, name: str, source: str):
        self._root = root
        self._folder = RunFolder(root / "run")
        self._name = name
        self._entry = self._folder.keep_entry(source, contract.source_hash(source))

    def run(self, trials: Sequence[_Trial]) -> list[_Outcome]:
        """Run the entry in every trial."""
        places = [Path(tempfile.mkdtemp(dir=self._root)) for _ in trials]
        jobs = [self._job(trial, place) for trial, place in zip(trials, places, strict=True)]
        self._have_done(list(dict.fromkeys(job.original_job for job in jobs)))
        failures = self._have_done(jobs)
        return [self._outcome(job, place, failures.get(job)) for job, place in zip(jobs, places, strict=True)]

    def _have_done(self, jobs: Sequence[Job]) -> dict[Job, Failure]:
        progress = pool.Progress(len(jobs), 0, WORKERS, show=False)
        with LocalEngine(self._folder, "cpu", WORKERS) as engine:
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
        nothing = {"train_mode": [], "before": "", "after": "", "files": []}
        seen = json.loads((place / "seen.json").read_text()) if returned else nothing
        log = self._folder.log_path(job.key).read_text(errors="replace")
        lines = re.findall(rf'{self._entry.name}", line (\d+)', log if failure else "")
        return _Outcome(
            loaded=(place / "loaded").is_file(),
            returned=returned,
            failure=failure,
            line=int(lines[-1]) if lines else None,
            **seen,
        )


def _write_data(trial: _Trial, out: Path) -> Path:
    """Write a dataset of noise, brighter for a higher class."""
    random = np.random.default_rng(0)
    split = np.repeat(list(trial.counts), list(trial.counts.values()))
    n = len(split)
    labels = random.permutation(np.arange(n) % trial.n_classes)
    light = 40 + 140 * labels / trial.n_classes
    images = random.normal(light[:, None, None, None], 40, (n, 3, 32, 32)).clip(0, 255).astype(np.uint8)
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
