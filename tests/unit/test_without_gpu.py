"""Code that was written for a GPU, made to run without one."""

import ast
import doctest

import pytest

from local_scorer.execution import contract, kaggle_input, without_gpu

IMPORTS = "import torch\nimport torch as t\nfrom torch import cuda\nfrom torch.cuda.amp import autocast\n"


def test_doctests():
    assert doctest.testmod(without_gpu).failed == 0
    assert doctest.testmod(kaggle_input).failed == 0


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("d = 'cuda' if torch.cuda.is_available() else 'cpu'", "d = 'cpu' if True else 'cpu'"),
        ("d = 'cuda' if t.cuda.is_available() else 'cpu'", "d = 'cpu' if True else 'cpu'"),
        ("d = 'cuda' if cuda.is_available() else 'cpu'", "d = 'cpu' if True else 'cpu'"),
        ('torch.device("cuda:0")', "torch.device('cpu')"),
        ('torch.device(f"cuda:{number}")', "torch.device('cpu')"),
        ("def f(x, device='cuda'): pass", "def f(x, device='cpu'): pass"),
        ("if d != 'cuda': raise SystemExit", "if d != 'cpu': raise SystemExit"),
        ("if d.type == 'cpu': raise SystemExit", "if d.type == 'no GPU': raise SystemExit"),
        ("net.cuda()", "net.cpu()"),
        ("x.cuda(non_blocking=True).float()", "x.cpu().float()"),
        ("torch.cuda.synchronize()", "None"),
        ("f'{torch.cuda.get_device_name(0)} and {x}'", "f\"{'cpu'} and {x}\""),
    ],
)
def test_what_asks_for_a_gpu_is_replaced(before, after):
    text, changes = without_gpu.rewritten(IMPORTS + before)
    assert text == IMPORTS + after
    assert changes


@pytest.mark.parametrize(
    "line",
    [
        "# net.cuda() needs 'cuda'",
        "print('cuda is fast')",
        "with autocast(): pass",
        "with torch.autocast('cuda', dtype=torch.float16): pass",
        "scaler = torch.amp.GradScaler('cuda')",
        "torch.cuda.empty_cache()",
        "d = 'cpu'",
    ],
)
def test_all_else_stays(line):
    assert without_gpu.rewritten(IMPORTS + line) == (IMPORTS + line, [])


def test_line_numbers_stay():
    text = "a = torch.cuda.is_available(\n)\nx.cuda(\n    non_blocking=True,\n)\nlast = 'cuda'\n"
    fitted, changes = without_gpu.rewritten(text)
    assert fitted.splitlines()[5] == "last = 'cpu'"
    assert changes[-1] == "line 6: 'cuda' -> 'cpu'"
    ast.parse(fitted)


def test_an_entry_with_a_guard_is_loaded_for_the_cpu_alone(tmp_path):
    path = tmp_path / "mine.py"
    source = (
        "DEVICE = 'cuda'\nif DEVICE != 'cuda':\n    raise RuntimeError('no GPU')\n"
        "def unlearning(net, retain_loader, forget_loader, val_loader, device=DEVICE):\n    return device\n"
    )
    path.write_text(source)
    assert contract.load_entry(path, device="cpu")(None, None, None, None) == "cpu"
    assert contract.load_entry(path, device="cuda")(None, None, None, None) == "cuda"
    assert path.read_text() == source
    assert [child.name for child in tmp_path.iterdir()] == ["mine.py"]  # no byte code is kept


def test_an_entry_finds_class_counts_and_original_below_kaggle(tmp_path):
    (tmp_path / "net.pt").write_bytes(b"weights")
    kaggle_input.write(tmp_path, [0, 0, 3], 10, tmp_path / "net.pt")
    path = tmp_path / "mine.py"
    path.write_text(
        "import json\nfrom pathlib import Path\nDATA = '/kaggle/input/neurips-2023-machine-unlearning'\n"
        "counts = json.loads(Path(f'{DATA}/age_class_weights.json').read_text())\n"
        "def unlearning(net, retain_loader, forget_loader, val_loader):\n"
        "    return [counts[str(key)] for key in range(10)], Path(DATA + '/original_model.pth').read_bytes()\n"
    )
    counts, weights = contract.load_entry(path, root=tmp_path)(None, None, None, None)
    assert counts == [2, 1, 1, 1, 1, 1, 1, 1, 1, 1]
    assert weights == b"weights"


def test_an_entry_reads_and_writes_by_paths_relative_to_the_working_folder_of_kaggle(tmp_path):
    (tmp_path / "net.pt").write_bytes(b"weights")
    kaggle_input.write(tmp_path, [0, 0, 3], 10, tmp_path / "net.pt")
    path = tmp_path / "mine.py"
    path.write_text(
        "from pathlib import Path\n"
        "Path('../input/neurips-2023-machine-unlearning/age_class_weights.json').read_text()\n"
        "def unlearning(net, retain_loader, forget_loader, val_loader):\n"
        "    for place in ('/kaggle/working', '../working', '/kaggle/tmp', f'../tmp'):\n"
        "        with open(f'{place}/notes.txt', 'a') as file:\n            file.write('x')\n"
    )
    assert kaggle_input.is_named_in("open('../working/y.pt', 'wb')")
    contract.load_entry(path, root=tmp_path)(None, None, None, None)
    written = [tmp_path / "kaggle" / name / "notes.txt" for name in ("working", "tmp")]
    assert [file.read_text() for file in written] == ["xx", "xx"]
