"""Reading a submission.zip made elsewhere, and scoring it to the numbers of a direct run."""

import collections
import io
import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from data_prep import dataset
from local_scorer import cli
from local_scorer.execution import checkpoint, steps, submission
from local_scorer.execution.checkpoint import WeightsError, read_submitted
from local_scorer.execution.job import Job
from local_scorer.execution.local import LocalEngine
from local_scorer.execution.submission import SubmissionError, open_submission
from local_scorer.models import nets
from local_scorer.models.recipes import RECIPES
from local_scorer.run import Settings, run
from local_scorer.runs.record import Run
from local_scorer.runs.store import RunFolder

ROOT = Path(__file__).resolve().parents[2]
FINETUNE = ROOT / "kaggle_submission" / "finetune.py"


class Bomb:
    """Something that runs code when it is unpickled."""

    def __reduce__(self):
        return print, ("the bomb went off",)


def saved(content, **options):
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def write_zip(path, members, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def checkpoints(count, content=b"x", folder=""):
    return [(f"{folder}unlearned_checkpoint_{number}.pth", content) for number in range(count)]


@pytest.fixture
def zip_path(tmp_path):
    return tmp_path / "submission.zip"


@pytest.mark.parametrize("folder", ["", "kaggle/tmp/", "tmp/rehearsal/kaggle/tmp/"])
def test_checkpoints_lie_at_the_top_or_where_the_organisers_put_them(zip_path, folder):
    write_zip(zip_path, reversed(checkpoints(12, folder=folder)))
    found = open_submission(zip_path)
    assert found.n_models == 12
    assert found.members[11] == f"{folder}unlearned_checkpoint_11.pth"


@pytest.mark.parametrize(
    ("members", "sentence"),
    [
        ([], "holds no checkpoint."),
        ([*checkpoints(2), ("readme.txt", b"")], "holds 'readme.txt': expected unlearned_checkpoint_0.pth, "),
        (checkpoints(2, folder="models/"), "must lie at the top of the zip, or in kaggle/tmp as the organisers'"),
        (checkpoints(2, folder="/etc/"), "must lie at the top of the zip"),
        (checkpoints(2, folder="../kaggle/tmp/"), "must lie at the top of the zip"),
        (checkpoints(2) + checkpoints(1, folder="kaggle/tmp/"), "holds unlearned_checkpoint_0.pth twice."),
        (
            checkpoints(4)[1:],
            "holds 3 checkpoints with numbers up to 3: they must be numbered from 0 without a gap",
        ),
        ([("unlearned_checkpoint_00.pth", b"")], "holds 'unlearned_checkpoint_00.pth': expected"),
    ],
)
def test_a_wrong_list_of_members_is_refused(zip_path, members, sentence):
    write_zip(zip_path, members)
    with pytest.raises(SubmissionError) as error:
        open_submission(zip_path)
    assert str(error.value).startswith(str(zip_path))
    assert sentence in str(error.value)


def test_what_is_no_zip_is_refused(zip_path):
    with pytest.raises(SubmissionError, match="There is no file"):
        open_submission(zip_path)
    zip_path.touch()
    with pytest.raises(SubmissionError, match=r"is empty: the notebook found empty\.txt"):
        open_submission(zip_path)
    zip_path.write_bytes(b"not a zip")
    with pytest.raises(SubmissionError, match=r"is not a whole zip file \(File is not a zip file\)"):
        open_submission(zip_path)


def test_a_huge_member_is_refused_unread(zip_path, monkeypatch):
    monkeypatch.setattr(submission, "MAX_BYTES", 1 << 20)
    write_zip(zip_path, checkpoints(1, b"\0" * (1 << 21)), compression=zipfile.ZIP_DEFLATED)
    assert zip_path.stat().st_size < 1 << 14
    with pytest.raises(SubmissionError, match="unpacks to 2,097,152 bytes, more than the 1,048,576"):
        open_submission(zip_path)


def test_a_member_that_hides_its_size_is_read_no_further_than_the_limit(zip_path, monkeypatch):
    monkeypatch.setattr(submission, "MAX_BYTES", 1 << 20)
    write_zip(zip_path, checkpoints(1, b"\0" * (1 << 21)), compression=zipfile.ZIP_DEFLATED)
    size = (1 << 21).to_bytes(4, "little")
    content = zip_path.read_bytes()
    assert content.count(size) == 2
    zip_path.write_bytes(content.replace(size, (1000).to_bytes(4, "little")))
    with pytest.raises(SubmissionError, match=r"cannot be unpacked .*Bad CRC-32"):
        read_submitted(zip_path, 0)


def test_a_checkpoint_that_unpacks_to_more_than_it_has_is_refused(zip_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "MAX_BYTES", 1 << 20)
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * (1 << 21))
    write_zip(zip_path, checkpoints(1, inner.getvalue()))
    with pytest.raises(WeightsError, match=r"^unlearned_checkpoint_0\.pth unpacks to 2,097,152 bytes"):
        read_submitted(zip_path, 0)


