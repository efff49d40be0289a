"""The scorer as its users run it: commands in processes of their own, on a tiny data set."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from local_scorer import cli
from local_scorer.execution.entries import find_entry, shipped_entries, usual_entries

ROOT = Path(__file__).resolve().parents[2]
FINETUNE = ROOT / "kaggle_submission" / "finetune.py"

CONTRACT = "def unlearning(net, retain_loader, forget_loader, val_loader):\n    "

BAD_ENTRIES = {
    "raises": (
        CONTRACT + "raise KeyError('no such layer')\n",
        "[exception, run",
        "KeyError: 'no such layer'",
    ),
    "two_arguments": (
        "def unlearning(net, retain_loader):\n    pass\n",
        "[signature, run",
        "Wrong signature unlearning(net, retain_loader)",
    ),
    "no_function": ("def forget(net):\n    pass\n", "[signature, run", "defines no function unlearning("),
    "syntax_error": ("def unlearning(net:\n", "[exception, run", "SyntaxError"),
    "missing_package": ("import no_such_package\n", "[exception, run", "No module named 'no_such_package'"),
    "nan_weights": (
        CONTRACT + "net.fc.weight.data.fill_(float('nan'))\n",
        "[weights, run",
        "Weight 'fc.weight' is not finite",
    ),
    "other_shape": (
        "import torch\n" + CONTRACT + "net.fc = torch.nn.Linear(128, 3)\n",
        "[weights, run",
        "Weight 'fc.weight' has shape [3, 128] instead of [8, 128].",
    ),
    "lost_layer": (
        "import torch\n" + CONTRACT + "net.fc = torch.nn.Identity()\n",
        "[weights, run",
        "The model lost its weight 'fc.weight'",
    ),
    "out_of_memory": (
        "import torch\n" + CONTRACT + "torch.zeros(10**13)\n",
        "[memory, run",
        "Out of memory",
    ),
    "unprintable": (
        "class Odd(Exception):\n    def __str__(self):\n        raise ValueError\n" + CONTRACT + "raise Odd\n",
        "[exception, run",
        "Odd: (no message)",
    ),
    "coroutine": ("async " + CONTRACT + "pass\n", "[signature, run", "calling it runs nothing"),
    "exits": (
        "import os\n" + CONTRACT + "os._exit(0)\n",
        "[exception, run",
        "The process ended (exit code 0) before unlearning() returned.",
    ),
    "sys_exit": (
        "import sys\n" + CONTRACT + "sys.exit('enough')\n",
        "[exception, run",
        "SystemExit: enough",
    ),
    "killed": (
        "import os, signal\n" + CONTRACT + "os.kill(os.getpid(), signal.SIGKILL)\n",
        "[killed, run",
        "killed from outside, or the system ran out of memory",
    ),
}

ENDLESS = """
import subprocess, sys
def unlearning(net, retain_loader, forget_loader, val_loader):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)  # endless-entry"])
    while True:
        pass
"""

# Everything that must not reach another run: flags, modules, globals, patched functions, loader state.
VANDAL = """
import random, numpy, torch, torch.nn.functional
def unlearning(net, retain_loader, forget_loader, val_loader):
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0); numpy.random.seed(0); random.seed(0)
    torch.nn.functional.cross_entropy = None
    torch.Tensor.argmax = None
    numpy.savez_compressed = None
    retain_loader.dataset.images.zero_()
    for batch in retain_loader:
        batch["image"].zero_()
    net.fc.register_forward_hook(lambda module, inputs, output: output * 0)
    net.forward = lambda images: None
    net.requires_grad_(False)
    net.train()
