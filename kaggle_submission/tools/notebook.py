"""Write a Kaggle notebook around an entry: its text pasted whole, the competition's loop, checks, and the zip."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

from local_scorer.execution import contract

NOTEBOOK, METADATA = "kaggle_submission.ipynb", "kernel-metadata.json"
COMPETITION = "neurips-2023-machine-unlearning"
UNKNOWN_USER = "YOUR-KAGGLE-NAME"

INTRODUCTION = """\
# {title}

Unlearns 512 times by the method `{name}` and packs the models into `submission.zip`, as the NeurIPS 2023 Machine
Unlearning competition asks for. Choose a GPU (the P100 is the fastest for this), switch the internet off, save a
version and submit it.

While you look at it, the data folder holds an `empty.txt`, and the notebook ends at once with an empty zip. The
work is done when Kaggle runs it again on the hidden data. Rehearse that at home first:
`python -m kaggle_submission rehearse` with the name of this file and `--data` of a prepared data set."""

METHOD = """\
## The method

The whole entry file. Nothing else in this notebook belongs to the method."""

SETTINGS = """\
import time
import zipfile
from pathlib import Path

import pandas as pd
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.models import resnet18
from torchvision.transforms.functional import pil_to_tensor

DATA = Path("/kaggle/input/neurips-2023-machine-unlearning")
CHECKPOINTS = Path("/kaggle/tmp")  # not /kaggle/working, which is kept as output and ends at 20 GB
RUNS = 512  # the competition counts them
HALF_PRECISION = True  # for the disk: 512 models in full precision fill nearly all of the 20 GB, in half only 12
HOURS = 7.5  # of the 8 that Kaggle gives; the rest is for the zip
FIRST_LOOK = 3  # runs until the clock says whether all of them fit into HOURS

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE != "cuda":
    raise RuntimeError("There is no GPU here. Choose one under Settings, Accelerator: a CPU is far too slow.")"""

DATA = '''\
class Faces(Dataset):
    """One split, in memory. An item is a dict; its picture is float32 with values 0 to 255, not normalised."""

    def __init__(self, split):
        table = pd.read_csv(DATA / f"{split}.csv", dtype={"image_id": str, "person_id": str})
        self.rows = table[["image_id", "person_id", "age_group", "age"]].to_dict("records")
        names = (row["image_id"].replace("-", "/") for row in self.rows)
        self.pictures = [pil_to_tensor(Image.open(DATA / "images" / f"{name}.png")) for name in names]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return {**self.rows[index], "image": self.pictures[index].float()}


def open_loader(split):
    """Return a loader as in the competition's own notebook: shuffled batches of 64."""
    return DataLoader(Faces(split), batch_size=64, shuffle=True)'''

LOOP = '''\
def original_model():
    """Load the original model afresh, so that no run inherits anything from the one before."""
    weights = torch.load(DATA / "original_model.pth", map_location=DEVICE, weights_only=True)
    net = resnet18(weights=None, num_classes=len(weights["fc.bias"]))
    net.load_state_dict(weights)
    return net.to(DEVICE).eval()


def save_checkpoint(net, run):
    """Write the weights of a run, in half precision where their values fit (it ends at 65504)."""
    weights = {name: tensor.detach().cpu() for name, tensor in net.state_dict().items()}
    for name, tensor in weights.items():
        if not tensor.isfinite().all():
            raise RuntimeError(f"Run {run} left weights in {name} that are not finite. Lower the learning rate.")
        if HALF_PRECISION and tensor.is_floating_point() and tensor.half().isfinite().all():
            weights[name] = tensor.half()
    torch.save(weights, CHECKPOINTS / f"unlearned_checkpoint_{run}.pth")


def look_at_clock(done, seconds):
    """Say how long all runs will take, and stop when they cannot end in time."""
    hours = seconds / done * RUNS / 3600
    if done == FIRST_LOOK or done % 64 == 0:
        print(f"{done} runs took {seconds:.0f} s, so all {RUNS} will take {hours:.2f} of {HOURS} hours.")
    if done >= FIRST_LOOK and hours > HOURS:
        raise RuntimeError(
            f"Stopped after {done} runs in {seconds:.0f} s: all {RUNS} would take {hours:.1f} hours, and there "
            f"are {HOURS}. Make unlearning() faster: fewer epochs, larger batches."
        )


def unlearn_all():
    """Unlearn RUNS times, each time from the original model and with fresh randomness."""
    CHECKPOINTS.mkdir(parents=True, exist_ok=True)
    retain_loader, forget_loader, val_loader = map(open_loader, ("retain", "forget", "validation"))
    start = time.monotonic()
    for run in range(RUNS):
        net = original_model()
        unlearning(net, retain_loader, forget_loader, val_loader)
        save_checkpoint(net, run)
        look_at_clock(run + 1, time.monotonic() - start)'''

CHECKS = '''\
def check_checkpoints():
    """See that there is one checkpoint a run and nothing else, and that runs differ."""
    names = [f"unlearned_checkpoint_{run}.pth" for run in range(RUNS)]
    found = sorted(path.name for path in CHECKPOINTS.iterdir())
    if found != sorted(names):
        raise RuntimeError(f"{CHECKPOINTS} holds {len(found)} files, expected the {RUNS} checkpoints alone.")
    first, second = (torch.load(CHECKPOINTS / name, weights_only=True) for name in names[:2])
    if all(torch.equal(first[name], second[name]) for name in first):
        raise RuntimeError("The first two models are equal, and equal models score nothing. Set no seed.")