def test_lzma_and_encrypted_members_are_refused(zip_path):
    write_zip(zip_path, checkpoints(1), compression=zipfile.ZIP_LZMA)
    with pytest.raises(SubmissionError, match="is encrypted or not packed by deflate"):
        open_submission(zip_path)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_bomb_does_not_go_off(zip_path, capfd, legacy):
    content = saved({"fc.weight": Bomb()}, _use_new_zipfile_serialization=not legacy)
    write_zip(zip_path, checkpoints(1, content))
    expected = "is not a file that torch.save wrote" if legacy else "would run code when opened: it was refused"
    with pytest.raises(WeightsError, match=expected):
        read_submitted(zip_path, 0)
    assert "bomb" not in capfd.readouterr().out


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch remarks on every sparse tensor
@pytest.mark.parametrize(
    "content",
    [
        [torch.zeros(2)],
        {"a": 1.0},
        {0: torch.zeros(2)},
        {"a": torch.zeros(2, dtype=torch.complex64)},
        {"a": torch.zeros(2).to_sparse()},
        {"a": torch.zeros(2, device="meta")},
    ],
)
def test_only_state_dicts_of_ordinary_tensors_come_out(zip_path, content):
    write_zip(zip_path, checkpoints(1, saved(content)))
    with pytest.raises(
        WeightsError, match=r"^unlearned_checkpoint_0\.pth is not a state dict of ordinary tensors"
    ):
        read_submitted(zip_path, 0)


def test_weights_come_back_in_their_own_precision(zip_path):
    weights = collections.OrderedDict(a=torch.tensor([0.1, 2.0]).half(), n=torch.tensor(3))
    write_zip(zip_path, checkpoints(2, saved(weights)))
    back = read_submitted(zip_path, 1)
    assert back["a"].dtype == torch.float16 and torch.equal(back["a"], weights["a"])
    assert back["n"].dtype == torch.int64 and back["n"] == 3
    with pytest.raises(SubmissionError, match=r"holds no unlearned_checkpoint_2\.pth"):
        read_submitted(zip_path, 2)


def test_half_precision_weights_are_evaluated_in_float32():
    net, other = (nets.fresh_net(3, 16, seed) for seed in (0, 1))
    checkpoint.load_into(net, {name: _halved(tensor) for name, tensor in other.state_dict().items()})
    assert net.fc.weight.dtype == torch.float32
    assert torch.equal(net.fc.weight, other.fc.weight.half().float())


def _halved(tensor):
    return tensor.half() if tensor.is_floating_point() else tensor


@pytest.fixture(scope="module")
def direct_run(tiny_data, tmp_path_factory):
    """A finished run of fine-tuning with 4 models, and the checkpoints that it scored."""
    folder = RunFolder(tmp_path_factory.mktemp("direct"))
    settings = Settings(tiny_data, n_models=4)
    with LocalEngine(folder, workers=2) as engine:
        board = run(settings, [FINETUNE], folder, engine, show_progress=False)
    record = Run.open(folder).record
    data = dataset.load(tiny_data)
    job = Job(
        "unlearned", 0, str(tiny_data), data.fingerprint, RECIPES["quick"], 16, 0, "cpu",
        entry="finetune", entry_hash=record.entries[0].hash,
    )  # fmt: skip
    weights = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the run
    try:
        for index in range(4):
            work = tmp_path_factory.mktemp("work")
            repeated = replace(job, index=index)
            assert repeated.key == record.entries[0].keys[index]
            (work / "entry.py").write_bytes(folder.entry_path(repeated.entry_hash).read_bytes())
            with torch.random.fork_rng():
                steps.unlearn(repeated, folder, "cpu", work, lambda: None)
            weights.append(checkpoint.read_state_dict(work / "net.pt"))
    finally:
        torch.set_num_threads(threads)
    return folder, board, weights


