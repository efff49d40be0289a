"""`pip install .` takes along what the commands need."""

import importlib
from pathlib import Path

import pytest

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no reader of pyproject.toml")

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = ("data_prep", "kaggle_submission", "local_scorer")


def files():
    return [path for name in PACKAGES for path in (ROOT / name).rglob("*.*") if "__pycache__" not in path.parts]


def test_command_is_the_scorer():
    module, _, function = PROJECT["project"]["scripts"]["unlearning-scorer"].partition(":")
    assert getattr(importlib.import_module(module), function) is importlib.import_module("local_scorer.cli").main


@pytest.mark.parametrize(
    ("called", "name"),
    [("/usr/bin/unlearning-scorer", "unlearning-scorer"), ("local_scorer/__main__.py", "python -m local_scorer")],
)
def test_help_names_the_command_that_was_called(called, name, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [called, "validate", "--help"])
    with pytest.raises(SystemExit):
        importlib.import_module("local_scorer.cli").main()
    assert capsys.readouterr().out.startswith(f"usage: {name} validate ")


def test_every_module_lies_in_a_package():
    for path in files():
        if path.suffix == ".py":
            assert (path.parent / "__init__.py").is_file(), path


def test_every_other_file_is_named_as_data():
    taken = PROJECT["tool"]["setuptools"]["package-data"]
    named = {
        found
        for package, patterns in taken.items()
        for pattern in patterns
        for found in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    others = {path for path in files() if path.suffix != ".py"}
    assert others <= named
    assert others
