"""Reference packs made, checked and tampered with, as a user does: by commands."""

import json
from dataclasses import replace

import numpy as np
import pytest

from local_scorer import cli, reference
from local_scorer.metric import logit_scaled_confidence
from local_scorer.metric.score import final_score
from local_scorer.runs import pack
from local_scorer.runs.pack import Pack
from local_scorer.runs.record import Run
from local_scorer.runs.store import RunFolder
from tests.helpers.runs import run_record

NOISE = """import torch

def unlearning(net, retain_loader, forget_loader, val_loader):
    with torch.no_grad():
        net.fc.weight += 0.1 * torch.randn_like(net.fc.weight)
"""


@pytest.fixture(scope="module")
def made(tiny_data, tmp_path_factory):
    """Return a pack of 3 retrained models of each kind and 2 originals, and the options that it was made with."""
    folder = tmp_path_factory.mktemp("reference")
    options = ["--data", str(tiny_data), "--out", str(folder / "run")]
    path = folder / "pack.npz"
    assert cli.main(["reference", "make", *options, "--models", "3", "--originals", "2", "--pack", str(path)]) == 0
    return path, options


def check(path, options, capsys):
    code = cli.main(["reference", "check", *options, "--models", "3", "--pack", str(path)])
    lines = capsys.readouterr().out.splitlines()
    return code, {line[6:].partition(":")[0]: line[:4] == "ok  " for line in lines}


def changed(path, out, **arrays):
    """Write a pack again with other arrays, and with hashes that fit them."""
    opened = Pack(path)
    content = {name: opened.array(name) for name in opened.header.arrays}
    return pack.write(out, replace(opened.header, arrays={}), content | arrays)


def test_a_pack_passes_its_check(made, capsys):
    code, passed = check(*made, capsys)
    assert code == 0
    models = [f"{role} {index}" for index in range(3) for role in ("retrained", "ceiling")]
    assert passed == {name: True for name in ("arrays", "pictures", "originals", *models)}


def test_making_it_again_trains_nothing_and_gives_the_same_arrays(made, tmp_path):
    path, options = made
    again = tmp_path / "again.npz"
    arguments = [*options, "--models", "3", "--originals", "2", "--pack", str(again)]
    assert cli.main(["reference", "make", *arguments]) == 0
    assert Pack(again).header.arrays == Pack(path).header.arrays


def test_outputs_of_another_population_fail(made, tmp_path, capsys):
    path, options = made
    opened = Pack(path)
    logits, labels = opened.array("retrained_forget_logits").copy(), opened.array("forget_labels")
    logits[:, np.arange(len(labels)), labels] += 8
    accuracy = (logits.argmax(axis=2) == labels).mean(axis=1)
    arrays = {
        f"{kind}_{name}": value
        for kind in ("retrained", "ceiling")
        for name, value in (("forget_logits", logits), ("forget_accuracy", accuracy))
    }
    assert (logit_scaled_confidence(logits, labels) > 0).mean() > 0.9
    code, passed = check(changed(path, tmp_path / "other.npz", **arrays), options, capsys)
    assert code == 1
    assert not passed["retrained 0"]


def test_weights_of_another_model_fail(made, tmp_path, capsys):
    path, options = made
    weights = np.roll(Pack(path).array("weights"), 1, axis=0)
    code, passed = check(changed(path, tmp_path / "other.npz", weights=weights), options, capsys)
    assert code == 1
    assert not passed["originals"]


def test_accuracies_that_do_not_follow_from_the_logits_fail(made, tmp_path, capsys):
    path, options = made
    other = changed(path, tmp_path / "other.npz", retrained_forget_accuracy=np.ones(3))
    code, passed = check(other, options, capsys)
    assert code == 1
    assert passed == {"arrays": False}


@pytest.mark.parametrize("name", ["retain_accuracy", "validation_confidence", "test_logits"])
def test_other_outputs_beside_the_same_answers_fail(made, tmp_path, capsys, name):
    path, options = made
    array = Pack(path).array(f"ceiling_{name}").copy()
    array[1] /= 2
    code, passed = check(changed(path, tmp_path / "other.npz", **{f"ceiling_{name}": array}), options, capsys)
    assert code == 1
    assert [model for model, ok in passed.items() if not ok] == ["ceiling 1"]