def scorer(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "local_scorer", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


def row_of(folder, name):
    rows = json.loads((folder / "leaderboard.json").read_text())["rows"]
    return next(row for row in rows if row["entry"] == name)


NUMBERS = (
    "forgetting_quality",
    "retain_accuracy",
    "forget_accuracy",
    "test_accuracy",
    "retain_ratio",
    "test_ratio",
)


def test_rescoring_gives_the_numbers_of_the_direct_run(direct_run, tiny_data, tmp_path):
    folder, board, weights = direct_run
    halved = [{name: _halved(tensor) for name, tensor in each.items()} for each in weights]
    for name, sets in (("full", weights), ("half", halved)):
        members = [(f"kaggle/tmp/unlearned_checkpoint_{i}.pth", saved(each)) for i, each in enumerate(sets)]
        write_zip(tmp_path / f"{name}.zip", members)
    done = scorer(
        "leaderboard", tmp_path / "full.zip", tmp_path / "half.zip", "--data", tiny_data, "--out", folder.root
    )
    assert done.returncode == 0, done.stderr
    direct = next(row for row in board.rows if row.entry == "finetune")
    full, half = (row_of(folder.root, name) for name in ("full", "half"))
    assert [full[name] for name in NUMBERS] == [getattr(direct, name) for name in NUMBERS]
    assert (
        full["score"] == direct.forgetting_quality * direct.retain_ratio * direct.test_ratio
    )  # if slow, has none
    for row in (full, half):
        assert (row["n_models"], row["status"], row["seconds"], row["time_ratio"]) == (4, "scored", None, None)
        unknown = "Made elsewhere, in a time that is not known: the limit of 20% was not checked."
        assert row["reason"].startswith(unknown)
    run = Run.open(folder)
    for index in range(4):
        found = folder.load_result(run.entry("half").keys[index]).logits["forget"]
        np.testing.assert_array_equal(found, forget_logits(halved[index], tiny_data))
        exact = folder.load_result(run.entry("full").keys[index]).logits["forget"]
        np.testing.assert_allclose(found, exact, atol=0.01 * np.abs(exact).max())


def forget_logits(weights, tiny_data):
    data = dataset.load(tiny_data)
    net = nets.fresh_net(data.n_classes, 16, seed=0)
    net.load_state_dict(weights)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return nets.predict_logits(net, torch.from_numpy(data.images[data.rows("forget")])).numpy()
    finally:
        torch.set_num_threads(threads)


def test_a_submission_that_does_not_fit_ends_the_run_before_anything_is_trained(direct_run, tiny_data, tmp_path):
    _, _, weights = direct_run
    good = [(f"unlearned_checkpoint_{i}.pth", saved(w)) for i, w in enumerate(weights)]
    path = write_zip(tmp_path / "submission.zip", good)
    folder = RunFolder(tmp_path / "run")

    def refused(**changes):
        settings = Settings(tiny_data, **{"n_models": 4} | changes)
        with pytest.raises(SubmissionError) as error, LocalEngine(folder, workers=1) as engine:
            run(settings, [path], folder, engine, show_progress=False)
        assert not list(folder.root.glob("jobs/*.npz"))
        return str(error.value)

    assert refused(n_models=512) == f"{path} holds 4 checkpoints, expected 512: see --models."
    assert refused(width=64) == f"{path} holds models of width 16: score them with --width 16."
    wide = {name: v.repeat(2, *[1] * (v.ndim - 1)) if "fc" in name else v for name, v in weights[0].items()}
    write_zip(path, [(good[0][0], saved(wide)), *good[1:]])
    assert refused() == (
        f"{path} holds models with 16 outputs, and {tiny_data} has 8 classes: score them with "
        "--outputs 16, or give the data set that they were "
        "made from with --data."
    )
    write_zip(path, [(good[0][0], saved({**weights[0], "fc.bias": weights[0]["fc.bias"] / 0})), *good[1:]])
    assert refused() == f"{path}, checkpoint 0: Weight 'fc.bias' is not finite (NaN or infinity)."


def test_the_command_refuses_with_a_sentence_and_takes_the_number_of_models_from_the_zip(
    tiny_data, zip_path, capsys
):
    write_zip(zip_path, checkpoints(2))
    assert cli.main(["score", str(zip_path), "--data", str(tiny_data)]) == 2
    assert capsys.readouterr().err == "error: --models must be at least 3, found 2: fewer show no spread.\n"
    zip_path.write_bytes(b"no zip")
    assert cli.main(["score", str(zip_path), "--data", str(tiny_data)]) == 1
    error = capsys.readouterr().err
    assert error == f"error: {zip_path} is not a whole zip file (File is not a zip file). Make it again.\n"
