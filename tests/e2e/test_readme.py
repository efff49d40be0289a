"""The README's example is an entry: it passes validate and is scored inside the time limit."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    path = tmp_path_factory.mktemp("example") / "my_entry.py"
    path.write_text(code)
    return path


def scorer(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "local_scorer", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_is_short():
    assert len(README.read_text().split()) <= 900


def test_example_passes_validate(example):
    done = scorer("validate", example)
    assert done.returncode == 0, done.stdout + done.stderr


def test_example_is_scored_inside_the_limit(example, tiny_data, tmp_path):
    done = scorer("score", example, "--data", tiny_data, "--models", 3, "--out", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row["entry"]: row for row in json.loads((tmp_path / "leaderboard.json").read_text())["rows"]}
    assert rows["my_entry"]["status"] == "scored"
    assert rows["my_entry"]["time_ratio"] < 0.2
