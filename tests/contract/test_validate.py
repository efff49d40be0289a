"""`validate` names what is wrong with an entry, and nothing that is not."""

import pytest

from local_scorer import validate
from local_scorer.cli import main
from local_scorer.validate import Check

DEFINITION = "def unlearning(net, retain_loader, forget_loader, val_loader):\n"
NOISE = "    for weight in net.parameters():\n        weight.data += 0.001 * torch.randn_like(weight)\n"

# Wrong in all that can be wrong at once while every run comes to its end
CARELESS = (
    "import torch as t\n"
    "from numpy.random import seed\n"
    f"{DEFINITION}"
    "    t.manual_seed(1)\n"
    "    seed(2)\n"
    "    t.Generator().manual_seed(3)\n"
    "    open('notes.txt', 'w').close()\n"
    "    for weight in net.parameters():\n"
    "        weight.data += 0.001 * t.randn_like(weight)\n"
    "    net.layer1.train()\n"
)

# Does something sensible in the usual case only
NARROW = (
    "import torch\n"
    f"{DEFINITION}"
    "    net.train()\n"
    "    for batch in retain_loader:\n"
    "        logits = net(batch['image'])\n"
    "        torch.nn.functional.cross_entropy(logits, batch['age_group'], weight=torch.ones(8)).backward()\n"
    f"{NOISE}"
    "    net.eval()\n"
)


@pytest.fixture
def failed(tmp_path):
    """Return a function that validates a source text and gives the fixes of the failed checks by name."""

    def of(source):
        path = tmp_path / "mine.py"
        path.write_text(source)
        checks = validate.validate(path)
        assert tuple(check.name for check in checks) == validate.NAMES
        assert all(check.passed == (check.fix == "") for check in checks)
        return {check.name: check.fix for check in checks if not check.passed}

    return of


def not_run(fixes):
    return {name for name, fix in fixes.items() if fix.startswith("not run: ")}


def after(name):
    """Return the checks that come after one."""
    return set(validate.NAMES[validate.NAMES.index(name) + 1 :])


def test_careless_entry(failed):
    assert failed(CARELESS) == {
        validate.NO_SEED: "Line 4 calls torch.manual_seed; line 5 calls numpy.random.seed. "
        "Delete it: every run has a seed of its own, and equal models score nothing.",
        validate.EVAL_MODE: "Layer1 is in train mode. End unlearning() with net.eval().",
        validate.NO_FILES: "It wrote notes.txt. Keep it in memory: only the models are handed in.",
        validate.SPREAD: "Two seeds gave the same weights. "
        "Draw something at random and set no seed: equal models score nothing.",
    }


def test_entry_that_expects_the_usual_case(failed):
    fixes = failed(NARROW)
    assert fixes.keys() == {validate.TUPLES, validate.OTHER_NET, validate.SMALL}
    assert fixes[validate.TUPLES] == (
        "TypeError: list indices must be integers or slices, not str (line 5). "
        "Take batch[0] and batch[1] where a batch is not a dict, as unpack() in the template does."
    )
    assert "weight tensor should be defined" in fixes[validate.OTHER_NET]
    assert "(line 6). Take the class count from net.fc.out_features" in fixes[validate.OTHER_NET]
    assert fixes[validate.SMALL].startswith("ValueError: Expected more than 1 value per channel when training")
    assert "(line 5). Skip batches of one picture" in fixes[validate.SMALL]


def test_entry_that_does_nothing(failed):
    assert failed(f"{DEFINITION}    return net\n") == {
        validate.CHANGED: "The weights are what they were. "
        "Change the net in place: what unlearning() returns is ignored.",
        validate.SPREAD: "Two seeds gave the same weights. "
        "Draw something at random and set no seed: equal models score nothing.",
    }


