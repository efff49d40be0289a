"""Every entry has a search space around its published values, and the best trial inside the limit wins."""

import doctest
import json
import random
from pathlib import Path

import pytest

from data_prep.options import OptionError
from kaggle_submission.tools import cli as kaggle
from local_scorer import cli
from local_scorer.execution import presets
from local_scorer.execution.contract import source_hash
from local_scorer.execution.entries import FOLDER, shipped_entries
from local_scorer.report.rows import Row
from studies import frame, tuning, variants

NAMES = [path.stem for path in shipped_entries()]


def source_of(name):
    return (FOLDER / f"{name}.py").read_text(encoding="utf-8")


def test_doctests():
    assert doctest.testmod(presets).attempted == 3
    assert doctest.testmod(presets).failed == 0


@pytest.mark.parametrize("name", NAMES)
def test_the_space_of_an_entry_lies_around_its_published_values(name):
    published, space = presets.settings_of(source_of(name)), tuning.space(name)
    assert 2 <= len(space) <= 4
    for part in space:
        assert part.holds(published[part.setting]), part


@pytest.mark.parametrize("name", NAMES)
def test_ranges_follow_the_rule(name):
    """A factor of 10 or 4 down, and as much up or, for what costs time, less: see docs/methods/README.md."""
    published = presets.settings_of(source_of(name))
    for part in tuning.space(name):
        value = published[part.setting]
        if part.scale == "log odds":
            odds = [x / (1 - x) for x in (part.low, value, part.high)]
            assert odds[1] / odds[0] == pytest.approx(4, rel=0.15)
            assert odds[2] / odds[1] == pytest.approx(4, rel=0.15)
        elif part.scale == "log":
            down, up = value / part.low, part.high / value
            assert any(down == pytest.approx(factor, rel=0.02) and up <= 1.02 * factor for factor in (4, 10))
        elif part.scale == "integer":
            assert part.low == max(1, round(value / 4))
            assert part.high <= 4 * value


def test_trials_differ_follow_from_the_seed_and_can_be_written(tmp_path):
    trials = tuning.drawn("salun", 8, 0)
    assert trials[0] == "salun"
    assert len(set(trials)) == 8
    assert trials == tuning.drawn("salun", 8, 0)
    assert trials[1:] != tuning.drawn("salun", 8, 1)[1:]
    space = {part.setting: part for part in tuning.space("salun")}
    for trial in trials[1:]:
        found = presets.settings_of(variants.written(trial, tmp_path).read_text())
        assert all(part.holds(found[name]) for name, part in space.items())
        assert {name for name in found if found[name] != presets.settings_of(source_of("salun"))[name]} <= set(
            space
        )


@pytest.mark.parametrize(
    "part",
    [
        tuning.Range("LR", 1e-4, 1e-2, "log"),
        tuning.Range("SHARE", 0.2, 0.8, "log odds"),
        tuning.Range("ROUNDS", 1, 4, "integer"),
        tuning.Range("HEAD", choices=("ridge", "span")),
    ],
    ids=lambda part: part.scale or "choices",
)
def test_draws_fill_their_range_and_keep_to_it(part):
    generator = random.Random(0)
    drawn = [part.draw(generator) for _ in range(300)]
    assert all(part.holds(value) for value in drawn)
    if part.choices or part.scale == "integer":
        assert set(drawn) == set(part.choices or (1, 2, 3, 4))
    else:
        middle = 1e-3 if part.scale == "log" else 0.5
        assert 0.4 < sum(value < middle for value in drawn) / 300 < 0.6


def test_the_best_trial_inside_the_limit_wins():
    published = Row("a", "scored", score=0.02, time_ratio=0.197)
    better = Row("a X=1", "scored", score=0.03, time_ratio=0.1)
    best = Row("a X=2", "scored", score=0.09, time_ratio=0.195)  # another clock may find it over the limit
    rejected, failed = Row("a X=3", "rejected", time_ratio=0.3), Row("a X=4", "failed")
    assert tuning.chosen([published, better, best, rejected, failed]) == 1
    assert tuning.chosen([published, best, rejected, failed]) == 0


def test_as_published_wins_a_tie_and_where_nothing_scores():
    rows = [Row("a", "scored", score=0.0, time_ratio=0.1), Row("a X=1", "scored", score=0.0, time_ratio=0.1)]
    assert tuning.chosen(rows) == 0
    assert tuning.chosen([Row("a", "rejected", time_ratio=0.3), rows[1]]) == 0
    assert (
        tuning.chosen([Row("a", "rejected", time_ratio=0.3), Row("a X=1", "scored", score=0.1, time_ratio=0.1)])
        == 1
    )


