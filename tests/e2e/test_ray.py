"""The same run on a real Ray cluster of two nodes on this machine, of which one is killed in the middle."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
FINETUNE = ROOT / "kaggle_submission" / "finetune.py"
ENVIRONMENT = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
FAILING = """
import torch

def unlearning(net, retain_loader, forget_loader, val_loader):
    with open({log!r}, "a") as log:
        log.write(f"{{torch.initial_seed()}}\\n")
    raise KeyError("no such layer")
"""
UNSEEN = """
import sys
from local_scorer.execution import ray
from local_scorer.runs.store import RunFolder
ray._probe = lambda file, program: (None, None)  # what a node answers that does not see the file
ray.RayEngine(RunFolder(sys.argv[1]), address=sys.argv[2])
"""


class Cluster:
    """The helper process that holds the two nodes."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.ray_cluster"], cwd=ROOT, env=ENVIRONMENT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.address = self.process.stdout.readline().strip()

    def kill_a_node(self):
        print("kill", file=self.process.stdin, flush=True)
        assert self.process.stdout.readline() == "killed\n"


@pytest.fixture(scope="module")
def cluster():
    pytest.importorskip("ray")
    cluster = Cluster()
    yield cluster
    cluster.process.communicate(timeout=60)


def command(*arguments):
    return [sys.executable, "-m", "local_scorer", "leaderboard", *map(str, arguments)]


def start(*arguments):
    return subprocess.Popen(
        command(*arguments), cwd=ROOT, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a shell's "&" turns it off
    )  # fmt: skip


def finished(out):
    return len(list(out.glob("jobs/*.npz")))


def arrays_of(out):
    arrays = {}
    for path in (out / "jobs").glob("*.npz"):
        with np.load(path) as stored:
            arrays[path.stem] = {name: stored[name] for name in stored.files if "logits" in name or "conf" in name}
    return arrays


def wait_for(condition, seconds=240):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def processes():
    lines = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            lines.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            lines.append(str((folder / "fd" / "1").readlink()))
        except OSError:
            continue
    return "\n".join(lines)


def test_a_run_that_loses_a_node_ends_with_the_results_of_a_local_one(cluster, tiny_data, tmp_path):
    at_home, on_ray, log = tmp_path / "home", tmp_path / "ray", tmp_path / "log"
    failing = tmp_path / "failing.py"
    failing.write_text(FAILING.format(log=str(log)))
    options = ["--data", tiny_data, "--models", 3]
    ray = ["--engine", "ray", "--address", cluster.address, "--sandbox", "off"]  # the entry writes a log
    process = start(failing, FINETUNE, *options, "--out", on_ray, *ray)
    wait_for(lambda: finished(on_ray) >= 2 or process.poll() is not None)  # of three that come before the entries
    cluster.kill_a_node()
    _, errors = process.communicate(timeout=500)
    assert process.returncode == 3, errors
    assert "Traceback" not in errors
    rows = {row["entry"]: row for row in json.loads((on_ray / "leaderboard.json").read_text())["rows"]}
    assert "KeyError: 'no such layer'" in rows["failing"]["reason"]
    seeds = log.read_text().split()  # of the runs, each its own; the entry starts only after the node has died
    assert seeds
    assert len(set(seeds)) == len(seeds)  # a failure of an entry is no reason to try a run again
    subprocess.run(command(FINETUNE, *options, "--out", at_home), cwd=ROOT, capture_output=True, check=False)
    expected, found = arrays_of(at_home), arrays_of(on_ray)
    assert len(expected) == 10
    assert found.keys() == expected.keys()
    for key, stored in expected.items():
        for name, values in stored.items():
            np.testing.assert_array_equal(found[key][name], values, err_msg=f"{key} {name}")
    assert not [path for path in (on_ray / "work").iterdir() if path.is_dir() or path.suffix == ".json"]


def test_an_interrupt_ends_what_runs_on_the_nodes(cluster, tiny_data, tmp_path):
    ray = ["--engine", "ray", "--address", cluster.address]
    process = start(FINETUNE, "--data", tiny_data, "--models", 3, "--out", tmp_path, *ray)
    wait_for(lambda: list(tmp_path.glob("logs/*.log")) or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Finished jobs are kept" in errors
    wait_for(lambda: str(tmp_path) not in processes(), seconds=60)


def test_a_node_that_does_not_see_the_run_folder_gets_a_sentence(cluster, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", UNSEEN, tmp_path / "run", cluster.address], cwd=ROOT, env=ENVIRONMENT,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert f"does not see the run folder {tmp_path / 'run'}: name with --out a folder" in done.stderr


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (["--engine", "ray"], 1, "error: --engine ray needs Ray: pip install -r requirements-ray.txt\n"),
        (["--address", "auto"], 2, "error: --address is of a Ray cluster: give --engine ray with it.\n"),
    ],
)
def test_without_ray_a_sentence_says_what_to_install(tiny_data, tmp_path, options, code, sentence):
    """A module that cannot be imported stands in for a machine without Ray."""
    (tmp_path / "ray.py").write_text("raise ImportError('no Ray here')\n")
    done = subprocess.run(
        command("--data", tiny_data, "--out", tmp_path / "run", *options), cwd=ROOT, capture_output=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code
    assert done.stderr == sentence
