"""Every notebook runs from top to bottom in a clean kernel, with tiny settings, inside this clone and offline."""

import base64
import json
import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from kaggle_submission.tools import notebook
from tests.helpers import mufac

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
WRITTEN = [path for path in NOTEBOOKS if path.name != notebook.NOTEBOOK]


def run(name, parameters):
    """Run a notebook with the cell "parameters" replaced; return its cells by id."""
    book = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    cells = {cell["id"]: cell for cell in book.cells}
    stated = [line.partition(" =")[0] for line in cells["parameters"].source.splitlines()]
    assert stated == list(parameters), "the test sets other parameters than the notebook has"
    cells["parameters"].source = "\n".join(f"{key} = {value!r}" for key, value in parameters.items())
    folder = {"metadata": {"path": str(ROOT / "notebooks")}}
    client = NotebookClient(
        book, timeout=300, kernel_name="python3", resources=folder, extra_arguments=["--log-level=ERROR"]
    )
    quiet = {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONWARNINGS": "ignore"}
    client.execute(env={**os.environ, **quiet})
    return cells


def text_of(cell):
    return "".join(output.get("text", "") for output in cell.outputs if output.get("name") == "stdout")


def has_figure(cell):
    """Say whether a cell shows a picture of some size: one that is not blank."""
    pictures = [output["data"]["image/png"] for output in cell.outputs if "image/png" in output.get("data", {})]
    return len(pictures) == 1 and len(base64.b64decode(pictures[0])) > 5_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_stripped_and_cells_have_ids(path):
    book = json.loads(path.read_text())
    nbformat.validate(nbformat.from_dict(book))
    for cell in book["cells"]:
        assert cell["id"]
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.stem)
def test_badges_and_clone_name_the_same_repository(path):
    cells = {cell["id"]: "".join(cell["source"]) for cell in json.loads(path.read_text())["cells"]}
    repository = cells["setup"].partition('REPOSITORY = "')[2].partition('"')[0]
    owner = repository.removeprefix("https://github.com/")
    assert owner != repository
    here = f"blob/main/notebooks/{path.name}"
    assert f"(https://colab.research.google.com/github/{owner}/{here})" in cells["title"]
    assert f"(https://kaggle.com/kernels/welcome?src={repository}/{here})" in cells["title"]


def test_the_kaggle_notebook_is_the_one_that_the_command_writes():
    book = json.loads((ROOT / "notebooks" / notebook.NOTEBOOK).read_text())
    title = "".join(book["cells"][0]["source"])
    name = title.partition("by the method `")[2].partition("`")[0]
    entry = ROOT / "kaggle_submission" / f"{name}.py"
    again = f"python -m kaggle_submission notebook kaggle_submission/{name}.py --out notebooks"
    assert book == notebook.build(entry), f"Write it again: {again}"


def test_leaderboard(tiny_data, tmp_path):
    run_folder = tmp_path / "run"
    cells = run(
        "leaderboard",
        {"N_MODELS": 3, "ENTRIES": ["finetune"], "DATA": str(tiny_data), "RUN": str(run_folder)},
    )
    assert "finetune" in text_of(cells["run"])
    for name in ("data", "standings", "confidences", "epsilon", "hardest"):
        assert has_figure(cells[name]), name
    assert (run_folder / "run.json").is_file()


def test_mufac(tmp_path):
    rows = [*mufac.ROWS]
    for split, family, count in (("train", 100, 48), ("val", 820, 8), ("test", 870, 24)):
        for number in range(count):
            kind = f"{'abcdefgh'[number % 8]}1"
            rows.append((split, f"F{family + number:04d}", "D", 20, kind, 1000 * family + number))
    source = mufac.write_zip(tmp_path / "mufac.zip", mufac.files(rows))
    cells = run(
        "mufac",
        {
            "SOURCE": str(source),
            "SIZE": 32,
            "DATA": str(tmp_path / "mufac"),
            "N_MODELS": 3,
            "ENTRIES": ["finetune"],
            "RUN": str(tmp_path / "run"),
        },
    )
    assert text_of(cells["file"]).endswith("mufac.zip: found\n")
    assert "groups across families" in text_of(cells["prepare"])
    assert "cross families, " in text_of(cells["duplicates"])
    assert "mufac: " in text_of(cells["run"])
    for name in ("faces", "duplicates", "standings", "confidences", "hardest"):
        assert has_figure(cells[name]), name


def test_write_a_method(tiny_data, tmp_path):
    cells = run(
        "write_a_method",
        {"WORK": str(tmp_path), "DATA": str(tiny_data), "N_MODELS": 3, "REHEARSED_RUNS": 2},
    )
    assert "FAIL" not in text_of(cells["validate"])
    assert "my_method" in text_of(cells["score"])
    for name in ("standings", "confidences", "hardest"):
        assert has_figure(cells[name]), name
    assert "PASS: " in text_of(cells["rehearse"])
    written = nbformat.read(tmp_path / "kaggle" / "kaggle_submission.ipynb", as_version=4)
    assert written.cells[2].source == (tmp_path / "my_method.py").read_text().strip("\n")
