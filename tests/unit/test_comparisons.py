import doctest
from dataclasses import replace

import numpy as np
import pytest

from local_scorer.statistics import ties
from local_scorer.statistics.intervals import redraw
from local_scorer.statistics.ties import Comparison, comparisons, groups
from studies.simulated import Case, ForgetSet, model_set


@pytest.fixture(scope="module")
def redraws():
    """Two good entries and a bad one, against the same retrained models."""
    generator = np.random.default_rng(0)
    examples = ForgetSet.drawn(Case("perfect"), 30, generator)
    retrained = model_set(examples.evaluation(16, generator)[1], generator)
    good, other = (model_set(examples.evaluation(16, generator)[0], generator) for _ in range(2))
    bad = replace(good, logits=good.logits + np.float32([6, 0]))
    return {
        name: redraw(models, retrained, entry=index)
        for index, (name, models) in enumerate({"bad": bad, "good": good, "other": other}.items())
    }


def test_doctests():
    result = doctest.testmod(ties)
    assert result.attempted >= 2
    assert result.failed == 0


def test_bad_is_told_apart_and_good_ones_are_not(redraws):
    pairs = comparisons(redraws)
    assert [pair.second for pair in pairs[1:]] == ["bad", "bad"]
    assert [pair.told_apart for pair in pairs] == [False, True, True]
    assert 0.5 <= pairs[0].share < 0.975
    assert pairs[1].share == 1.0
    names = [pairs[0].first, pairs[0].second, "bad"]
    assert groups(pairs, names) == (tuple(names[:2]), ("bad",))


def test_order_of_the_entries_does_not_matter(redraws):
    assert comparisons(dict(reversed(redraws.items()))) == comparisons(redraws)


def test_share_by_hand(redraws):
    """Wins 2 of 4 redraws, ties one: 0.625."""
    first = replace(redraws["good"], score=0.3, score_both=np.array([0.3, 0.4, 0.2, 0.1]))
    second = replace(redraws["good"], score=0.2, score_both=np.array([0.2, 0.3, 0.2, 0.5]))
    assert comparisons({"second": second, "first": first}) == (Comparison("first", "second", 0.625, False, 4),)


@pytest.mark.parametrize(("lead", "apart"), [(0.21, False), (0.22, True)])
def test_apart_by_hand(redraws, lead, apart):
    """16 models: t is 2.1314 at 15 degrees; the difference's standard deviation is 0.1, so 0.2131 is the least."""
    second = replace(redraws["good"], score=0.2, score_both=np.array([0.2, 0.2, 0.2]))
    first = replace(redraws["good"], score=0.2 + lead, score_both=np.array([0.3, 0.4, 0.5]))
    assert comparisons({"second": second, "first": first})[0].told_apart is apart


def test_an_entry_ties_with_itself(redraws):
    assert comparisons({"a": redraws["good"], "b": redraws["good"]})[0].share == 0.5


def test_shared_retrained_models_pair_the_redraws(redraws):
    """The examples and the retrained models move both good entries together."""
    assert np.corrcoef(redraws["good"].score_both, redraws["other"].score_both)[0, 1] > 0.1


def test_a_group_is_held_against_its_first():
    pairs = [
        Comparison("a", "b", 0.9, False, 60),
        Comparison("a", "c", 0.99, True, 60),
        Comparison("b", "c", 0.6, False, 60),
    ]
    assert groups(pairs, ["a", "b", "c"]) == (("a", "b"), ("c",))
    assert groups((), ["alone"]) == (("alone",),)


def test_redraws_of_different_seeds_are_refused(redraws):
    with pytest.raises(ValueError, match=r"^Entries are compared under the same redraws: .*found 2 combinations"):
        comparisons({"a": redraws["good"], "b": replace(redraws["bad"], seed=1)})