def test_which_models_are_trained_again_cannot_be_foretold(made, capsys, monkeypatch):
    path, options = made
    sampled = []
    monkeypatch.setattr(
        reference.secrets.SystemRandom, "sample", lambda self, known, n: sampled.append((known, n)) or [2]
    )
    assert cli.main(["reference", "check", *options, "--models", "1", "--pack", str(path)]) == 0
    assert sampled == [(range(3), 1)]
    assert "retrained 2: equal to the bit" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "models", "sentence"),
    [("check", "4", "has 3 retrained models: --models may not"), ("make", "2", "needs 3 retrained models")],
)
def test_wrong_numbers_are_refused_before_anything_is_trained(made, tmp_path, capsys, command, models, sentence):
    path, options = made
    pack_file = path if command == "check" else tmp_path / "new.npz"
    arguments = [*options[:2], "--out", str(tmp_path / "run"), "--models", models, "--pack", str(pack_file)]
    assert cli.main(["reference", command, *arguments]) != 0
    assert sentence in capsys.readouterr().err
    assert not list((tmp_path / "run").glob("jobs/*.npz"))


def test_outputs_only_holds_no_weights_and_no_pictures(made, tmp_path, capsys):
    path, options = made
    out = tmp_path / "outputs.npz"
    arguments = [*options, "--models", "3", "--originals", "2", "--pack", str(out), "--outputs-only"]
    assert cli.main(["reference", "make", *arguments]) == 0
    opened = Pack(out)
    assert not opened.has_weights
    assert opened.array("weights").size == opened.array("images").size == 0
    assert np.array_equal(opened.array("retrained_forget_logits"), Pack(path).array("retrained_forget_logits"))
    assert cli.main(["reference", "info", "--pack", str(out)]) == 0
    assert "outputs only" in capsys.readouterr().out


def test_other_pictures_at_home_are_replaced_by_those_of_the_pack(made, tiny_data, tmp_path, capsys):
    import data_prep.dataset

    path, options = made
    home = data_prep.dataset.load(tiny_data)
    images = np.array(home.images)
    images[5, 0, 0, 0] ^= 1
    other = data_prep.dataset.write(
        tmp_path / "drawn",
        images=images,
        examples=home.examples,
        name=home.name,
        class_names=home.class_names,
        settings=home.manifest["settings"],
        seed=home.manifest["seed"],
        sources=home.manifest["sources"],
    )
    arguments = ["--data", str(other), *options[2:], "--models", "1", "--pack", str(path)]
    assert cli.main(["reference", "check", *arguments]) == 0
    assert "1 of 108 pictures drawn here differ" in capsys.readouterr().out
    beside = tmp_path / f"drawn-of-pack-{home.fingerprint[:8]}"
    assert data_prep.dataset.load(beside).fingerprint == home.fingerprint


def test_a_board_against_a_pack(made, tmp_path):
    """Nothing is trained but the models for the clock, and every score is the mean of one from each original."""
    path, options = made
    entry = tmp_path / "noise.py"
    entry.write_text(NOISE)
    run_folder = tmp_path / "run"
    command = ["leaderboard", str(entry), *options[:2], "--reference", str(path), "--models", "3"]
    code = cli.main([*command, "--originals", "2", "--out", str(run_folder)])
    assert code in (0, 3)  # 3: on so little data a start may be over the limit
    run = Run.open(run_folder)
    assert not (run.record.originals or run.record.retrained or run.record.ceiling)
    assert len(run.record.calibration) == 4
    assert len(run.entry("noise").keys) == 6
    board = json.loads((run_folder / "leaderboard.json").read_text())
    rows = {row["entry"]: row for row in board["rows"]}
    assert (board["n_originals"], board["n_retrained"]) == (2, 3)
    expected = [final_score(models, run.retrained).score for models in run.sets("noise")]
    assert rows["noise"]["scores"] == expected
    total = rows["noise"]["score"] if code == 0 else rows["noise"]["score_without_limit"]
    assert total == pytest.approx(np.mean(expected))
    assert rows["retrained"]["time_ratio"] is None  # the pack's seconds are of another machine
    assert rows["noise"]["time_ratio"] > 0
    first, second = run.sets("noise")
    assert not np.array_equal(first.logits, second.logits)
    assert np.array_equal(run.retrained.logits, Pack(path).array("retrained_forget_logits"))


