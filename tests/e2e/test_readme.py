"""The README's example is an entry: it passes validate and is scored inside the time limit."""

import json
import re
from pathlib import Path

import pytest

from local_scorer import cli
from tests.helpers.entries import use_small_nets

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    path = tmp_path_factory.mktemp("example") / "my_entry.py"
    path.write_text(code)
    return path


def test_is_short():
    assert len(README.read_text().split()) <= 900


def test_example_passes_validate(example, monkeypatch):
    use_small_nets(monkeypatch)
    assert cli.main(["validate", str(example)]) == 0


def test_example_is_scored_inside_the_limit(example, tiny_data, tmp_path):
    """The longest recipe: on tiny data what every run costs at least is a large share of a short training."""
    options = ["--data", str(tiny_data), "--models", "3", "--recipe", "report", "--out", str(tmp_path)]
    assert cli.main(["score", str(example), *options]) == 0
    rows = {row["entry"]: row for row in json.loads((tmp_path / "leaderboard.json").read_text())["rows"]}
    assert rows["my_entry"]["status"] == "scored"
    assert rows["my_entry"]["time_ratio"] < 0.2