def test_entry_that_raises(failed):
    fixes = failed(f"{DEFINITION}    raise KeyError('age')\n")
    assert fixes[validate.DICTS] == (
        "KeyError: 'age' (line 2). Pictures and labels of a batch are batch['image'] and batch['age_group']."
    )
    assert not_run(fixes) == after(validate.DICTS) == fixes.keys() - {validate.DICTS}
    assert fixes[validate.SPREAD] == f"not run: the check {validate.DICTS!r} has to pass first."


@pytest.mark.parametrize(
    ("line", "finding"),
    [
        ("net.fc.weight.data *= float('nan')", "Weight 'fc.weight' is not finite (NaN or infinity). "),
        ("net.fc = torch.nn.Linear(128, 5)", "Weight 'fc.weight' has shape [5, 128] instead of [8, 128]. "),
        ("net.fc = torch.nn.Identity()", "The model lost its weight 'fc.weight': it must stay a ResNet-18. "),
    ],
)
def test_entry_that_leaves_bad_weights(failed, line, finding):
    fixes = failed(f"import torch\n{DEFINITION}    {line}\n    net.eval()\n")
    assert fixes[validate.WEIGHTS] == finding + validate.REMEDIES[validate.WEIGHTS]
    assert not_run(fixes) == after(validate.WEIGHTS) == fixes.keys() - {validate.WEIGHTS}


@pytest.mark.parametrize("source", ["while True:\n    pass\n", f"{DEFINITION}    while True:\n        pass\n"])
def test_endless_entry_is_stopped(failed, monkeypatch, source):
    monkeypatch.setattr(validate, "SECONDS", 1.0)
    fixes = failed(source)
    name = validate.DICTS if source.startswith("def") else validate.SIGNATURE
    assert fixes[name] == (
        "It had not ended after 1 s, where an ordinary entry needs one or two. "
        "Look for a loop without end, or do less."
    )
    assert not_run(fixes) == after(name) == fixes.keys() - {name}


@pytest.mark.parametrize(
    ("source", "finding"),
    [
        ("def unlearning(net):\n    pass\n", "Wrong signature unlearning(net): it must be callable as "),
        ("x = 1\n", "The file defines no function unlearning("),
        ("raise OSError('no such data')\n", "OSError: no such data (line 1). Define it with these arguments"),
    ],
)
def test_file_that_is_no_entry(failed, source, finding):
    fixes = failed(source)
    assert fixes[validate.SIGNATURE].startswith(finding)
    assert not_run(fixes) == after(validate.SIGNATURE) == fixes.keys() - {validate.SIGNATURE}


def test_foreign_and_own_imports(failed):
    fixes = failed("import json, scipy.stats\nfrom data_prep.dataset import load\nfrom . import finetune\n")
    assert fixes[validate.IMPORTS] == (
        "Line 1 imports scipy. Write what you need from it into the file, or do without."
    )
    assert fixes[validate.SELF_CONTAINED] == (
        "Line 2 imports data_prep; line 3 imports its neighbours. "
        "Copy what you need into the file: it is pasted into a notebook alone."
    )


@pytest.mark.parametrize("content", [b"def unlearning(:\n", b"x = 1\x00\n", b"# \xff\n"])
def test_file_that_is_not_python(tmp_path, content):
    path = tmp_path / "mine.py"
    path.write_bytes(content)
    first, *rest = validate.validate(path)
    assert (first.name, first.passed) == (validate.READABLE, False)
    assert first.fix
    not_run = f"not run: the check {validate.READABLE!r} has to pass first."
    assert rest == [Check(name, False, not_run) for name in validate.NAMES[1:]]


def test_command_prints_a_line_per_check_and_its_exit_code_tells(tmp_path, capsys):
    path = tmp_path / "mine.py"
    assert main(["validate", str(path)]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"FAIL  can be read as Python: There is no entry file {path}."
    assert len(lines) == len(validate.NAMES) + 1
    assert lines[-1] == f"{path}: 0 of {len(validate.NAMES)} checks passed."
