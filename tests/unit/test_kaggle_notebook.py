"""The notebook that is made of an entry, and what a rehearsal changes in a notebook."""

import json
import zipfile
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import torch

from data_prep import dataset
from kaggle_submission.tools import cli, kaggle_tree, notebook
from local_scorer.execution import without_gpu
from local_scorer.execution.contract import EntryError
from local_scorer.execution.entries import shipped_entries
from local_scorer.models import nets
from tests.helpers.notebooks import notebook as as_notebook

ROOT = Path(__file__).resolve().parents[2]
ENTRIES = sorted(path for path in (ROOT / "kaggle_submission").glob("*.py") if not path.name.startswith("_"))
FINETUNE = ROOT / "kaggle_submission" / "finetune.py"
EMPTY = "def unlearning(net, retain_loader, forget_loader, val_loader):\n    pass\n"


def entry(tmp_path, text):
    path = tmp_path / "my_entry.py"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", ENTRIES, ids=lambda path: path.stem)
def test_the_text_of_every_entry_is_pasted_whole(path, tmp_path):
    notebook.write(path, tmp_path)
    book = nbformat.read(tmp_path / "kaggle_submission.ipynb", as_version=4)
    nbformat.validate(book)
    (method,) = [cell for cell in book.cells if cell["id"] == "method"]
    assert method.source == path.read_text().strip("\n")
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    for cell in code:
        compile(cell.source, "cell", "exec")


def test_the_metadata_ask_for_a_gpu_no_internet_and_the_competition(tmp_path):
    _, path = notebook.write(entry(tmp_path, EMPTY), tmp_path / "out", user="somebody")
    assert json.loads(path.read_text()) == {
        "id": "somebody/unlearning-by-my-entry",
        "title": "Unlearning by my entry",
        "code_file": "kaggle_submission.ipynb",
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": True,
        "enable_internet": False,
        "dataset_sources": [],
        "competition_sources": ["neurips-2023-machine-unlearning"],
        "kernel_sources": [],
        "model_sources": [],
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("def unlearning(net:\n", " is not valid Python ("),
        (
            "def forget(net):\n    pass\n",
            " defines no function unlearning(net, retain_loader, forget_loader, val_loader).",
        ),
    ],
)
def test_an_entry_that_cannot_be_pasted_is_refused(text, sentence, tmp_path):
    path = entry(tmp_path, text)
    with pytest.raises(EntryError) as error:
        notebook.build(path)
    assert str(error.value).startswith(str(path) + sentence)


@pytest.mark.parametrize(
    "text",
    [
        "DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'\n" + EMPTY,
        "RUNS = 3\nfrom time import time\nclass Faces:\n    pass\n" + EMPTY,
        "for DATA in range(3):\n    pass\n" + EMPTY,
        "test = False\nif not test:\n    " + EMPTY.replace("\n    ", "\n        "),
        EMPTY.replace("val_loader", "val_loader, epochs=3"),
    ],
)
def test_an_entry_keeps_its_names_and_the_notebook_its_own(text, tmp_path):
    text = "import torch\n" + text
    cells = {cell["id"]: "".join(cell["source"]) for cell in notebook.build(entry(tmp_path, text))["cells"]}
    assert cells["method"] == text.strip("\n")
    names = {}
    for name, kind, _ in notebook.CELLS:
        if kind == "code" and name != "start":
            run_cell(without_gpu.rewritten(cells[name])[0], names)
            if name == "method":
                own = {key: value for key, value in names.items() if key in ("RUNS", "Faces", "DATA", "time")}
    assert {key: names[key] for key in own} == own
    assert names.get("kaggle_RUNS", names["RUNS"]) == 512


def test_an_entry_out_of_a_notebook_is_pasted_too(tmp_path):
    path = tmp_path / "mine.ipynb"
    path.write_text(json.dumps(as_notebook(["LR = 1", EMPTY, "raise RuntimeError('the end')"])))
    cells = {cell["id"]: "".join(cell["source"]) for cell in notebook.build(path)["cells"]}
    assert "def unlearning(net" in cells["method"]
    assert "RuntimeError" not in cells["method"]


def test_equal_imports_are_no_clash(tmp_path):
    source = "import time\nimport torch\nfrom pathlib import Path\n" + EMPTY
    cells = {cell["id"]: "".join(cell["source"]) for cell in notebook.build(entry(tmp_path, source))["cells"]}
    assert cells["method"] == source.strip("\n")


