"""Every file in kaggle_submission/ is an entry as the house style has it."""

import ast
import sys
from pathlib import Path

import pytest

from kaggle_submission.tools import sync

FOLDER = Path(__file__).resolve().parents[2] / "kaggle_submission"
ENTRIES = sync.entry_files(FOLDER)
SHARED = sync.read_blocks(FOLDER / "shared")
TESTS = sorted(FOLDER.parent.glob("tests/*/test_*.py"))
PACKAGES = {"torch", "torchvision", "numpy", "pandas", "sklearn"}
MOST_LINES = 210

pytestmark = pytest.mark.parametrize("path", ENTRIES, ids=lambda path: path.stem)


def blocks_of(path):
    """Return the text of SETTINGS, METHOD, PLUMBING and of ``unlearning`` with what follows it."""
    text = path.read_text()
    marks = ("\n# SETTINGS\n", "\n# METHOD\n", "\n# PLUMBING\n", "\ndef unlearning(")
    places = [text.index(mark) for mark in marks]
    assert places == sorted(places)
    return [text[start:end] for start, end in zip(places, [*places[1:], None], strict=True)]


def test_is_short(path):
    assert len(path.read_text().splitlines()) <= MOST_LINES


def test_opens_with_a_docstring_that_names_its_source(path):
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring
    assert "\n\nSource: " in docstring


def test_banners_stand_once_and_in_order(path):
    lines = path.read_text().splitlines()
    banners = [line for line in lines if line.startswith("# ") and line[2:].isupper()]
    assert banners == ["# SETTINGS", "# METHOD", "# PLUMBING"]
    blocks_of(path)


def test_settings_are_constants_with_a_reason_each(path):
    lines = [line for line in blocks_of(path)[0].splitlines()[2:] if line]
    for line in lines:
        (statement,) = ast.parse(line).body
        assert isinstance(statement, ast.Assign), line
        assert statement.targets[0].id.isupper(), line
        assert "  # " in line, line


def test_shared_blocks_are_their_sources_to_the_byte(path):
    """Run ``python -m kaggle_submission sync`` where this fails; sources are in kaggle_submission/shared/."""
    text = path.read_text()
    assert sync.with_blocks(text, SHARED, path.name) == text


def test_plumbing_is_shared_and_nothing_else(path):
    plumbing = blocks_of(path)[2].removeprefix("\n# PLUMBING\n")
    assert plumbing.startswith("# SHARED: plumbing\n")
    assert sync.BLOCK.sub("", plumbing).strip() == ""


def test_no_function_or_setting_is_dead_text(path):
    """Shared blocks are taken whole, so an entry that takes no step may leave a function of theirs unused."""
    tree = ast.parse(path.read_text())
    own = ast.parse(sync.BLOCK.sub("", path.read_text()))
    defined = {node.name for node in own.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    settings = {node.targets[0].id for node in own.body if isinstance(node, ast.Assign)}
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    assert defined | settings <= used | {"unlearning"}


def test_has_a_test_of_its_method(path):
    if path.stem == "_template":
        pytest.skip("it has no method")
    assert any(f'"{path.stem}"' in test.read_text() for test in TESTS)


def test_unlearning_comes_last_and_has_the_contracts_names(path):
    last = ast.parse(path.read_text()).body[-1]
    assert isinstance(last, ast.FunctionDef)
    assert last.name == "unlearning"
    assert ast.unparse(last.args) == "net, retain_loader, forget_loader, val_loader"


def test_imports_only_what_kaggle_has(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names = {node.module.partition(".")[0]}
        else:
            continue
        assert names <= PACKAGES | sys.stdlib_module_names


def test_prints_nothing(path):
    names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
    assert "print" not in names
