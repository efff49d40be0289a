"""Entries that cheat the clock, reach for what is not theirs, or leave something behind.

``tests/e2e/test_hostile.py`` runs each of them once, ``studies/hostile.py`` many times.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from data_prep import dataset
from local_scorer.execution import contract, sandbox
from local_scorer.execution.job import Job
from local_scorer.execution.local import LocalEngine
from local_scorer.models.recipes import Recipe
from local_scorer.runs.store import Failure, RunFolder

A_MOMENT = Recipe("a moment", "adam", lr=1e-3, weight_decay=0.0, epochs=1)
WORK = 0.5  # CPU seconds that each cheat spends where it hopes that nobody looks

PREAMBLE = f"""
import atexit, os, shutil, signal, subprocess, sys, threading, time
import torch
def work(seconds={WORK}):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
"""

# Work that must be on the clock, wherever it is done; all of these are scored.
WORKERS = {
    "plain": "work()",
    "thread": "thread = threading.Thread(target=work); thread.start(); thread.join()",
    "child": "if os.fork() == 0:\n    work(); os._exit(0)\nos.wait()",
    "orphan": """
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                work(); open("done", "w").close(); time.sleep(1000)  # left behind
            os._exit(0)
        while not os.path.exists("done"):
            time.sleep(0.01)
    """,
    "state_dict": "usual = net.state_dict\nnet.state_dict = lambda *a, **k: (work(), usual(*a, **k))[1]",
    "os_times": "usual = os.times(); os.times = lambda: usual; time.process_time = lambda: 0.0; work()",
    "synchronize": "torch.cuda.synchronize = None; work()",
    "at_load": "pass",  # at the top of its file, see below
}

# The clock of the entry's own process made to lie; none of these has a result.
LIARS = {
    "stopped": "time.perf_counter = lambda: 0.0; work()",
    "ahead": "late = time.perf_counter() + 1e6; time.perf_counter = lambda: late",
    "not_a_number": "time.perf_counter = lambda: float('nan')",
    "text": "time.perf_counter = lambda: 'now'",
}

# These take nothing but their own time; RUN stands for the run folder.
HARMLESS = {
    "rmtree": "shutil.rmtree(RUN, ignore_errors=True)",
    "overwrite": """
        for folder, _, files in os.walk(RUN):
            for name in files:
                try:
                    open(os.path.join(folder, name), "w").close()
                except OSError:
                    pass
    """,
    "leaves_exit_handler": "atexit.register(work, 1000)",
    "leaves_thread": "threading.Thread(target=work, args=(1000,)).start()",
    "leaves_session": """
        sleep = [sys.executable, "-c", "import time; time.sleep(1000)"]
        subprocess.Popen(sleep, start_new_session=True)
    """,
    "kills_parent": "try:\n    os.kill(os.getppid(), signal.SIGKILL)\nexcept PermissionError:\n    pass",
}

# These fail, by themselves alone.
FAILING = {
    "reads_results": "print(os.listdir(os.path.join(RUN, 'jobs')))",
    "follows_its_path": "print(os.listdir(os.path.join(os.path.dirname(__file__), '../../../jobs')))",
    "net_is_a_link": "os.symlink('/dev/zero', 'net.pt'); time.sleep(0.1)",
    "long_message": "raise ValueError('x' * 40_000_000)",
    "flood_of_processes": "for child in range(1000):\n    if os.fork() == 0:\n        time.sleep(1000)",
}
NEEDS_LANDLOCK = {"rmtree", "overwrite", "reads_results", "follows_its_path", "net_is_a_link", "kills_parent"}


def source_of(name: str, body: str, run: Path) -> str:
    """Return the text of an entry; `run` is the run folder that it knows."""
    body = textwrap.indent(textwrap.dedent(body).strip().replace("RUN", repr(str(run))), "    ")
    top = "work()\n" if name == "at_load" else ""
    return f"{PREAMBLE}{top}def unlearning(net, retain_loader, forget_loader, val_loader):\n{body}\n"


def outcomes(folder: RunFolder, jobs: Sequence[Job], workers: int = 2) -> dict[Job, Failure | None]:
    """Do the jobs, so many at a time."""
    found: dict[Job, Failure | None] = {}
    with LocalEngine(folder, workers=workers) as engine:
        for job in jobs:
            engine.submit(job, 100.0)
        while len(found) < len(jobs):
            found |= dict(engine.wait(timeout=10.0))
    return found


def plan(folder: RunFolder, data: Path) -> tuple[Job, dict[str, Job]]:
    """Return the job that trains the original, and one for each entry that this system can hold."""
    base = Job("original", 0, str(data), dataset.load(data).fingerprint, A_MOMENT, 16, 0, "cpu")
    jobs = {}
    for name, body in {**WORKERS, **LIARS, **HARMLESS, **FAILING}.items():
        if name in NEEDS_LANDLOCK and not sandbox.landlock_version():
            continue
        source = source_of(name, body, folder.root)
        digest = contract.source_hash(source)
        folder.keep_entry(source, digest)
        jobs[name] = replace(base, role="unlearned", entry=name, entry_hash=digest)
    return base, jobs


def left_behind(folder: RunFolder) -> list[Path]:
    """Return the processes that work below the run folder, and the private folders that are still there."""
    left = [path for path in (folder.root / "work").iterdir() if path.is_dir()]
    for place in Path("/proc").glob("[0-9]*/cwd"):
        try:
            left += [place] if place.readlink().is_relative_to(folder.root) else []
        except OSError:  # it has ended
            continue
    return left
