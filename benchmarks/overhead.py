"""Where the CPU seconds of a run go that are not the entry's: one that does nothing, on the built-in set.

    python -m benchmarks.overhead --models 16

As in the engine, each run of the entry has a process of its own and a keeper, and one more process evaluates all
checkpoints. They begin as forks of this process, as those of the engine do of its fork server, and call what a
real run calls. The functions below are timed on the way, each without those that it calls; the rest is starts and
ends of processes, and the memory that a fork copies.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import resource
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import torch

import data_prep.dataset
from data_prep.sources import synthetic
from local_scorer.execution import checkpoint, child, contract, keeper, sandbox, steps
from local_scorer.execution.job import Job
from local_scorer.models import nets, timing
from local_scorer.models.recipes import RECIPES, WIDTHS
from local_scorer.runs import store
from local_scorer.runs.store import RunFolder
from studies import frame

NOTHING = "def unlearning(net, retain_loader, forget_loader, val_loader):\n    pass\n"
COLUMNS = ("process", "part", "cpu_ms")
FORWARD = "forward passes"
TIMED: list[tuple[ModuleType | type, str, str]] = [  # where a function is looked up, its name, what it does
    (keeper, "keep", "keep watch"),
    (sandbox, "enter_process_space", "isolate"),
    (sandbox, "confine", "isolate"),
    (steps, "open_data", "open the data"),
    (contract, "import_packages", "import the entry's packages"),
    (nets, "empty_net", "build the net"),
    (checkpoint, "read_state_dict", "read the weights"),
    (checkpoint, "load_into", "check and load the weights"),
    (timing, "warm_up", "warm up"),
    (steps, "loaders", "make the loaders"),
    (contract, "load_entry", "load the entry"),
    (torch, "save", "save the checkpoint"),
    (nets, "predict_logits", FORWARD),
    (RunFolder, "save_result", "write the result"),
]

FORK = multiprocessing.get_context("fork")
Seconds = dict[tuple[str, str], float]  # by step and part


def main() -> None:
    """Run an entry that does nothing N times, and print the mean of each part."""
    parser = frame.parser("benchmarks.overhead", __doc__, "speed-overhead")
    parser.add_argument("--models", type=int, default=16, help="N, runs of the entry")
    parser.add_argument("--width", type=int, default=16, choices=WIDTHS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    isolation = sandbox.probe()
    with tempfile.TemporaryDirectory() as scratch:
        found = measured(Path(scratch), args.models, args.width)
    rows = [[step, part, 1000 * seconds / args.models] for (step, part), seconds in found.items()]
    rows.append(["both", f"all but {FORWARD}", sum(row[2] for row in rows if row[1] != FORWARD)])
    notes = [f"Milliseconds of CPU a run (mean), width {args.width}. {isolation.files}; {isolation.processes}."]
    frame.publish("benchmarks.overhead", args.results, COLUMNS, rows, args.models, notes)


def measured(scratch: Path, n_models: int, width: int) -> Seconds:
    """Return the CPU seconds of each part of all runs together."""
    data = data_prep.dataset.load(synthetic.prepare(scratch / "data"))
    folder = RunFolder(scratch / "run")
    original = Job(
        "original", 0, str(data.folder), data.fingerprint, RECIPES["quick"], width, seed=0, device="cpu"
    )
    weights = nets.fresh_net(data.n_classes, width, seed=0).state_dict()
    steps.save_weights(weights, folder.weights_path(original.key))
    digest = contract.source_hash(NOTHING)
    folder.keep_entry(NOTHING, digest)
    entry = replace(original, role="unlearned", entry="nothing", entry_hash=digest)
    jobs = [replace(entry, index=index) for index in range(n_models)]
    tasks = [(job, folder.new_work_folder(job.key)) for job in jobs]
    found = {**_measured("unlearn", tasks, folder), **_measured("evaluate", tasks, folder)}
    for job in jobs:
        if not job.is_done(folder):
            raise RuntimeError(f"A run failed:\n{folder.log_path(job.key).read_text()}")
    return found


def _measured(step: str, tasks: list[tuple[Job, Path]], folder: RunFolder) -> Seconds:
    """Do one step of all runs and return the seconds of its parts."""
    header = {"workers": 1, "sandbox": "auto", "environment": store.environment()}
    before, notes = _spent(), os.memfd_create("notes")
    ours, theirs = FORK.Pipe()
    process = None
    for job, work in tasks:
        if step == "evaluate" and process is not None:
            ours.send((job, work))
        else:
            arguments = (notes, step, job, folder, "cpu", dict(header), work, theirs)
            process = FORK.Process(target=_timed_step, args=arguments)
            process.start()
        if step == "unlearn":
            process.join()
        elif os.read(ours.fileno(), 100) != b"done\n":
            raise RuntimeError(f"An evaluation failed:\n{folder.log_path(job.key).read_text()}")
    process.kill()
    process.join()
    spent = _spent() - before
    found: Seconds = defaultdict(float)
    with os.fdopen(notes, "r", encoding="utf-8") as file:
        file.seek(0)
        for part, seconds in (line.split("\t") for line in file):
            found[step, part] += float(seconds)
    return {**found, (step, "the rest"): spent - sum(found.values())}


def _timed_step(notes: int, *arguments: object) -> None:
    """Run one step in this process, with the functions in `TIMED` timed."""
    inner = [0.0]  # seconds of timed functions inside the one that runs, for each that runs
    for place, name, part in TIMED:
        setattr(place, name, _timed(getattr(place, name), part, notes, inner))
    child.run_step(*arguments)


def _timed(function: Callable[..., object], part: str, notes: int, inner: list[float]) -> Callable[..., object]:
    """Return a function that does the same and notes the CPU seconds that it took in this process."""

    @functools.wraps(function)
    def timed(*arguments: object, **named: object) -> object:
        inner.append(0.0)
        begin = time.process_time()
        try:
            return function(*arguments, **named)
        finally:
            taken = time.process_time() - begin
            inside = inner.pop()
            inner[-1] += taken
            os.write(notes, f"{part}\t{taken - inside}\n".encode())

    return timed


def _spent() -> float:
    """Return the CPU seconds of this process and of all that ended below it."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in usage)


if __name__ == "__main__":
    frame.exit_with(main)
