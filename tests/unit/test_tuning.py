"""Every entry has a search space around its published values, and the best trial inside the limit wins."""

import doctest
import random

import pytest

from local_scorer.execution import presets
from local_scorer.execution.entries import FOLDER, shipped_entries
from local_scorer.report.rows import Row
from studies import tuning, variants

NAMES = [path.stem for path in shipped_entries()]


def source_of(name):
    return (FOLDER / f"{name}.py").read_text(encoding="utf-8")


def test_doctests():
    assert doctest.testmod(presets).attempted == 2
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
