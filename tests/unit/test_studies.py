"""Studies: what they write, what they refuse, and the numbers that they rest on."""

import doctest
import json
import shlex
import sys
from datetime import date

import numpy as np
import pandas as pd
import pytest

from data_prep.dataset import PreparedDataset
from local_scorer.metric.score import ModelSet, Score
from local_scorer.report import board, rows
from studies import boards, copies, correlation, forecast, frame, limits, mixes, one_retrained, originals, variants


def models(logits):
    """Return models with these logits ``[n_models, n_forget, n_classes]`` and accuracies 0.1, 0.2, ..."""
    logits = np.asarray(logits, np.float32)
    accuracy = np.arange(1, len(logits) + 1) / 10
    return ModelSet(logits, np.zeros(logits.shape[1], np.int64), *(5 * [accuracy]))


def test_doctests():
    assert doctest.testmod(variants).attempted == 4
    assert doctest.testmod(limits).attempted == 1
    assert doctest.testmod(limits).failed == 0
    assert doctest.testmod(variants).failed == 0


def test_orders_agree():
    assert doctest.testmod(mixes).attempted == 1
    assert doctest.testmod(mixes).failed == 0
    assert mixes.agreement(np.array([3.0, 2, 1]), np.array([30.0, 20, 10])) == pytest.approx((1, 1))
    assert mixes.agreement(np.array([1.0, 2, 3]), np.array([30.0, 20, 10])) == pytest.approx((0, -1))


def test_a_rank_correlation_is_sure_only_where_scores_are():
    assert doctest.testmod(correlation).attempted == 1
    assert doctest.testmod(correlation).failed == 0
    scores, generator = np.linspace(0.03, 0.3, 12), np.random.default_rng(0)
    low, high = correlation.redrawn(scores, 0 * scores, scores, 0.0, generator)
    assert 0.9 < low <= high <= 1
    assert correlation.redrawn(scores[::-1], 0 * scores, scores, 0.0, generator)[1] < -0.9
    low, high = correlation.redrawn(scores, 10 * scores, scores, 0.0, generator)
    assert low < 0.2 < high - low


def test_intervals_are_held_against_the_originals_that_were_left_out():
    """Scores of one law are held about as often as said; where one original in 24 is far off, hardly any hold."""
    random = np.random.default_rng(0)
    rows = {row[1]: row for row in originals.coverage({"usual": random.gamma(9, 0.005, 24)}, 50)}
    assert list(rows) == [2, 4, 8]
    assert all(row[-1] > 0.85 and row[-2] <= row[-1] for row in rows.values())
    odd = np.append(np.linspace(0.010, 0.011, 23), 10.0)
    assert all(row[-1] < 0.4 for row in originals.coverage({"odd": odd}, 50))


def test_groups_of_four_share_no_original():
    (row,) = originals.groups({"ssd": np.repeat([0.01, 0.02, 0.03], 4)}, 50)
    assert row[:6] == ("ssd", 0.01, 0.03, pytest.approx(0.01), pytest.approx(0.03), 3)
    said = originals.leaders({"a": np.arange(1, 9) / 10, "b": np.arange(8, 0, -1) / 10 - 0.01})
    assert "from one original a in 4, b in 4; from four a in 1, b in 1." in said


def test_every_combination_is_a_variant():
    assert variants.expanded("gisa LR=1,2 ADAPT=none,element") == [
        "gisa LR=1 ADAPT=none", "gisa LR=1 ADAPT=element", "gisa LR=2 ADAPT=none", "gisa LR=2 ADAPT=element",
    ]  # fmt: skip
    assert variants.expanded("ssd") == ["ssd"]
    assert variants.expanded("ssd A=(2,1),3") == ["ssd A=(2,1)", "ssd A=3"]  # brackets hold one value together


def test_a_variant_differs_from_its_entry_by_its_settings_alone(tmp_path):
    path = variants.written("gisa LR=1e-3 ADAPT=none RETAIN_SAMPLE=None", tmp_path)
    assert path.stem == "gisa LR=1e-3 ADAPT=none RETAIN_SAMPLE=None"
    before = (variants.ENTRIES / "gisa.py").read_text().splitlines()
    after = path.read_text().splitlines()
    changed = [new for old, new in zip(before, after, strict=True) if old != new]
    values = [line.partition("  #")[0] for line in changed]
    assert values == ["ADAPT = 'none'", "RETAIN_SAMPLE = None", "LR = 1e-3"]


@pytest.mark.parametrize(
    ("variant", "sentence"),
    [
        ("nobody LR=1", "There is no entry 'nobody' in kaggle_submission/."),
        ("gisa SPEED=1", "gisa.py has no setting 'SPEED'."),
        ("gisa loss=1", "gisa.py has no setting 'loss'."),  # indented: no setting
    ],
)
def test_a_variant_that_cannot_be_is_refused(tmp_path, variant, sentence):
    with pytest.raises(ValueError) as caught:
        variants.written(variant, tmp_path)
    assert str(caught.value) == sentence
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["gisa LR", "gisa LR="])
def test_a_setting_without_a_value_is_refused(text):
    with pytest.raises(ValueError, match="Expected NAME=VALUE after the entry's name"):
        variants.expanded(text)