"""

# Models that are fine, from entries that leave a mess behind.
MESSY = {
    "leaves_a_child": (
        "import subprocess, sys\n" + CONTRACT + "subprocess.Popen([sys.executable, '-c', "
        "'import time; time.sleep(1000)  # left-behind'])\n"
    ),
    "closes_stdout": "import sys\n" + CONTRACT + "sys.stdout.close()\n",
    "changes_folder": "import os\n" + CONTRACT + "os.chdir('/')\n",
}

# Leaves the original as it is: its row must be equal to the row 'no unlearning'.
NOTHING = CONTRACT + "pass\n"


def command(*arguments):
    return [sys.executable, "-m", "local_scorer", *map(str, arguments)]


def run(*arguments, **options):
    return subprocess.run(
        command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=300, check=False, **options
    )


@pytest.fixture
def here(capsys):
    """Return a function that does what `run` does, in this process."""

    def here(*arguments):
        capsys.readouterr()
        try:
            code = cli.main(list(map(str, arguments)))
        except SystemExit as end:
            code = end.code
        return SimpleNamespace(returncode=code, **capsys.readouterr()._asdict())

    return here


def rows_of(out):
    return {row["entry"]: row for row in json.loads((out / "leaderboard.json").read_text())["rows"]}


def arrays_of(out):
    """Return every stored array of a run except times and environment, by job key."""
    arrays = {}
    for path in (out / "jobs").glob("*.npz"):
        with np.load(path) as stored:
            arrays[path.stem] = {
                name: stored[name] for name in stored.files if "seconds" not in name and name != "header"
            }
    return arrays


def assert_same_results(one, other):
    assert one.keys() == other.keys()
    for key, stored in one.items():
        for name, values in stored.items():
            np.testing.assert_array_equal(values, other[key][name], err_msg=f"{key} {name}")


@pytest.fixture(scope="module")
def finished(tiny_data, tmp_path_factory):
    """A whole run of one good entry, two strange ones, and its output folder."""
    folder = tmp_path_factory.mktemp("entries")
    (folder / "vandal.py").write_text(VANDAL)
    (folder / "nothing.py").write_text(NOTHING)
    out = tmp_path_factory.mktemp("run")
    entries = [FINETUNE, folder / "vandal.py", folder / "nothing.py"]
    done = run("leaderboard", *entries, "--data", tiny_data, "--models", 3, "--out", out)
    assert "Written:" in done.stdout, done.stderr
    return out, done


def test_leaderboard_has_every_row_and_field(finished):
    out, done = finished
    board = json.loads((out / "leaderboard.json").read_text())
    assert {"schema", "data", "rules", "n_models", "provenance", "rows"} <= board.keys()
    rows = rows_of(out)
    assert rows.keys() == {"no unlearning", "retrained", "finetune", "vandal", "nothing"}
    for row in rows.values():
        assert row["status"] in ("scored", "rejected"), row
        assert row["n_models"] == 3
    assert rows["retrained"]["share_of_ceiling"] == 1
    assert rows["no unlearning"]["score"] == 0
    assert "of the retrained models above theirs" in done.stdout
    assert "N=3 is too few to rank good entries" in done.stdout
    assert (out / "leaderboard.csv").read_text().startswith("entry,status,reason,score,")


def test_what_an_entry_changes_reaches_no_other_run(finished):
    """The vandal's checkpoint is the original's weights, so its arrays are those of doing nothing."""
    out, _ = finished
    rows = rows_of(out)
    for field in ("forgetting_quality", "retain_accuracy", "forget_accuracy", "test_accuracy"):
        assert rows["vandal"][field] == rows["nothing"][field] == rows["no unlearning"][field], field


def test_second_run_reuses_everything(finished, tiny_data, here):
    out, _ = finished
    before = {path: path.stat().st_mtime_ns for path in (out / "jobs").glob("*.npz")}
    again = here("leaderboard", FINETUNE, "--data", tiny_data, "--models", 3, "--out", out)
    assert "Written:" in again.out, again.err
    assert {path: path.stat().st_mtime_ns for path in (out / "jobs").glob("*.npz")} == before


def test_report_needs_neither_torch_nor_data(finished, tmp_path):
    """A torch that cannot be imported stands in for a machine without torch."""
    out, _ = finished
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')\n")
    done = run("report", out, "--rules", "notebook", env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert "notebook rules" in " ".join(done.stdout.split()), done.stderr
    assert json.loads((out / "leaderboard-notebook.json").read_text())["rules"] == "notebook"
    assert json.loads((out / "leaderboard.json").read_text())["rules"] == "official"  # the run's own table stays


def test_ls_names_the_run(finished, here):
    out, _ = finished
    done = here("ls", out)
    assert "N=3" in done.out
    assert "finetune" in done.out


def test_score_adds_to_the_board_and_never_replaces_it(finished, tiny_data, tmp_path, here):
    out, _ = finished
    entry = tmp_path / "mine.py"
    entry.write_text("def unlearning(net, retain_loader, forget_loader, val_loader):\n    net.eval()\n")
    before = rows_of(out)
    options = ("--data", tiny_data, "--out", out)
    done = here("score", entry, "--models", 3, *options)
    assert done.returncode in (0, 3), done.err
    rows = rows_of(out)
    assert rows.keys() == {*before, "mine"}
    mine = rows["mine"]  # training is so short here that even this is near the time limit
    assert mine["status"] == "rejected" or "Score 0: all its runs give the same answers" in mine["reason"]
    done = here("score", entry, "--models", 4, *options)
    assert done.returncode == 1
    assert f"The board in {out} is of --models 3 and not 4." in done.err
    assert rows_of(out) == rows


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("absent.py", "There is no entry file absent.py"), ("gisaa", "Do you mean gisa?"), (".", "is not an entry")],
)
def test_an_entry_that_is_not_there_is_refused_before_anything_starts(tmp_path, name, sentence, here):
    done = here("score", name, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert sentence in done.err
    assert not (tmp_path / "out").exists()


def test_an_entry_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_entry("finetune") == FINETUNE
    (tmp_path / "__init__.py").touch()
    with pytest.raises(ValueError, match="is not an entry"):
        find_entry("__init__.py")


def test_a_board_for_which_no_entry_is_named_is_of_shipped_entries():
    assert set(usual_entries()) < set(shipped_entries())


def test_failing_entries_become_rows(finished, tiny_data, tmp_path, here):
    """Every kind of failure gets a row with its reason; the others go on; the exit code tells."""
    out, _ = finished
    entries = []
    for name, (source, _, _) in BAD_ENTRIES.items():
        entries.append(tmp_path / f"{name}.py")
        entries[-1].write_text(source)
    (tmp_path / "endless.py").write_text(ENDLESS)
    entries += [tmp_path / "endless.py", FINETUNE]
    done = here("leaderboard", *entries, "--data", tiny_data, "--models", 3, "--out", out)
    assert done.returncode == 3, done.err
    rows = rows_of(out)
    for name, (_, kind, reason) in BAD_ENTRIES.items():
        assert rows[name]["status"] == "failed", name
        assert kind in rows[name]["reason"], rows[name]
        assert reason in rows[name]["reason"], rows[name]
        assert rows[name]["score"] is None
    assert rows["endless"]["status"] == "rejected"
    assert "Stopped in run" in rows["endless"]["reason"]
    assert rows["endless"]["time_ratio"] > 0.2
    assert rows["finetune"]["n_models"] == 3
    assert "KeyError: 'no such layer'" in done.out
    assert "endless-entry" not in processes()


def test_what_an_entry_leaves_behind_is_cleared_and_does_not_cost_its_models(finished, tiny_data, tmp_path, here):
    """The run folder is relative here, as the default is."""
    out, _ = finished
    for name, source in MESSY.items():
        (tmp_path / f"{name}.py").write_text(source)
    entries = [tmp_path / f"{name}.py" for name in MESSY]
    done = here("leaderboard", *entries, "--data", tiny_data, "--models", 3, "--out", os.path.relpath(out))
    rows = rows_of(out)
    assert {name: rows[name]["n_models"] for name in MESSY} == dict.fromkeys(MESSY, 3), done.out
    assert {rows[name]["status"] for name in MESSY} <= {"scored", "rejected"}  # so short a training leaves no time
    assert "left-behind" not in processes()


def test_data_that_was_changed_are_not_scored_from_the_cache(finished, tiny_data, tmp_path, here):
    out, _ = finished
    changed = tmp_path / "changed"
    shutil.copytree(tiny_data, changed)
    images = np.load(changed / "images.npy")
    np.save(changed / "images.npy", 255 - images)
    done = here("leaderboard", FINETUNE, "--data", changed, "--models", 3, "--out", out)
    assert done.returncode == 1
    assert done.err.startswith(f"error: {changed / 'images.npy'} is not what its manifest.json says")


def test_damaged_weights_of_the_original_are_made_again(finished, tiny_data, tmp_path, here):
    reference, _ = finished
    out = tmp_path / "run"
    shutil.copytree(reference, out)
    (weights,) = (out / "weights").glob("*.pt")
    before = weights.read_bytes()
    weights.write_bytes(before[:1000])
    done = here("leaderboard", FINETUNE, "--data", tiny_data, "--models", 3, "--out", out)
    assert "Written:" in done.out, done.err
    assert len(weights.read_bytes()) == len(before)


def test_killed_run_goes_on_and_ends_with_equal_results(finished, tiny_data, tmp_path):
    """After kill -9 nothing is left running, and the same command ends as if nothing had happened."""
    reference, _ = finished
    arguments = ["leaderboard", FINETUNE, "--data", tiny_data, "--models", "3", "--out", tmp_path]
    process = subprocess.Popen(command(*arguments), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(lambda: len(list(tmp_path.glob("jobs/*.npz"))) >= 2)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=120)
    half = arrays_of(tmp_path)
    assert 2 <= len(half) < 10
    wait_for(lambda: str(tmp_path) not in processes())
    done = run(*arguments)
    assert "Written:" in done.stdout, done.stderr
    whole = arrays_of(tmp_path)
    assert len(whole) == 10
    expected = {key: stored for key, stored in arrays_of(reference).items() if key in whole}
    assert_same_results(whole, expected)
    assert not [path for path in (tmp_path / "work").iterdir() if path.is_dir()]


def test_ctrl_c_leaves_finished_jobs_and_a_sentence(tiny_data, tmp_path):
    arguments = ["leaderboard", FINETUNE, "--data", tiny_data, "--models", "3", "--out", tmp_path]
    process = subprocess.Popen(
        command(*arguments), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a shell's "&" turns it off
    )  # fmt: skip
    wait_for(lambda: len(list(tmp_path.glob("jobs/*.npz"))) >= 1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "Finished jobs are kept: run the same command again to go on." in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(("finished_before", "gap"), [(0, 0.0), (0, 0.1), (1, 0.03)])
def test_ctrl_c_twice_ends_everything_at_once(tiny_data, tmp_path, finished_before, gap):
    """In the middle of a training, or while the first children start; no gap at all may count as one signal."""
    arguments = ["leaderboard", FINETUNE, "--data", tiny_data, "--models", "3", "--out", tmp_path]
    process = subprocess.Popen(
        command(*arguments), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a shell's "&" turns it off
    )  # fmt: skip
    wait_for(lambda: (tmp_path / "work").is_dir() and len(list(tmp_path.glob("jobs/*.npz"))) >= finished_before)
    process.send_signal(signal.SIGINT)
    time.sleep(gap)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode in (130, -signal.SIGINT), errors  # a shell reports both as 130
    assert "Finished jobs are kept" in errors
    assert "Traceback" not in errors
    wait_for(lambda: str(tmp_path) not in processes())


def test_two_runs_on_one_folder_at_once_agree(finished, tiny_data, tmp_path):
    reference, _ = finished
    arguments = ["leaderboard", FINETUNE, "--data", tiny_data, "--models", "3", "--out", tmp_path]
    processes_at_once = [
        subprocess.Popen(command(*arguments), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in processes_at_once:
        output, errors = process.communicate(timeout=300)
        assert "Written:" in output, errors
    whole = arrays_of(tmp_path)
    assert len(whole) == 10
    assert_same_results(whole, {key: stored for key, stored in arrays_of(reference).items() if key in whole})


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--models", "2"], "error: --models must be at least 3, found 2: fewer show no spread.\n"),
        (["--width", "17"], "error: --width must be one of 16, 32, 64, found 17.\n"),
        (["--recipe", "slow"], "error: Unknown recipe 'slow': expected one of competition, report, quick.\n"),
        (["--workers", "-1"], "error: --workers must be from 0 to 1,024, found -1.\n"),
        (["--models", "1000000"], "error: --models must be from 1 to 10,000, found 1000000.\n"),
        (["--seed", "-1"], "error: --seed must be from 0 to 4,294,967,295, found -1.\n"),
        (
            ["--size", "64"],
            "error: --size is of the built-in set; the pictures in --data have a size of their own.\n",
        ),
        (["ssd", "--preset", "slow"], "error: There is no preset 'slow': expected tuned.\n"),
        (
            ["--all", "finetune"],
            "error: --all scores every entry of kaggle_submission: give no others with it.\n",
        ),
    ],
)
def test_wrong_settings_get_one_sentence(tiny_data, tmp_path, arguments, sentence, here):
    done = here("leaderboard", "--data", tiny_data, "--out", tmp_path, *arguments)
    assert done.returncode == 2
    assert done.err == sentence


def test_missing_data_and_missing_run_get_one_sentence(tmp_path, here):
    done = here("leaderboard", "--data", tmp_path / "none", "--out", tmp_path / "out")
    assert done.returncode == 1
    missing = f"error: {tmp_path / 'none'} is not a prepared dataset: it has no manifest.json."
    assert done.err.startswith(missing)
    done = here("report", tmp_path)
    assert done.returncode == 1
    assert done.err.startswith(f"error: {tmp_path} holds no run: it has no run.json.")


def wait_for(condition, seconds=240):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def processes():
    """Return the command lines and working logs of all processes, as one text."""
    lines = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            lines.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            lines.append(str((folder / "fd" / "1").readlink()))
        except OSError:
            continue
    return "\n".join(lines)
