"""Entries in the style of the competition's load on a machine without a GPU, as they are."""

from pathlib import Path

import pytest

from local_scorer.execution import contract

ENTRIES = sorted((Path(__file__).resolve().parents[1] / "kaggle_style" / "entries").glob("*.py"))
READS_LOADERS_IN_ANOTHER_ORDER = "swapped"


@pytest.mark.parametrize("path", ENTRIES, ids=lambda path: path.stem)
def test_entry_loads_for_the_cpu(path):
    source = path.read_text()
    text, changes = contract.fitted(source, "cpu")
    assert changes
    assert text.count("\n") == source.count("\n")
    assert callable(contract.load_entry(path, device="cpu"))
    assert bool(contract.misnamed_loaders(source)) == (path.stem == READS_LOADERS_IN_ANOTHER_ORDER)
