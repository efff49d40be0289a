"""Entries pass `validate`: one stands for all that are built from the same shared blocks.

A check takes some ten seconds of two cores. All entries run on such batches in tests/unit/test_entries.py, without
processes of their own.
"""

from pathlib import Path

import pytest

from kaggle_submission.tools import sync
from local_scorer import validate
from tests.helpers.entries import use_small_nets

FOLDER = Path(__file__).resolve().parents[2] / "kaggle_submission"


def one_for_each_set_of_blocks():
    found = {}
    for path in sync.entry_files(FOLDER):
        found.setdefault(frozenset(sync.BLOCK.findall(path.read_text())), path)
    return sorted(found.values())


@pytest.mark.parametrize("path", one_for_each_set_of_blocks(), ids=lambda path: path.stem)
def test_validates(path, monkeypatch):
    use_small_nets(monkeypatch)
    monkeypatch.setattr(validate, "SECONDS", 60.0)  # a busy machine is no fault of the entry
    assert [check for check in validate.validate(path) if not check.passed] == []
