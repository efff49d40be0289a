"""The house keeps its shape: imports run one way, only the commands print, nothing happens at import."""

import ast
import graphlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCORER = ROOT / "local_scorer"
PACKAGES = ("data_prep", "kaggle_submission", "local_scorer")
OUTSIDE = ("benchmarks", "results", "studies", "tests")  # look at the packages; no package looks at them

# Each room, and the rooms that it may import; a room may import only what stands above it here.
ROOMS = {
    "data_prep": set(),
    "data_prep.sources": {"data_prep"},
    "local_scorer.metric": set(),
    "local_scorer.models": set(),
    "local_scorer.runs": {"local_scorer.metric", "local_scorer.models"},
    "local_scorer.statistics": {"local_scorer.metric"},
    "local_scorer.report": {"local_scorer.metric", "local_scorer.runs", "local_scorer.statistics", "data_prep"},
    "local_scorer.execution": {"local_scorer.metric", "local_scorer.models", "local_scorer.runs", "data_prep"},
    "local_scorer": {
        "local_scorer.execution",
        "local_scorer.metric",
        "local_scorer.models",
        "local_scorer.report",
        "local_scorer.runs",
        "data_prep",
        "data_prep.sources",
    },
}
ENTRY_ROOMS = ("kaggle_submission", "kaggle_submission.shared", "kaggle_submission.tools")
COMMANDS = {"cli", "__main__"}  # may print; no room imports them
OPEN_TO_COMMANDS = {"data_prep": {"data_prep.sources"}}  # the commands of data_prep list its sources
WITHOUT_TORCH = ("metric", "runs", "statistics", "report")


def files_of(room):
    return sorted((ROOT / room.replace(".", "/")).glob("*.py"))


def room_of(module):
    """Return the room that a dotted module name lies in: its longest prefix in the table."""
    parts = module.split(".")
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((name for name in names if name in ROOMS), None)


def own_imports(path):
    """Return the dotted names of this repository that a file imports, at any depth."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} has a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] in (*PACKAGES, *OUTSIDE)}


def modules(room):
    return [f"{room}.{path.stem}" for path in files_of(room) if path.stem not in ("__init__", "__main__")]


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
    for package in ("data_prep", "local_scorer"):
        found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / package).rglob("__init__.py")}
        assert found == {room for room in ROOMS if room.split(".")[0] == package}


def test_the_table_runs_one_way():
    above = set()
    for room, allowed in ROOMS.items():
        assert allowed <= above, f"{room} may import a room below it"
        above.add(room)


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_what_the_table_says(room):
    for path in files_of(room):
        allowed = ROOMS[room] | {room}
        if path.stem in COMMANDS:
            allowed |= OPEN_TO_COMMANDS.get(room, set())
        found = {room_of(name): name for name in own_imports(path)}
        assert found.keys() <= allowed, f"{path.relative_to(ROOT)} imports {found}"


def test_no_room_imports_the_commands():
    for room in ROOMS:
        for path in files_of(room):
            if path.stem not in COMMANDS:
                called = {name for name in own_imports(path) if name.split(".")[-1] in COMMANDS}
                assert not called, path.relative_to(ROOT)


def test_no_module_imports_in_a_circle():
    arrows = {}
    known = {module for room in ROOMS for module in modules(room)}
    for room in ROOMS:
        for path in files_of(room):
            name, imports = f"{room}.{path.stem}", own_imports(path)
            arrows[name] = {
                module for module in known for found in imports if f"{found}.".startswith(f"{module}.")
            }
    order = list(graphlib.TopologicalSorter(arrows).static_order())  # raises CycleError on a circle
    assert len(order) == len(arrows)


def test_only_the_commands_print():
    for room in ROOMS:
        if not room.startswith("local_scorer"):
            continue
        for path in files_of(room):
            if path.stem in COMMANDS:
                continue
            nodes = ast.walk(ast.parse(path.read_text()))
            called = {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}
            assert not called & {"print", "pprint", "sys.stdout.write", "sys.stderr.write"}, path.name


def test_arrays_are_scored_and_reported_without_torch(tmp_path):
    script = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "print(*{'numpy', 'torch'} & sys.modules.keys())\n"
    )
    names = [name for room in WITHOUT_TORCH for name in modules(f"local_scorer.{room}")]
    assert python(script, *names, "local_scorer.cli", cwd=tmp_path) == "numpy\n"


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
    names = [name for room in (*ROOMS, *ENTRY_ROOMS) for name in modules(room)]
    assert "local_scorer.execution.steps" in names
    printed = python(AT_IMPORT, *names, "bad", cwd=tmp_path)
    assert printed == "importing bad changes: random, torch, environment, files\n"
