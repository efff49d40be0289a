"""Rehearsals as a competitor has them: one that passes, and one that fails for each reason."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kaggle_submission.tools import rehearse
from local_scorer.models import nets
from tests.helpers.notebooks import COPYING, STARTER, changed, notebook

ROOT = Path(__file__).resolve().parents[2]

HAS_PROC = Path("/proc/self/task").is_dir()
SHORT = ("--runs", 2, "--limit-images", 16)


def command(*arguments, timeout=1200):
    return subprocess.run(
        [sys.executable, "-m", "kaggle_submission", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=timeout,
    )  # fmt: skip


def save(path, cells):
    path.write_text(json.dumps(notebook(cells)))
    return path


def levels(output):
    """Return what each line of a rehearsal says: name -> level."""
    lines = [line.split() for line in output.splitlines()]
    return {words[1]: words[0] for words in lines if words and words[0] in ("ok", "warn", "FAIL")}


def test_the_starter_passes_as_it_is(tiny_data, tmp_path):
    path = save(tmp_path / "starter.ipynb", STARTER)
    before = path.read_bytes()
    done = command("rehearse", path, "--data", tiny_data, *SHORT, "--keep", tmp_path / "kept")
    assert done.returncode == 0, done.stdout + done.stderr
    found = levels(done.stdout)
    assert found.pop("time") in ("ok", "warn")  # on a busy machine the forecast may be in doubt
    assert found == {
        "run": "ok", "zip": "ok", "weights": "ok", "spread": "ok", "disk": "warn", "mock": "ok",
    }  # fmt: skip
    assert "changed for the rehearsal: cell 4: range(512) -> range(2)\n" in done.stdout
    assert "changed for the rehearsal: cell 4: found != 512 -> found != 2\n" in done.stdout
    assert "all finite, in float32." in done.stdout
    assert f"\nPASS: {path}, with " in done.stdout
    assert path.read_bytes() == before
    names = sorted(p.name for p in (tmp_path / "kept" / "kaggle" / "tmp").iterdir())
    assert names == ["unlearned_checkpoint_0.pth", "unlearned_checkpoint_1.pth"]
    scratch = Path(json.loads((tmp_path / "kept" / "notebook.ipynb").read_text())["cells"][2]["source"][0])
    assert scratch is not None


def test_an_entry_passes_as_the_notebook_that_is_made_of_it(tiny_data):
    done = command("rehearse", "kaggle_submission/finetune.py", "--data", tiny_data, *SHORT)
    assert done.returncode == 0, done.stdout + done.stderr
    found = levels(done.stdout)
    assert found.pop("time") in ("ok", "warn")
    assert set(found.values()) == {"ok"}
    assert "all finite, in float16." in done.stdout
    assert "\nPASS: kaggle_submission/finetune.py" in done.stdout


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """Two good checkpoints, and a function that makes a bad pair of them."""
    folder = tmp_path_factory.mktemp("ready")
    originals = [nets.fresh_net(10, 64, seed).half().state_dict() for seed in range(2)]

    def write(name, change=lambda weights: weights):
        for index, weights in enumerate(originals):
            torch.save(change(dict(weights)), folder / f"{name}_{index}.pth")
        return str(folder / name)

    return write


def findings(path, tiny_data, timeout=600.0):
    result = rehearse.rehearse(path, tiny_data, runs=2, limit_images=16, timeout=timeout)
    return result, {finding.name: finding for finding in result.findings if finding.level == "FAIL"}


FAULTS = {
    "exception": (
        [("    shutil.copy(", "    # a comment\n    1 / 0\n    shutil.copy(")],
        "exception",
        "Code cell 2 ('for i in range(2):') raised ZeroDivisionError: division by zero",
    ),
    "missing package": (
        [("import os, ", "import a_package_of_kaggle.layers\nimport os, ")],
        "package",
        "Code cell 1 ('import a_package_of_kaggle.layers') needs the package 'a_package_of_kaggle', which is",
    ),
    "time-out": (
        [("    shutil.copy(", "    time.sleep(600)\n    shutil.copy(")],
        "time-out",
        "Code cell 2 ('for i in range(2):') had not ended when the 10 s of --timeout were over.",
    ),
    "killed": (
        [("    shutil.copy(", "    os.kill(os.getpid(), signal.SIGKILL)\n    shutil.copy(")],
        "killed",
        "Code cell 2 ('for i in range(2):') ended the whole process: is the memory full?",
    ),
    "no loop": (
        [("range(512)", "(0, 1)")],
        "runs",
        "No loop over 512 runs was found. Write it as range(512), or give the number a name with RUNS.",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_it_fails_with_a_sentence_for_what_the_notebook_does_wrong(fault, ready, tiny_data, tmp_path):
    replacements, name, sentence = FAULTS[fault]
    cells = [cell.replace("READY", ready("good")) for cell in changed(COPYING, *replacements)]
    timeout = 10.0 if fault == "time-out" else 600.0
    result, failed = findings(save(tmp_path / "fault.ipynb", cells), tiny_data, timeout)
    assert not result.passed
    assert list(failed) == [name]
    assert failed[name].text.startswith(sentence)


def test_all_that_is_wrong_with_what_it_leaves_is_said_at_once(ready, tiny_data, tmp_path):
    """For bad weights, as for all that tests/unit/test_checks.py looks for, one of them is enough here."""

    def spoil(weights):
        return weights | {"fc.bias": weights["fc.bias"] / 0}

    big = ("    shutil.copy(", "    open(f'big{i}', 'wb').truncate(45 << 20)\n    shutil.copy(")
    cells = [cell.replace("READY", ready("bad", spoil)) for cell in changed(COPYING, big)]
    result, failed = findings(save(tmp_path / "faults.ipynb", cells), tiny_data)
    assert not result.passed
    sentences = {
        "weights": "unlearned_checkpoint_0.pth: Weight 'fc.bias' is not finite (NaN or infinity).",
        "disk": "512 runs would put 33.2 GiB into /kaggle/working, which holds 20, and 10.7 into /kaggle/tmp.",
    }
    assert failed.keys() == sentences.keys()
    assert all(failed[name].text.startswith(sentences[name]) for name in sentences)


def test_a_notebook_may_be_unusual_and_pass(ready, tiny_data, tmp_path):
    """Places relative to /kaggle/working, cells without metadata, text as source, a process left behind."""
    cells = [cell.replace("READY", ready("good")).replace("/kaggle/tmp/", "../tmp/") for cell in COPYING]
    cells[0] += "\nassert os.path.exists('../input/neurips-2023-machine-unlearning/retain.csv')"
    cells[2] = cells[2].replace("'submission.zip'", "'../working/submission.zip'")
    content = notebook([*cells, leaving(tmp_path)])
    content["cells"] = [
        {"cell_type": cell["cell_type"], "source": "".join(cell["source"])} for cell in content["cells"]
    ]
    del content["metadata"], content["nbformat_minor"]
    path = tmp_path / "unusual.ipynb"
    path.write_text(json.dumps(content))
    result, failed = findings(path, tiny_data)
    assert result.passed, failed
    if HAS_PROC:
        assert_ended(tmp_path)


@pytest.mark.skipif(not HAS_PROC, reason="processes are found in /proc")
def test_a_process_that_a_failing_notebook_left_behind_is_ended(ready, tiny_data, tmp_path):
    cells = [cell.replace("READY", ready("good")) for cell in COPYING]
    result, _ = findings(save(tmp_path / "leaving.ipynb", [*cells, leaving(tmp_path) + "1 / 0"]), tiny_data)
    assert not result.passed
    assert_ended(tmp_path)


def leaving(folder):
    """Return code that leaves a process in a session of its own, and its number in a file."""
    start = "subprocess.Popen(['sleep', '600'], start_new_session=True)"
    return f"import subprocess\nopen({str(folder / 'pid')!r}, 'w').write(str({start}.pid))\n"


def assert_ended(folder):
    with pytest.raises(ProcessLookupError):
        os.kill(int((folder / "pid").read_text()), 0)


@pytest.mark.parametrize(
    "cell", [{}, "x = 1", None, 3, {"cell_type": "code"}, {"source": "x"}, {"cell_type": "code", "source": 3}]
)
def test_a_cell_that_is_none_gets_a_sentence(cell, tiny_data, tmp_path):
    path = tmp_path / "odd.ipynb"
    path.write_text(json.dumps({**notebook(COPYING), "cells": [*notebook(COPYING)["cells"], cell]}))
    with pytest.raises(ValueError, match="cell 5 has no text or no type that is known"):
        rehearse.rehearse(path, tiny_data)


def test_a_notebook_that_only_holds_an_entry_is_rehearsed_as_the_notebook_made_of_it(tiny_data, tmp_path):
    entry = "def unlearning(net, retain_loader, forget_loader, val_loader):\n    raise KeyError('mine')\n"
    result, failed = findings(save(tmp_path / "mine.ipynb", [entry, "print('tried')"]), tiny_data)
    assert list(failed) == ["exception"]
    assert "raised KeyError: 'mine'" in failed["exception"].text
    assert any("RUNS = 512" in change for change in result.changes)


def test_the_command_fails_with_a_sentence(tiny_data, tmp_path):
    cells = changed(COPYING, ("shutil.copy(f'READY_{i}.pth', path)", "raise KeyError(path)"))
    path = save(tmp_path / "fault.ipynb", cells)
    done = command("rehearse", path, "--data", tiny_data, *SHORT)
    assert done.returncode == 3
    assert "KeyError: '/kaggle/tmp/unlearned_checkpoint_0.pth'\n" in done.stdout
    assert done.stdout.endswith(f"FAIL: {path} is not ready. Mend what is marked FAIL (1), then rehearse again.\n")
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("content", "options", "code", "sentence"),
    [
        (None, [], 2, "There is no entry file {path}. Give its path, or its name in kaggle_submission/."),
        ("{}", [], 1, "{path} is not a Jupyter notebook in format 4."),
        ("", [], 1, "{path} is not a Jupyter notebook (Expecting value: line 1 column 1 (char 0))."),
        ("{}", ["--runs", "1"], 2, "--runs must be from 2 to 512, found 1."),
        ("{}", ["--runs", "1000000"], 2, "--runs must be from 2 to 512, found 1000000."),
        ("{}", ["--limit-images", "7"], 2, "--limit-images must be from 8 to 1,000,000, found 7."),
    ],
)
def test_wrong_use_gets_a_sentence(content, options, code, sentence, tiny_data, tmp_path, capsys):
    from kaggle_submission.tools import cli

    path = tmp_path / "some.ipynb"
    if content is not None:
        path.write_text(content)
    assert cli.main(["rehearse", str(path), "--data", str(tiny_data), *options]) == code
    assert capsys.readouterr().err == f"error: {sentence.format(path=path)}\n"