def test_the_substitute_is_one_model_and_a_tenth_of_the_spread():
    random = np.random.default_rng(0)
    retrained = models(random.normal(0, 5, (50, 40, 3)))
    unlearned = models(random.normal(0, 2, (50, 40, 3)))
    fake = one_retrained.substitute(retrained, 7, unlearned, random)
    noise = fake.logits - retrained.logits[7]
    assert noise.std() == pytest.approx(0.2, rel=0.03)
    assert abs(noise.mean()) < 0.01
    assert np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1] == pytest.approx(0, abs=0.3)  # drawn anew
    assert fake.test_accuracy.tolist() == 50 * [0.8]
    assert fake.retain_accuracy.tolist() == 50 * [0.8]


def test_a_copy_in_the_retain_set_is_found_equal_or_near():
    random = np.random.default_rng(0)
    pictures = random.integers(40, 200, (4, 3, 32, 32), dtype=np.uint8)
    images = np.concatenate([pictures, pictures[[1]], pictures[[2]] + np.uint8(9), pictures[[0]]])
    splits = ["forget", "forget", "forget", "retain", "retain", "retain", "test"]
    data = PreparedDataset(None, images, pd.DataFrame({"split": splits}), {})
    assert copies.has_copy(data).tolist() == [False, True, True]  # the copy in test does not count


def test_more_points_with_a_copy_are_seen_as_such():
    assert copies.share_higher(np.array([1.0, 0.9, 0.8]), np.array([0.1, 0.2])) == 1
    assert copies.share_higher(np.array([0.1, 0.2]), np.array([1.0, 0.9, 0.8])) == 0
    assert copies.share_higher(np.zeros(3), np.zeros(2)) == 0.5
    mean, low, high = copies.interval(np.array([0.0, 1.0]))
    assert (mean, low, high) == (0.5, 0.0, 1.0)


def test_mended_confidences_have_the_retrained_models_mean_and_spread():
    random = np.random.default_rng(0)
    ours, theirs = random.normal(3, 1, (50, 4)), random.normal(-1, 2, (40, 4))
    moved = limits.mend(ours, theirs, mean=True)
    assert moved.mean(axis=0) == pytest.approx(theirs.mean(axis=0))
    assert moved.std(axis=0) == pytest.approx(ours.std(axis=0))
    widened = limits.mend(ours, theirs, spread=True)
    assert widened.mean(axis=0) == pytest.approx(ours.mean(axis=0))
    assert widened.std(axis=0) == pytest.approx(theirs.std(axis=0))
    assert limits.quality(ours, theirs) < limits.quality(moved, theirs)
    assert limits.quality(moved, theirs) < limits.quality(limits.mend(ours, theirs, True, True), theirs)


def test_results_say_how_they_were_made(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["limits.py", "--run", "runs/my run"])
    path = tmp_path / "limits.json"
    frame.publish(
        "studies.limits", path, ["entry", "score", "score_low", "score_high"], [("ssd", 0.5, 0.25, None)], 3
    )
    made = json.loads(path.read_text())
    assert made["command"] == "python -m studies.limits --run 'runs/my run'"
    assert made["machine"]
    assert date.fromisoformat(made["date"])
    assert made["versions"]["numpy"] == np.__version__
    assert made["n_models"] == 3
    assert made["rows"] == [["ssd", 0.5, 0.25, None]]
    assert frame.load(path).rows == [["ssd", 0.5, 0.25, None]]
    assert capsys.readouterr().out.splitlines()[:2] == [
        "entry  score   95 % interval",
        "ssd    0.5000  0.250 to -",
    ]


def test_no_numbers_are_no_results(tmp_path):
    with pytest.raises(ValueError, match=r"^Nothing was measured, so nothing is written: "):
        frame.publish("studies.limits", tmp_path / "limits.json", ["entry"], [])
    assert not list(tmp_path.iterdir())


def test_a_mistake_is_a_sentence():
    def main():
        raise ValueError("There is no run.")

    with pytest.raises(SystemExit) as caught:
        frame.exit_with(main)
    assert caught.value.code == "error: There is no run."


def test_places_are_counted_without_the_references():
    def scored(value):
        return Score(value, value, 1.0, 1.0)

    real = {"a": scored(0.1), "retrained": scored(0.9), "b": scored(0.2), "no unlearning": scored(0.0)}
    faked = {
        "a": [scored(0.3), scored(0.1)], "b": [scored(0.2), scored(0.2)],
        "retrained": [scored(0.5), scored(0.5)], "no unlearning": [scored(0.0), scored(0.0)],
    }  # fmt: skip
    rows = {row[0]: row[1:] for row in one_retrained.compared(real, faked)}
    assert list(rows) == ["b", "a", "retrained", "no unlearning"]
    assert rows["a"] == (0.1, 0.1, 2, 0.2, 0.2, 0.1, 0.3, 1, 2)
    assert rows["retrained"] == (0.9, 0.9, None, 0.5, 0.5, 0.5, 0.5, None, None)