@pytest.fixture
def preset(tmp_path, monkeypatch):
    """Return what a preset "fast" holds: values for salun, as published ssd, nothing for jit."""
    monkeypatch.setattr(presets, "PRESETS", tmp_path / "presets")
    presets.PRESETS.mkdir()
    values = {"ssd": {}, "salun": {"LR": 0.02, "EPOCHS": 1.5}}
    presets.save(presets.PRESETS / "fast.json", values)
    return values


def test_entries_of_a_preset_are_named_so_and_have_its_values(preset, tmp_path):
    assert presets.load(presets.PRESETS / "fast.json") == preset
    entries = [FOLDER / f"{name}.py" for name in ("salun", "ssd", "jit")]
    assert presets.without_values(entries, "fast") == ["jit"]
    salun, ssd, jit = presets.written(entries, "fast", tmp_path / "out")
    assert (salun.stem, ssd.stem, jit) == ("salun (fast)", "ssd (fast)", entries[2])
    assert presets.settings_of(salun.read_text()) == presets.settings_of(source_of("salun")) | preset["salun"]
    assert source_hash(ssd.read_text()) == source_hash(source_of("ssd"))


def test_other_files_and_other_presets_are_refused(preset, tmp_path):
    with pytest.raises(OptionError, match=r"alone, not for .*salun\.py\.$"):
        presets.without_values([tmp_path / "salun.py"], "fast")
    with pytest.raises(OptionError, match="There is no preset 'slow': expected fast"):
        presets.without_values([FOLDER / "salun.py"], "slow")


def test_an_entry_that_lost_a_setting_is_named(preset):
    with pytest.raises(
        ValueError, match=r"ssd\.py has no setting 'SPEED', of which the preset 'fast' has a value"
    ):
        presets.save(presets.PRESETS / "fast.json", {"ssd": {"SPEED": 1}})
        presets.applied(source_of("ssd"), "ssd", "fast")


def test_a_notebook_has_the_values_of_a_preset(preset, tmp_path, capsys):
    assert kaggle.main(["notebook", "salun", "--preset", "fast", "--out", str(tmp_path / "out")]) == 0
    cells = json.loads((tmp_path / "out" / "kaggle_submission.ipynb").read_text())["cells"]
    assert any("LR = 0.02" in line for cell in cells for line in cell["source"])


def test_a_board_runs_the_values_of_a_preset_and_names_what_has_none(preset, tmp_path, monkeypatch, capsys):
    ran = []
    monkeypatch.setattr("local_scorer.run.run", lambda _, entries, *others, **options: ran.extend(entries))
    monkeypatch.setattr(cli, "_show", lambda folder, board: 0)
    monkeypatch.setattr(cli, "_data_of_pack", lambda args, pack: Path("data"))
    assert cli.main(["leaderboard", "salun", "jit", "--preset", "fast", "--out", str(tmp_path / "out")]) == 0
    assert [path.stem for path in ran] == ["salun (fast)", "jit"]
    assert "without values in the preset 'fast': jit." in capsys.readouterr().out


@pytest.mark.parametrize("path", sorted(presets.PRESETS.glob("*.json")), ids=lambda path: path.stem)
def test_shipped_presets_fit_their_entries(path):
    for name, values in presets.load(path).items():
        published, space = (
            presets.settings_of(source_of(name)),
            {part.setting: part for part in tuning.space(name)},
        )
        assert all(space[setting].holds(value) for setting, value in values.items())
        assert presets.settings_of(presets.applied(source_of(name), name, path.stem)) == published | values


def test_the_preset_is_what_the_trials_chose():
    chosen = {}
    for path in sorted((frame.RESULTS / "tuning").glob("*.json")):
        trials = frame.load(path)
        place = {name: trials.columns.index(name) for name in ("settings", "chosen")}
        (settings,) = (row[place["settings"]] for row in trials.rows if row[place["chosen"]])
        name = path.stem
        texts = {} if settings == "as published" else variants.values_of(f"{name} {settings}")
        found, published = (
            presets.settings_of(presets.rewritten(source_of(name), values)) for values in (texts, {})
        )
        chosen[name] = {setting: value for setting, value in found.items() if value != published[setting]}
    assert presets.load(presets.PRESETS / "tuned.json") == chosen
