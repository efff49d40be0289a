"""What a rehearsal says of a submission.zip: one that is in order, and one with each fault."""

import zipfile

import pytest
import torch

from kaggle_submission.tools import checks
from local_scorer.models import nets

NAMES = ["unlearned_checkpoint_0.pth", "unlearned_checkpoint_1.pth"]


@pytest.fixture(scope="module")
def weights():
    """State dicts of an original and of two models made from it."""
    return [nets.fresh_net(10, 16, seed).half().state_dict() for seed in range(3)]


@pytest.fixture
def check(tmp_path, weights):
    """Return a function that packs models under names and gives the level of each check, and what failed."""

    def found(models, names=NAMES):
        working = tmp_path / "kaggle" / "working"
        working.mkdir(parents=True)
        with zipfile.ZipFile(working / "submission.zip", "w") as archive:
            for name, model in zip(names, models, strict=True):
                torch.save(model, tmp_path / name)
                archive.write(tmp_path / name, name)
        return verdict(tmp_path, weights[0])

    return found


def verdict(root, original):
    findings = checks.check_submission(root, 2, original)
    return {f.name: f.level for f in findings}, "".join(f.text for f in findings if f.level == "FAIL")


def test_a_submission_in_order_passes(check, weights):
    assert check(weights[1:]) == ({"zip": "ok", "weights": "ok", "spread": "ok"}, "")


def test_no_zip(tmp_path, weights):
    levels, text = verdict(tmp_path, weights[0])
    assert levels == {"zip": "FAIL"}
    assert text == "There is no submission.zip in /kaggle/working: write it as the last thing."


def test_an_empty_zip(tmp_path, weights):
    path = tmp_path / "kaggle" / "working" / "submission.zip"
    path.parent.mkdir(parents=True)
    path.touch()
    levels, text = verdict(tmp_path, weights[0])
    assert levels == {"zip": "FAIL"}
    assert text.startswith("/kaggle/working/submission.zip is empty: the notebook found empty.txt or made no ")


def test_too_few_checkpoints(check, weights):
    levels, text = check(weights[1:2], NAMES[:1])
    assert levels == {"number": "FAIL"}
    assert text == "submission.zip holds 1 checkpoints after 2 runs: save one in every run."


@pytest.mark.parametrize("names", [["model_0.pth", "model_1.pth"], [*NAMES, "log.txt"]])
def test_other_names(check, weights, names):
    levels, text = check(weights[: len(names)], names)
    assert levels == {"zip": "FAIL"}
    assert text.startswith(f"/kaggle/working/submission.zip holds '{next(n for n in names if n not in NAMES)}'")
    assert "expected unlearned_checkpoint_0.pth" in text


def test_the_same_model_twice(check, weights):
    levels, text = check([weights[1]] * 2)
    assert levels == {"zip": "ok", "weights": "ok", "spread": "FAIL"}
    assert text.startswith("Runs 0 and 1 left the same model, and equal models score nothing. Set no seed")


BAD_WEIGHTS = {
    "missing key": ({"fc.bias": None}, "The model lost its weight 'fc.bias'"),
    "other shape": (
        {"fc.weight": lambda weight: weight[:3]},
        "Weight 'fc.weight' has shape [3, 128] instead of [10, 128].",
    ),
    "integers": ({"fc.weight": torch.Tensor.int}, "Weight 'fc.weight' has the type torch.int32 instead of"),
    "not finite": ({"fc.bias": lambda bias: bias / 0}, "Weight 'fc.bias' is not finite (NaN or infinity)."),
    "extra key": ({"epoch": lambda _: torch.tensor(3)}, "The model has gained the weight 'epoch'"),
}


@pytest.mark.parametrize("kind", BAD_WEIGHTS)
def test_bad_weights(kind, check, weights):
    changes, sentence = BAD_WEIGHTS[kind]
    bad = dict(weights[1])
    for name, change in changes.items():
        tensor = bad.pop(name, None)
        bad |= {name: change(tensor)} if change else {}
    levels, text = check([bad, weights[2]])
    assert levels == {"zip": "ok", "weights": "FAIL"}
    assert text.startswith(f"unlearned_checkpoint_0.pth: {sentence}")


def test_a_pickled_net(check):
    levels, text = check([nets.fresh_net(10, 16, seed) for seed in range(2)])
    assert levels == {"zip": "ok", "weights": "FAIL"}
    assert text == (
        "unlearned_checkpoint_0.pth holds more than tensors and would run code when opened: it was refused "
        "unopened. Save net.state_dict() and nothing else."
    )