def test_the_command_says_what_comes_next(tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(["notebook", str(FINETUNE), "--out", str(out)]) == 0
    assert capsys.readouterr().out == (
        f"Wrote {out}/kaggle_submission.ipynb and {out}/kernel-metadata.json.\n"
        f"Try it here:     python -m kaggle_submission rehearse {out}/kaggle_submission.ipynb --data PREPARED\n"
        "Before a push, put your Kaggle name for YOUR-KAGGLE-NAME in kernel-metadata.json (or use --user).\n"
        f"Send to Kaggle:  kaggle kernels push -p {out}\n"
    )
    assert cli.main(["notebook", "finetune", "--out", str(out)]) == 0
    assert cli.main(["notebook", str(tmp_path / "none.py")]) == 2
    assert f"error: There is no entry file {tmp_path / 'none.py'}. " in capsys.readouterr().err


def test_the_tools_are_no_entries():
    assert shipped_entries() == ENTRIES


@pytest.fixture
def cells(tiny_data, tmp_path, monkeypatch):
    """The cells of a notebook as functions, on pictures in a scratch folder."""
    data = dataset.load(tiny_data)
    kaggle_tree.write(data, tmp_path / "input", nets.fresh_net(10, 64, seed=0).state_dict())
    monkeypatch.chdir(tmp_path)
    names = {"unlearning": lambda net, *loaders: net.fc.bias.data.normal_()}
    for name, kind, text in notebook.CELLS:
        if kind == "code" and text is not None and name != "start":
            run_cell(without_gpu.rewritten(text)[0], names)
    names.update(DATA=tmp_path / "input", CHECKPOINTS=tmp_path / "tmp", RUNS=4)
    return SimpleNamespace(names=names, **{name: names[name] for name in names if callable(names[name])})


def run_cell(text, names):
    exec(compile(text, "cell", "exec"), names)


def test_its_loaders_give_what_the_competition_gave(cells):
    loader = cells.open_loader("retain")
    batch = next(iter(loader))
    assert sorted(batch) == ["age", "age_group", "image", "image_id", "person_id"]
    assert batch["image"].dtype == torch.float32 and list(batch["image"].shape) == [64, 3, 32, 32]
    assert batch["image"].max() > 200
    assert batch["age_group"].dtype == torch.int64
    assert isinstance(batch["image_id"][0], str)
    item = loader.dataset[0]
    item["image"].zero_()
    assert loader.dataset[0]["image"].any()  # a fresh dict and picture each time


def test_half_precision_spares_values_that_do_not_fit(cells):
    net = nets.fresh_net(10, 64, seed=0)
    net.bn1.running_var[3] = 1e6
    cells.names["CHECKPOINTS"].mkdir()
    cells.save_checkpoint(net, 7)
    saved = torch.load(cells.names["CHECKPOINTS"] / "unlearned_checkpoint_7.pth", weights_only=True)
    assert saved["fc.weight"].dtype == torch.float16
    assert saved["bn1.running_var"].dtype == torch.float32 and saved["bn1.running_var"][3] == 1e6
    assert saved["bn1.num_batches_tracked"].dtype == torch.int64
    net.fc.bias.data[0] = float("nan")
    with pytest.raises(RuntimeError, match=r"Run 8 left weights in fc\.bias that are not finite"):
        cells.save_checkpoint(net, 8)


def test_each_run_starts_from_the_original(cells):
    seen = []
    cells.names["unlearning"] = lambda net, *loaders: (
        seen.append(net.fc.bias.clone()),
        net.fc.bias.data.normal_(),
    )
    cells.unlearn_all()
    assert len(seen) == 4
    assert all(torch.equal(bias, seen[0]) for bias in seen)
    cells.check_checkpoints()
    cells.pack_checkpoints()
    with zipfile.ZipFile("submission.zip") as archive:
        assert archive.namelist() == [f"unlearned_checkpoint_{run}.pth" for run in range(4)]


def test_its_checks_stop_what_would_not_count(cells):
    folder = cells.names["CHECKPOINTS"]
    cells.unlearn_all()
    (folder / "log.txt").touch()
    with pytest.raises(RuntimeError, match="holds 5 files, expected the 4 checkpoints alone"):
        cells.check_checkpoints()
    (folder / "log.txt").unlink()
    (folder / "unlearned_checkpoint_2.pth").rename(folder / "model.pth")
    with pytest.raises(RuntimeError, match="holds 4 files, expected the 4 checkpoints alone"):
        cells.check_checkpoints()
    (folder / "model.pth").rename(folder / "unlearned_checkpoint_2.pth")
    (folder / "unlearned_checkpoint_1.pth").write_bytes((folder / "unlearned_checkpoint_0.pth").read_bytes())
    with pytest.raises(RuntimeError, match="The first two models are equal"):
        cells.check_checkpoints()


def test_the_clock_stops_a_notebook_that_cannot_end_in_time(cells, capsys):
    cells.names["RUNS"] = 512
    cells.look_at_clock(2, 2 * 60.0)  # too early to tell
    cells.look_at_clock(3, 3 * 50.0)
    assert capsys.readouterr().out == "3 runs took 150 s, so all 512 will take 7.11 of 7.5 hours.\n"
    with pytest.raises(RuntimeError) as error:
        cells.look_at_clock(3, 3 * 60.0)
    assert str(error.value) == (
        "Stopped after 3 runs in 180 s: all 512 would take 8.5 hours, and there are 7.5. Make unlearning() "
        "faster: fewer epochs, larger batches."
    )