def test_a_forecast_of_nothing_has_no_error():
    trials = [forecast.Trial(measured=0.0, forecast=0.1, low=0.0, high=0.2, truth=0.1)]
    assert forecast.row("case", 10, trials) == ("case", 10, 1, 0.1, 0.1, 0.0, 0.0, None, 1.0)


@pytest.fixture
def run(tmp_path):
    """Folder of a run as far as its leaderboard goes: one entry, scored, and one over the limit."""
    row = dict.fromkeys([*boards.BY_RULES, *boards.BY_ENTRY, "forecast"]) | {"n_models": 3, "status": "scored"}
    names = ["retrained", "mine", "slow", "no unlearning"]
    board = {
        "data": {"name": "tiny", "counts": {"forget": 5, "retain": 50}},
        "n_models": 3,
        "n_originals": 1,
        "n_retrained": 3,
        "to_forget": 2.0,
        "ties": [{"entries": ["retrained", "mine"], "n_models": 3}],
        "provenance": {
            "command": "python -m local_scorer leaderboard",
            "environment": {"python": "3", "cores": 2, "processor": "abacus", "packages": {"torch": "2"}},
            "settings": {"size": 32, "width": 16, "device": "cpu", "recipe": {"name": "quick"}},
        },
        "rows": [row | {"entry": name, "score": 1 / place} for place, name in enumerate(names, start=1)],
    }
    (tmp_path / "leaderboard.json").write_text(json.dumps(board))
    (tmp_path / "run.json").write_text(json.dumps({"entries": [{"name": n, "hash": n} for n in ("mine", "slow")]}))
    return tmp_path


def test_a_board_is_kept(run, tmp_path):
    kept = tmp_path / "kept"
    boards.keep(run, kept)
    assert sorted(path.name for path in kept.iterdir()) == [
        "board.json", "mine.json", "no_unlearning.json", "retrained.json", "slow.json",
    ]  # fmt: skip
    mine = boards.read(kept / "mine.json")
    assert (mine["source_hash"], mine["rules"]["official"]["score"], mine["machine"]) == (
        "mine", 0.5, "2 cores of abacus",
    )  # fmt: skip
    table = boards.table(kept)
    assert [row[0] for row in table.rows] == ["retrained", "mine", "slow", "no unlearning"]
    assert "Tie: retrained cannot be told from mine." in table.notes


def test_entries_that_are_not_named_keep_their_numbers(run, tmp_path):
    kept = tmp_path / "kept"
    boards.keep(run, kept)
    board = boards.read(run / "leaderboard.json")
    board["rows"] = [row | {"score": 0.125} for row in board["rows"]]
    (run / "leaderboard.json").write_text(json.dumps(board))
    boards.keep(run, kept, only=["slow"])
    assert boards.read(kept / "mine.json")["rules"]["official"]["score"] == 0.5
    assert boards.read(kept / "slow.json")["rules"]["official"]["score"] == 0.125


@pytest.mark.parametrize(
    ("moved", "left"),
    [(["slow"], [["retrained", "mine"]]), (["mine"], [["retrained", "slow"]]), (["retrained"], [])],
)
def test_ties_leave_out_what_has_another_score_now(run, tmp_path, moved, left):
    kept = tmp_path / "kept"
    board = boards.read(run / "leaderboard.json")
    board["ties"] = [{"entries": ["retrained", "mine", "slow"], "n_models": 3}]
    (run / "leaderboard.json").write_text(json.dumps(board))
    boards.keep(run, kept)
    board["rows"] = [row | {"score": 0.125 if row["entry"] in moved else row["score"]} for row in board["rows"]]
    (run / "leaderboard.json").write_text(json.dumps(board))
    boards.keep(run, kept, only=["mine", "slow", "retrained"])
    assert [tie["entries"] for tie in boards.about(kept)["ties"]] == left


def test_a_board_of_another_run_than_the_record_is_refused(run, tmp_path):
    (run / "run.json").write_text(json.dumps({"entries": []}))
    with pytest.raises(KeyError, match="mine"):
        boards.keep(run, tmp_path / "kept")


def test_variants_record_their_command(tmp_path, monkeypatch):
    called = []
    row = rows.Row("gisa LR=1", "failed", "nothing")
    scored = board.Leaderboard({}, "official", 3, 1.0, (), {}, (row,))
    monkeypatch.setattr(variants.run, "run", lambda *arguments: called.append(arguments) or scored)
    arguments = ["gisa LR=1", "--out", str(tmp_path), "--results", str(tmp_path / "variants.json")]
    monkeypatch.setattr("sys.argv", ["variants.py", *arguments])
    variants.main()
    assert called[0][-1] == f"python -m studies.variants {shlex.join(arguments)}"
    assert (tmp_path / "variants.json").is_file()