def test_the_full_setup_trains_as_many_originals_as_models(made, tmp_path):
    """With a pack of two originals, N=3; those that the pack was made with are in the run folder already."""
    path, options = made
    entry = tmp_path / "nothing.py"
    entry.write_text("def unlearning(net, retain_loader, forget_loader, val_loader):\n    net.eval()\n")
    command = ["leaderboard", str(entry), *options, "--reference", str(path), "--models", "3"]
    assert cli.main([*command, "--setup", "full"]) in (0, 3)  # 3: on so little data a start may be over the limit
    run = Run.open(options[-1])
    assert len(set(run.record.originals)) == 3
    runs, floor = run.models("nothing"), run.models("no unlearning")
    assert np.array_equal(runs.logits, floor.logits)  # each run starts from an original of its own
    assert not np.array_equal(floor.logits[0], floor.logits[1])
    assert run.retrained.n_models == 3


def test_against_a_pack_of_outputs_only_the_originals_are_trained_at_home(made, tmp_path):
    path, options = made
    outputs = tmp_path / "outputs.npz"
    arguments = [*options, "--models", "3", "--originals", "2", "--pack", str(outputs), "--outputs-only"]
    assert cli.main(["reference", "make", *arguments]) == 0
    entry = tmp_path / "nothing.py"
    entry.write_text("def unlearning(net, retain_loader, forget_loader, val_loader):\n    net.eval()\n")
    command = ["leaderboard", str(entry), *options, "--reference", str(outputs), "--models", "3"]
    assert cli.main([*command, "--originals", "2"]) in (0, 3)  # 3: on so little data a start may be over the limit
    run = Run.open(options[-1])
    assert len(run.record.originals) == 2
    assert not (run.record.retrained or run.record.ceiling)
    for index, models in enumerate(run.sets("nothing")):
        assert np.array_equal(models.logits, run.sets("no unlearning")[index].logits)
    assert np.array_equal(run.retrained.logits, Pack(path).array("retrained_forget_logits"))


def test_one_original_of_a_pack_is_held_against_all_its_retrained_models(made, tmp_path):
    path, options = made
    entry = tmp_path / "noise.py"
    entry.write_text(NOISE)
    command = ["leaderboard", str(entry), *options[:2], "--reference", str(path), "--models", "3"]
    assert cli.main([*command, "--originals", "1", "--out", str(tmp_path / "run")]) in (0, 3)
    run = Run.open(tmp_path / "run")
    (models,) = run.sets("noise")
    assert models.n_models == run.retrained.n_models == 3
    assert np.array_equal(run.retrained.logits, Pack(path).array("retrained_forget_logits"))
    board = json.loads((tmp_path / "run" / "leaderboard.json").read_text())
    assert any("one original" in note for note in board["notes"])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (["--setup", "full"], "as many originals as models"),
        (["--originals", "3"], "--originals up to 2"),
        (["--models", "4"], "--models up to 3"),
        (["--width", "32"], "another --width"),
        (["--seed", "1"], "another --seed"),
        (["--recipe", "report"], "another --recipe"),
        (["--fresh"], "give one"),
    ],
)
def test_a_pack_that_does_not_fit_is_refused(made, tmp_path, capsys, changes, sentence):
    path, options = made
    command = ["leaderboard", "kaggle_submission/finetune.py", *options[:2], "--reference", str(path)]
    defaults = ["--models", "3", "--originals", "2", "--out", str(tmp_path / "run")]
    assert cli.main([*command, *defaults, *changes]) in (1, 2)  # 2 where the value cannot be right with any pack
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "run" / "jobs").exists()


def test_the_wrong_pack_in_a_run_folder_is_refused(made, tmp_path):
    path, options = made
    other = tmp_path / "outputs.npz"
    arguments = [*options, "--models", "3", "--originals", "2", "--pack", str(other), "--outputs-only"]
    assert cli.main(["reference", "make", *arguments]) == 0
    run_folder = RunFolder(tmp_path / "run")
    run_folder.pack_path.parent.mkdir()
    run_folder.pack_path.write_bytes(other.read_bytes())
    record = run_record((), ())
    with pytest.raises(ValueError, match="another pack"):
        _ = Run(run_folder, replace(record, reference=Pack(path).sha256)).pack
