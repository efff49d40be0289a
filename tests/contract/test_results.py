"""Measured results are data: one file per entry and board below results/, each with what it takes to read it."""

import ast
import json
import math
from datetime import date
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENTRIES = sorted(path.stem for path in (ROOT / "kaggle_submission").glob("[!_]*.py"))
BOARDS = sorted(path.parent for path in (ROOT / "results").glob("*/board.json"))
CLAIMS = [path for board in BOARDS for path in sorted(board.glob("*.json")) if path.name != "board.json"]
REFERENCES = ("retrained", "no unlearning")


def of(path):
    return json.loads(path.read_text())


@pytest.mark.parametrize("path", [board / "board.json" for board in BOARDS] + CLAIMS, ids=lambda path: path.stem)
def test_says_how_it_was_measured(path):
    found = of(path)
    assert found["board"] == path.parent.name
    assert found["n_models"] >= 3
    assert found["command"].startswith("python -m local_scorer ")
    assert found["machine"]
    assert date.fromisoformat(found["date"])


@pytest.mark.parametrize("path", CLAIMS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_claim_is_whole(path):
    claim, board = of(path), of(path.parent / "board.json")
    assert claim["entry"].replace(" ", "_") == path.stem
    assert claim["n_models"] == board["n_models"]
    if claim["entry"] in REFERENCES:
        assert claim["source_hash"] is None
    else:
        assert len(bytes.fromhex(claim["source_hash"])) == 32
    official = claim["rules"]["official"]
    product = official["forgetting_quality"] * claim["retain_ratio"] * claim["test_ratio"]
    assert math.isclose(official["score"], product, rel_tol=0.01, abs_tol=1e-4)  # stored with four digits
    if official["score_low"] is not None:
        assert official["score_low"] <= official["score"] <= official["score_high"]


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_board_has_its_floor_and_ceiling(board):
    entries = {of(path)["entry"]: of(path) for path in CLAIMS if path.parent == board}
    assert entries["no unlearning"]["rules"]["official"]["score"] == 0.0
    assert entries["retrained"]["rules"]["official"]["share_of_ceiling"] == 1.0


@pytest.mark.parametrize("name", ENTRIES)
def test_docstring_says_where_the_results_stand(name):
    docstring = ast.get_docstring(ast.parse((ROOT / "kaggle_submission" / f"{name}.py").read_text()))
    assert docstring.splitlines()[-1] == f"Results: docs/methods/{name}.md, from results/*/{name}.json."
