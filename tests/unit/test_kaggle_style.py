"""Entries and notebooks in the style of the competition's, as they are: they load on a machine without a GPU."""

import json
from pathlib import Path

import pytest

from kaggle_submission.tools import notebook as writing
from kaggle_submission.tools import rewrite
from local_scorer.execution import cells, contract, kaggle_input
from tests.helpers.notebooks import STARTER, notebook

FOLDER = Path(__file__).resolve().parents[1] / "kaggle_style"
ENTRIES = sorted((FOLDER / "entries").glob("*.py"))
READS_LOADERS_IN_ANOTHER_ORDER = "swapped"

# Notebooks, their cells parted by "# %%", and the code in which 512 counts runs; all other 512 stay.
NOTEBOOKS = {
    "class_method": ["models: int = 512"],
    "if_not_test": ["range(512)", "len(unlearned_ckpts) != 512"],
    "later_version": ["512 if not DEBUG else 4"],
    "namespace": ["num_ckpts=512"],
    "own_data_loader": ["range(512):\n    net = fresh()"],
    "pool_of_seeds": ["range(512)"],
    "progress_bar": ["tqdm(range(512)"],
    "relative_places": ["range(0, 512)"],
    "resume": ["NUM_MODELS = 512"],
    "settings_class": ["n_runs = 512"],
    "while_clock": ["N, HOURS = 512"],
}


def cells_of(name):
    text = (FOLDER / "notebooks" / f"{name}.py").read_text()
    return [cell.strip("\n") for cell in text.split("# %%\n")[1:]]


@pytest.mark.parametrize("path", ENTRIES, ids=lambda path: path.stem)
def test_entry_loads_for_the_cpu(path):
    source = path.read_text()
    text, changes = contract.fitted(source, "cpu")
    assert changes
    assert text.count("\n") == source.count("\n")
    assert callable(contract.load_entry(path, device="cpu"))
    assert bool(contract.misnamed_loaders(source)) == (path.stem == READS_LOADERS_IN_ANOTHER_ORDER)


def test_every_notebook_is_tried():
    assert {path.stem for path in (FOLDER / "notebooks").iterdir()} == set(NOTEBOOKS)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_in_a_notebook_512_is_replaced_where_it_counts_runs_and_nowhere_else(name):
    before = cells_of(name)
    expected = "\0".join(before)
    for code in NOTEBOOKS[name]:
        assert expected.count(code) == 1, code
        expected = expected.replace(code, code.replace("512", "4"))
    result = rewrite.fit(before, "", 4, gpu=True)
    assert "\0".join(result.cells) == kaggle_input.moved(expected, "")
    assert len(result.changes) == len(NOTEBOOKS[name])
    assert result.doubts == []


@pytest.mark.parametrize("name", [*NOTEBOOKS, "starter"])
def test_entry_of_a_notebook_loads_and_can_be_written_into_another(name, tmp_path):
    path = tmp_path / f"{name}.ipynb"
    path.write_text(json.dumps(notebook(STARTER if name == "starter" else cells_of(name))))
    source = cells.entry_in(path)
    assert "torch.save" not in source  # nothing of the loop over runs
    folder = tmp_path / "kaggle" / "input" / "neurips-2023-machine-unlearning"
    folder.mkdir(parents=True)
    (folder / "age_class_weights.json").write_text(json.dumps(dict.fromkeys("0123456789", 1)))
    function = contract.load_entry(path, device="cpu", root=tmp_path)
    assert function.__code__.co_filename == str(path)
    assert source.strip("\n") in ["".join(text) for text in cells.code_of(writing.build(path))]
