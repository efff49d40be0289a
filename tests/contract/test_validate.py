"""`validate` names what is wrong with an entry, and nothing that is not."""

import json
import re

import pytest

from local_scorer import validate
from local_scorer.cli import main
from local_scorer.validate import Check
from tests.helpers.entries import use_small_nets
from tests.helpers.notebooks import notebook

DEFINITION = "def unlearning(net, retain_loader, forget_loader, val_loader):\n"
NOISE = "    for weight in net.parameters():\n        weight.data += 0.001 * torch.randn_like(weight)\n"

# Wrong in all that does not decide while every run comes to its end
CARELESS = (
    "import torch as t\n"
    "import tqdm\n"
    f"{DEFINITION}"
    "    seed = t.initial_seed()\n"
    "    t.manual_seed(seed)\n"
    "    t.Generator().manual_seed(3)\n"
    "    open('notes.txt', 'w').close()\n"
    "    for weight in net.parameters():\n"
    "        weight.data += 0.001 * t.randn_like(weight)\n"
    "    net.layer1.train()\n"
)

# Does something sensible on the competition's data only
NARROW = (
    "import torch\n"
    f"{DEFINITION}"
    "    net.train()\n"
    "    for batch in retain_loader:\n"
    "        logits = net(batch['image'])\n"
    "        torch.nn.functional.cross_entropy(logits, batch['age_group'], weight=torch.ones(10)).backward()\n"
    f"{NOISE}"
    "    net.eval()\n"
)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    use_small_nets(monkeypatch)


@pytest.fixture
def failed(tmp_path):
    """Return a function that validates a source text and gives the fixes of the failed checks by name."""

    def of(source, name="mine.py"):
        path = tmp_path / name
        path.write_text(source)
        checks = validate.validate(path)
        order = (*validate.COMPETITION, *validate.PORTABLE)
        assert [check.name for check in checks] == [name for name in order if name in {c.name for c in checks}]
        assert all(check.passed == (check.fix == "") for check in checks)
        return {check.name: check.fix for check in checks if not check.passed}

    return of


def test_careless_entry(failed):
    assert failed(CARELESS) == {
        validate.IMPORTS: "Line 2 imports tqdm. Write what you need from it into the file, or do without.",
        validate.NO_SEED: "Line 5 sets it. "
        "Delete it: other draws, of the scorer's and of your own, depend on it too.",
        validate.EVAL_MODE: "Layer1 is in train mode. End unlearning() with net.eval().",
        validate.NO_FILES: "It wrote notes.txt. Keep it in memory: only the models are handed in.",
    }


def test_entry_that_expects_the_competitions_data_runs_there(failed):
    fixes = failed(NARROW)
    assert fixes.keys() == {validate.TUPLES, validate.OTHER_NET, validate.SMALL}  # a cause each
    assert fixes[validate.TUPLES] == (
        "TypeError: list indices must be integers or slices, not str (line 5). "
        "Take batch[0] and batch[1] where a batch is not a dict, as unpack() in the template does."
    )
    assert "weight tensor should be defined" in fixes[validate.OTHER_NET]
    assert "(line 6). Take the class count from net.fc.out_features" in fixes[validate.OTHER_NET]
    assert "Expected more than 1 value per channel when training" in fixes[validate.SMALL]


def test_entry_that_does_nothing(failed):
    assert failed(f"{DEFINITION}    return net\n") == {
        validate.CHANGED: "The weights are what they were. "
        "Change the net in place: what unlearning() returns is ignored.",
    }


def test_entry_whose_seed_makes_all_models_equal_is_told_once(failed):
    source = f"import torch\n{DEFINITION}    torch.manual_seed(1)\n{NOISE}"
    assert failed(source) == {
        validate.SPREAD: "Two seeds gave the same weights; line 3 sets a seed. "
        "Draw something at random and set no seed: equal models score nothing.",
    }


def test_seed_that_is_set_outside_of_a_run_is_no_fault(failed):
    source = (
        "import torch\ntorch.manual_seed(1)\ndef set_seed():\n    torch.manual_seed(2)\n"
        f"{DEFINITION}{NOISE}    net.eval()\n"
    )
    assert failed(source) == {}


def test_entry_that_raises(failed):
    assert failed(f"{DEFINITION}    raise KeyError('age')\n") == {
        validate.RUNS: "KeyError: 'age' (line 2). "
        "Pictures and labels of a batch are batch['image'] and batch['age_group'].",
    }


def test_the_net_of_a_trial_is_as_good_in_eval_mode_as_in_train_mode(failed):
    """As a trained net is: else an entry that trains in eval mode, as `cf_k` does, explodes here alone."""
    source = (
        "from torch.nn.functional import cross_entropy\n"
        f"{DEFINITION}    losses = []\n"
        "    for mode in (False, True):\n"
        "        net.train(mode)\n"
        "        found = [cross_entropy(net(batch['image']), batch['age_group']) for batch in retain_loader]\n"
        "        losses.append(sum(found).item() / len(found))\n"
        "    raise ValueError(*losses)\n"
    )
    losses = re.findall(r"\d+\.\d+", failed(source)[validate.RUNS])
    assert float(losses[0]) == pytest.approx(float(losses[1]), rel=0.2)


def test_a_missing_file_is_not_called_a_fault_of_batches(failed):
    assert failed(f"{DEFINITION}    open('no_such_file')\n") == {
        validate.RUNS: "FileNotFoundError: [Errno 2] No such file or directory: 'no_such_file' (line 2).",
    }


