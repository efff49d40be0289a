"""Entries pass `validate`: a few, in which every shared block occurs.

A check takes some ten seconds of two cores. All entries run on such batches in tests/unit/test_entries.py, without
processes of their own.
"""

from pathlib import Path

import pytest

from kaggle_submission.tools import sync
from local_scorer import validate
from tests.helpers.entries import use_small_nets

FOLDER = Path(__file__).resolve().parents[2] / "kaggle_submission"


def few_with_every_block():
    """Return entries, each the one with the most blocks that none before it has."""
    blocks = {path: set(sync.BLOCK.findall(path.read_text())) for path in sync.entry_files(FOLDER)}
    missing, found = set().union(*blocks.values()), []
    while missing:
        found.append(max(blocks, key=lambda path: len(blocks[path] & missing)))
        missing -= blocks[found[-1]]
    return found


@pytest.mark.parametrize("path", few_with_every_block(), ids=lambda path: path.stem)
def test_validates(path, monkeypatch):
    use_small_nets(monkeypatch)
    assert [check for check in validate.validate(path) if not check.passed] == []
