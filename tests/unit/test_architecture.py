"""The house keeps its shape: imports run one way, only the commands print, nothing happens at import."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCORER = ROOT / "local_scorer"
PACKAGES = ("data_prep", "kaggle_submission", "local_scorer")

# Each room of local_scorer and what it may import from this repository; only rooms above it.
ROOMS = {
    "contract": set(),
    "attacks": set(),
    "metric": {"attacks"},
    "models": set(),
    "timing": set(),
    "store": set(),
    "submission": set(),
    "score": {"metric"},
    "intervals": {"metric", "score"},
    "comparisons": {"intervals"},
    "forecast": {"metric", "score", "intervals"},
    "audits": {"attacks", "metric", "store"},
    "reading": {"store", "score", "intervals", "comparisons", "forecast", "audits"},
    "jobs": {"contract", "models", "timing", "store", "submission", "data_prep"},
    "executor": {"contract", "store", "submission", "jobs"},
    "pool": {"store", "jobs"},
    "validate": {"contract", "models", "store", "jobs", "executor", "pool", "data_prep"},
    "report": {"store", "score", "intervals", "comparisons", "forecast", "audits", "reading"},
    "table": {"score", "report"},
    "leaderboard": {
        "contract", "models", "store", "submission", "score", "jobs", "executor", "pool", "report", "data_prep",
    },
    "plots": {"attacks", "metric"},
    "figures": {"store", "plots"},
    "markup": {"report"},
    "sections": {"attacks", "metric", "score", "report", "plots", "figures", "markup"},
    "page": {
        "store", "score", "forecast", "reading", "report", "plots", "figures", "markup", "sections", "data_prep",
    },
    "showcase": {"metric", "store", "score", "report", "plots", "data_prep"},
}  # fmt: skip
COMMANDS = {"cli", "__main__"}  # may import every room, and no room imports them
PRESENT = {path.stem for path in SCORER.glob("*.py")} - {"__init__"} - COMMANDS
WITHOUT_TORCH = ("attacks", "cli", "contract", "metric", "page", "report", "score", "showcase", "store", "table")
NEEDS_A_MODEL = "kaggle_tree"  # of data_prep: its tree holds an original model, which somebody has to train


def own_imports(path):
    """Return the rooms and packages of this repository that a file imports, at any depth."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} has a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    parts = [name.split(".") for name in names if name.split(".")[0] in PACKAGES]
    return {part[1] if part[0] == "local_scorer" else part[0] for part in parts}


def modules(package):
    return [f"{package}.{path.stem}" for path in sorted((ROOT / package).glob("*.py")) if path.stem != "__main__"]


def python(script, *arguments, cwd):
    """Run a script in a fresh process outside the repository; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_room_is_in_the_table():
    assert set(ROOMS) == PRESENT


def test_the_table_runs_one_way():
    above = {"data_prep"}
    for room, allowed in ROOMS.items():
        assert allowed <= above, f"{room} may import a room below it"
        above.add(room)


@pytest.mark.parametrize("room", sorted(PRESENT))
def test_rooms_import_what_the_table_says(room):
    assert own_imports(SCORER / f"{room}.py") <= ROOMS.get(room, set())


def test_data_prep_and_entries_do_not_know_the_scorer():
    for path in (ROOT / "data_prep").glob("*.py"):
        allowed = {"data_prep", "models"} if path.stem == NEEDS_A_MODEL else {"data_prep"}
        assert own_imports(path) <= allowed, path.name


def test_only_the_commands_print():
    for room in PRESENT:
        nodes = ast.walk(ast.parse((SCORER / f"{room}.py").read_text()))
        called = {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}
        assert not called & {"print", "pprint", "sys.stdout.write", "sys.stderr.write"}, room


def test_arrays_are_scored_and_reported_without_torch(tmp_path):
    script = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "print(*{'numpy', 'torch'} & sys.modules.keys())\n"
    )
    rooms = [f"local_scorer.{room}" for room in WITHOUT_TORCH]
    assert python(script, *rooms, cwd=tmp_path) == "numpy\n"


AT_IMPORT = """
import importlib, os, random, signal, sys, threading, warnings
import numpy, pandas, torch, torchvision, tqdm.auto
warnings.simplefilter("error")

def state():
    return {
        "random": random.getstate(),
        "numpy": str(numpy.random.get_state()),
        "torch": torch.get_rng_state().tolist(),
        "default dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "threads": (torch.get_num_threads(), threading.active_count()),
        "environment": dict(os.environ),
        "arguments": list(sys.argv),
        "signals": [signal.getsignal(number) for number in signal.valid_signals() if number < 32],
        "cuda": torch.cuda.is_initialized(),
        "files": os.listdir(),
        "printing": repr(numpy.get_printoptions()),
    }

before = state()
for name in sys.argv[1:]:
    importlib.import_module(name)
    after = state()
    changed = [what for what in before if before[what] != after[what]]
    if changed:
        print(f"importing {name} changes: {', '.join(changed)}")
"""


def test_nothing_happens_at_import(tmp_path):
    """The last module is a bad one, which shows that the look at the others would have found something."""
    (tmp_path / "bad.py").write_text(
        "import os, random, torch\n"
        "random.seed(0)\n"
        "torch.manual_seed(1)\n"
        "os.environ['X'] = '1'\n"
        "open('out', 'w').close()\n"
    )
    names = [name for package in PACKAGES for name in modules(package)]
    assert "local_scorer.jobs" in names
    printed = python(AT_IMPORT, *names, "bad", cwd=tmp_path)
    assert printed == "importing bad changes: random, torch, environment, files\n"
