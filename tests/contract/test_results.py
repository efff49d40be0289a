"""Measured results are data with what it takes to read them, and tables and figures in the docs agree with it."""

import ast
import doctest
import math
import re
from datetime import date
from pathlib import Path

import pytest
from PIL import Image

from studies import boards, figures, frame, tables

ROOT = Path(__file__).resolve().parents[2]
ENTRIES = sorted(path.stem for path in (ROOT / "kaggle_submission").glob("[!_]*.py"))
BOARDS = sorted(path.parent for path in (ROOT / "results").glob("*/board.json"))
CLAIMS = [path for board in BOARDS for path in sorted(board.glob("*.json")) if path.name != "board.json"]
STUDIES = sorted((ROOT / "results").glob("*.json"))
TRIALS = sorted((ROOT / "results" / "tuning").glob("*.json"))
QUOTED = {"private-leaderboard", "published-nomus", "table1"}
PAGES = tables.pages()
EXPLAIN = {"reading-a-score", "kaggle", "isolation"}  # by rules and formulas, not measured


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def test_doctests():
    for module in (frame, tables):
        found = doctest.testmod(module)
        assert found.attempted
        assert not found.failed


@pytest.mark.parametrize("path", [board / "board.json" for board in BOARDS] + CLAIMS, ids=name_of)
def test_board_says_how_it_was_measured(path):
    found = boards.read(path)
    assert found["board"] == path.parent.name
    assert found["n_models"] >= 3
    assert "python -m local_scorer " in found["command"]
    assert found["machine"]
    assert date.fromisoformat(found["date"])


@pytest.mark.parametrize("path", CLAIMS, ids=name_of)
def test_claim_is_whole(path):
    claim = boards.read(path)
    assert claim["entry"].replace(" ", "_") == path.stem
    if claim["entry"] in boards.REFERENCES:
        assert claim["source_hash"] is None
    else:
        assert len(bytes.fromhex(claim["source_hash"])) == 32
    official = claim["rules"]["official"]
    if official["score"] is None:
        assert claim["status"] in ("rejected", "failed")
        return
    if claim.get("n_originals", 1) == 1:  # a mean of products over several originals is no product of means
        product = official["forgetting_quality"] * claim["retain_ratio"] * claim["test_ratio"]
        assert math.isclose(official["score"], product, rel_tol=0.01, abs_tol=1e-4)  # some have four digits
    if official["score_low"] is not None:
        assert official["score_low"] <= official["score"] <= official["score_high"]


@pytest.mark.parametrize("board", BOARDS, ids=name_of)
def test_board_has_its_floor_and_ceiling(board):
    scores = {claim["entry"]: claim["rules"]["official"] for claim in boards.claims(board)}
    assert scores["no unlearning"]["score"] == 0.0
    assert scores["retrained"]["share_of_ceiling"] == 1.0


@pytest.mark.parametrize("path", STUDIES + TRIALS, ids=name_of)
def test_study_says_how_it_was_measured(path, tmp_path):
    results = frame.load(path)
    assert results.rows
    assert {len(row) for row in results.rows} == {len(results.columns)}
    frame.save(results, tmp_path / path.name)
    assert (tmp_path / path.name).read_text() == path.read_text()
    if path.stem in QUOTED:
        assert results.machine is results.date is None
    else:
        assert results.command.startswith("python -m ")
        assert results.machine
        assert date.fromisoformat(results.date)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_page_agrees_with_the_data(page):
    """Run ``python -m studies.tables`` where this fails, and look at what changed."""
    text = page.read_text()
    assert tables.filled(text) == text
    assert text.count("<!-- end -->") == len(tables.MARK.findall(text))


@pytest.mark.parametrize("page", [page for page in PAGES if page.stem not in EXPLAIN], ids=name_of)
def test_prose_repeats_no_measured_number(page):
    """A number with two decimals or more stands in a table, code, a formula, a link, or between marks."""
    text = tables.MARK.sub("", page.read_text())
    prose = [line for line in text.splitlines() if not line.startswith(("|", "    "))]
    bare = re.sub(r"`[^`]*`|\]\([^)]*\)|\$[^$]*\$|arXiv:\d+\.\d+|Python 3\.\d+", "", "\n".join(prose))
    assert re.findall(r"\d\.\d{2,}", bare) == []


def test_picture_of_the_board_is_of_the_data():
    with Image.open(figures.FIGURES / "board.png") as picture:
        assert picture.text["Description"] == figures.described(tables.results_of(figures.BOARD))


def test_another_number_is_noticed():
    page = "F is <!-- value: builtin64 | finetune | score -->0.0028<!-- end -->.\n"
    page += "<!-- table: coverage -->\n| perfect |\n<!-- end -->"
    filled = tables.filled(page)
    assert "F is <!-- value: builtin64 | finetune | score -->0.0029<!-- end -->." in filled
    assert "| perfect | 512 | 20 | 0.1872 | 60 |" in filled
    assert tables.filled(filled) == filled
    with pytest.raises(ValueError, match=r"No single value 'builtin64 \| nobody \| score' below results/"):
        tables.filled("<!-- value: builtin64 | nobody | score --><!-- end -->")
    with pytest.raises(ValueError, match="nor a board nothing in results/"):
        tables.filled("<!-- table: nothing --><!-- end -->")


def test_every_result_is_shown():
    marks = [mark[2] for page in PAGES for mark in tables.MARK.findall(page.read_text())]
    shown = {name for mark in marks for name in mark.partition(" | ")[0].split(" ")}
    shown |= {"curves", "table1"}  # by tables that are put together from them
    assert {path.stem for path in STUDIES} | {board.name for board in BOARDS} <= shown


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("name", ENTRIES)
def test_entry_has_a_page_with_its_results(name):
    text = (ROOT / "docs" / "methods" / f"{name}.md").read_text()
    assert text.startswith(f"# {name}\n")
    assert f"<!-- table: method {name} -->" in text


@pytest.mark.parametrize("name", ENTRIES)
def test_docstring_says_where_the_results_stand(name):
    docstring = ast.get_docstring(ast.parse((ROOT / "kaggle_submission" / f"{name}.py").read_text()))
    assert docstring.splitlines()[-1] == f"Results: docs/methods/{name}.md, from results/*/{name}.json."