def pack_checkpoints():
    """Write submission.zip. Weights hardly shrink, so they are stored as they are."""
    with zipfile.ZipFile("submission.zip", "w") as archive:
        for path in sorted(CHECKPOINTS.iterdir()):
            archive.write(path, path.name)'''

START = """\
if (DATA / "empty.txt").exists():
    Path("submission.zip").touch()
    print("This is the copy of the data without pictures: the zip stays empty.")
else:
    unlearn_all()
    check_checkpoints()
    pack_checkpoints()"""

CELLS = (
    ("introduction", "markdown", INTRODUCTION),
    ("about-the-method", "markdown", METHOD),
    ("method", "code", None),
    ("about-settings", "markdown", "## Settings"),
    ("settings", "code", SETTINGS),
    ("about-data", "markdown", "## The data\n\nPictures and batches as in the competition's own notebook."),
    ("data", "code", DATA),
    ("about-loop", "markdown", "## Unlearn, save, watch the clock"),
    ("loop", "code", LOOP),
    ("about-checks", "markdown", "## Check and pack"),
    ("checks", "code", CHECKS),
    ("about-start", "markdown", "## Do it\n\n`empty.txt` marks the copy of the data that has no pictures."),
    ("start", "code", START),
)


def write(entry: Path, out: Path, user: str = UNKNOWN_USER) -> tuple[Path, Path]:
    """Write notebook and metadata into the folder `out`; return their paths.

    Raises:
        EntryError: the entry cannot be pasted into a notebook; the message says why.
    """
    content = build(entry)
    metadata = kernel_metadata(contract.entry_name(entry), user)
    out.mkdir(parents=True, exist_ok=True)
    for name, value in ((NOTEBOOK, content), (METADATA, metadata)):
        (out / name).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return out / NOTEBOOK, out / METADATA


def build(entry: Path) -> dict[str, Any]:
    """Return the notebook of an entry, in the format 4.5 of Jupyter.

    Where the entry and the notebook use one name for two things, the notebook's is another one.

    Raises:
        EntryError: as for `write`.
    """
    source = contract.read_source(entry)
    name = contract.entry_name(entry)
    taken = _taken_names(entry, source)
    cells = []
    for cell_id, kind, text in CELLS:
        if cell_id == "introduction":
            text = text.format(title=_title(name), name=name)
        text = source.strip("\n") if text is None else _renamed(text, taken) if kind == "code" else text
        cell = {"cell_type": kind, "id": cell_id, "metadata": {}, "source": text.splitlines(keepends=True)}
        cells.append(cell | ({"execution_count": None, "outputs": []} if kind == "code" else {}))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def kernel_metadata(name: str, user: str) -> dict[str, Any]:
    """Return the metadata that ``kaggle kernels push`` reads: GPU on, internet off, the competition as source."""
    title = _title(name)
    return {
        "id": f"{user}/{re.sub(r'[^a-z0-9]+', '-', title.lower()).strip('-')}",  # Kaggle derives it from the title
        "title": title,
        "code_file": NOTEBOOK,
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": True,
        "enable_internet": False,
        "dataset_sources": [],
        "competition_sources": [COMPETITION],
        "kernel_sources": [],
        "model_sources": [],
    }


def _title(name: str) -> str:
    return f"Unlearning by {name.replace('_', ' ')}"


def _taken_names(entry: Path, source: str) -> set[str]:
    """Return the names that the entry uses for something else than the notebook does.

    Raises:
        EntryError: the entry is not Python, or defines no ``unlearning``.
    """
    try:
        names = _top_names(source)
    except (SyntaxError, ValueError) as error:  # ValueError: a null byte
        raise contract.EntryError(f"{entry} is not valid Python ({error}). Correct it.") from error
    if "unlearning" not in names:
        arguments = ", ".join(contract.ARGUMENTS)
        raise contract.EntryError(f"{entry} defines no function unlearning({arguments}).")
    ours = {}
    for _, kind, text in CELLS:
        if kind == "code" and text is not None:
            ours |= _top_names(text)
    return {name for name in names.keys() & ours.keys() if names[name] != ours[name]}


def _renamed(text: str, taken: set[str]) -> str:
    """Return a cell of the notebook in which the names in `taken` are others.

    >>> _renamed("import time\\nRUNS = 512  # the RUNS", {"time", "RUNS"})
    'import time as kaggle_time\\nkaggle_RUNS = 512  # the kaggle_RUNS'
    """
    for name in taken:
        lines = []
        for line in text.splitlines():
            if line.startswith(("import ", "from ")):
                line = re.sub(rf"(?<=import ){name}$|(?<=[ ,]){name}(?=,|$)", f"{name} as kaggle_{name}", line)
            else:
                line = re.sub(rf"(?<![\w.]){name}\b", f"kaggle_{name}", line)
            lines.append(line)
        text = "\n".join(lines)
    return text


def _top_names(source: str) -> dict[str, str]:
    """Return the names that a file defines, each with what it stands for: an import's target, or a definition."""
    names = {}
    todo = list(ast.parse(source).body)
    while todo:
        node = todo.pop(0)
        if isinstance(node, ast.Import):
            names |= {a.asname or a.name.partition(".")[0]: a.name if a.asname else "module" for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names[node.name] = f"line {node.lineno}: {node.name}"
        else:
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names[node.id] = f"line {node.lineno}: {node.id}"
            todo[:0] = ast.iter_child_nodes(node)
    return names