def test_sizes_that_do_not_fit_are_called_so(failed):
    line = "torch.nn.functional.cross_entropy(net(torch.zeros(2, 3, 32, 32)), torch.tensor([0, 10]))"
    fixes = failed(f"import torch\n{DEFINITION}    {line}\n")
    assert fixes.keys() == {validate.RUNS}
    assert "Sizes do not fit: the net has 10 outputs" in fixes[validate.RUNS]
    assert "batch['image']" not in fixes[validate.RUNS]


def test_missing_package_is_called_so(failed):
    assert failed(f"import no_such_package.part\n{DEFINITION}    pass\n") == {
        validate.SIGNATURE: "ModuleNotFoundError: No module named 'no_such_package' (line 1). The package is "
        "missing here, so nothing can be said of the rest: pip install no_such_package.",
    }


def test_loaders_in_the_wrong_order_are_pointed_out(failed):
    source = f"import torch\ndef unlearning(model, forget_dl, retain_dl, val_dl):\n    net = model\n{NOISE}"
    assert failed(source) == {
        validate.SIGNATURE: "The parameter 'forget_dl' is given the retain loader: the order is unlearning(net, "
        "retain_loader, forget_loader, val_loader), whatever the names. Put 'retain_loader' in its place.",
    }


@pytest.mark.parametrize(
    ("line", "finding"),
    [
        ("net.fc.weight.data *= float('nan')", "Weight 'fc.weight' is not finite (NaN or infinity). "),
        ("net.fc = torch.nn.Linear(128, 5)", "Weight 'fc.weight' has shape [5, 128] instead of [10, 128]. "),
        ("net.fc = torch.nn.Identity()", "The model lost its weight 'fc.weight': it must stay a ResNet-18. "),
    ],
)
def test_entry_that_leaves_bad_weights(failed, line, finding):
    fixes = failed(f"import torch\n{DEFINITION}    {line}\n    net.eval()\n")
    assert fixes == {validate.WEIGHTS: finding + validate.REMEDIES[validate.WEIGHTS]}


@pytest.mark.parametrize("source", ["while True:\n    pass\n", f"{DEFINITION}    while True:\n        pass\n"])
def test_endless_entry_is_stopped(failed, monkeypatch, source):
    monkeypatch.setattr(validate, "SECONDS", 1.0)
    name = validate.RUNS if source.startswith("def") else validate.SIGNATURE
    assert failed(source) == {
        name: "It had not ended after 1 s, where an ordinary entry needs a few. "
        "Look for a loop without end, or do less."
    }


@pytest.mark.parametrize(
    ("source", "finding"),
    [
        ("def unlearning(net):\n    pass\n", "Wrong signature unlearning(net): it must be callable as "),
        ("x = 1\n", "The file defines no function unlearning("),
        ("raise OSError('no such data')\n", "OSError: no such data (line 1). It has to load on its own"),
    ],
)
def test_file_that_is_no_entry(failed, source, finding):
    fixes = failed(source)
    assert fixes.keys() == {validate.SIGNATURE}
    assert fixes[validate.SIGNATURE].startswith(finding)


def test_own_imports_do_not_run_in_the_competition(failed):
    fixes = failed("from data_prep.dataset import load\nfrom . import finetune\n")
    assert fixes[validate.SELF_CONTAINED] == (
        "Line 1 imports data_prep; line 2 imports its neighbours. "
        "Copy what you need into the file: it is pasted into a notebook alone."
    )


@pytest.mark.parametrize("content", [b"def unlearning(:\n", b"x = 1\x00\n", b"# \xff\n"])
def test_file_that_is_not_python(tmp_path, content):
    path = tmp_path / "mine.py"
    path.write_bytes(content)
    (check,) = validate.validate(path)
    assert (check.name, check.passed) == (validate.READABLE, False)
    assert check.fix


def test_line_of_a_notebook_is_quoted(failed):
    cells = ["import torch", f"x = 1\n{DEFINITION}    raise KeyError('age')\n"]
    fixes = failed(json.dumps(notebook(cells)), "mine.ipynb")
    assert fixes[validate.RUNS].startswith("KeyError: 'age' (\"raise KeyError('age')\"). ")


def test_command_prints_what_decides_and_its_exit_code_tells(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text("def unlearning(:\n")
    assert main(["validate", str(path)]) == 3
    first, failure, last = capsys.readouterr().out.splitlines()
    assert first == "Runs in the competition:"
    assert failure.startswith("  FAIL  can be read as Python: ")
    assert last == f"FAIL: {path} does not run in the competition yet."


def test_command_refuses_a_file_that_is_not_there(tmp_path, capsys):
    assert main(["validate", str(tmp_path / "mine.py")]) == 2
    assert f"There is no entry file {tmp_path / 'mine.py'}. " in capsys.readouterr().err


def test_command_calls_what_does_not_decide_a_hint(tmp_path, capsys, monkeypatch):
    checks = [Check(validate.READABLE, True), Check(validate.TUPLES, False, "Take batch[0].")]
    monkeypatch.setattr(validate, "validate", lambda path: checks)
    path = tmp_path / "mine.py"
    path.write_text(f"{DEFINITION}    net.cuda()\n")
    assert main(["validate", str(path)]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        "Runs in the competition:",
        "  ok    can be read as Python",
        "Portable, to other data, nets and loaders (advice):",
        "  hint  runs on tuple batches: Take batch[0].",
        f"PASS: {path} runs in the competition, with 1 hint(s) for other places.",
    ]
    assert printed.err == f"{path} is written for a GPU; to run on the CPU, line 2: .cuda() -> .cpu().\n"
