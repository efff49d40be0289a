import doctest
import html
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from local_scorer.metric import forgetting_quality, strongest_attack
from local_scorer.metric.attacks import Attack
from local_scorer.report import columns, formats, page, plots, sections, svg, table

HOSTILE = "</svg><script>alert('1')</script> $\\frac{x \x1b[31m \u202e & \"quoted\""


def drawn(draw, *arguments, **options):
    """Return the Axes that a plot was drawn on and the figure as SVG."""
    figure, axes = plots.new_figure(4, 3)
    draw(axes, *arguments, **options)
    return axes, svg.draw(figure, "name", "label").svg


def words(drawing):
    return [html.unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", drawing)]


@pytest.mark.parametrize("module", [columns, formats, page, plots, sections, svg, table])
def test_doctests(module):
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0


# The page's text


def test_text_has_no_control_characters():
    assert formats.plain(HOSTILE) == HOSTILE.replace("\x1b", "�").replace("\u202e", "�")
    assert formats.plain("two\nlines\tand ½") == "two\nlines\tand ½"
    assert formats.plain("\u200f\u061c\u2028") == "���"
    assert formats.plain("\udcff").encode() == "�".encode()


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (formats.number(None), "–"),
        (formats.number(0.18), "0.1800"),
        (formats.percent(None), "–"),
        (formats.percent(0.304, 1), "30.4%"),
        (formats.signed(1.5), "+1.50"),
        (formats.signed(None), "–"),
        (formats.signed(float("nan")), "–"),
        (formats.factor(0.5), "×0.50"),
        (formats.seconds(9.994), "9.99 s"),
        (formats.seconds(10.04), "10.0 s"),
        (formats.counted(1, "picture"), "1 picture"),
        (formats.counted(0, "picture"), "0 pictures"),
        (formats.between(0.1, None), "–"),
        (formats.summary(np.array([0.001, 0.003])), ("0.00 ± 0.00", "0.00 – 0.00")),
        (formats.summary(np.array([10.0, 30.0])), ("20.0 ± 14.1", "10.0 – 30.0")),
        (formats.summary(np.array([0.01, 0.03]), 100, "%"), ("2.0 ± 1.4%", "1.0 – 3.0%")),
    ],
)
def test_numbers(shown, expected):
    assert shown == expected


def test_a_name_that_is_too_long_keeps_its_end():
    assert table.shortened("gisa LR=1e-3", 12) == "gisa LR=1e-3"
    assert table.shortened("contrastive RETAIN_LR=3e-3", 13) == "contra…R=3e-3"
    names = ["gisa LR=1e-3 DECAY=True", "gisa LR=2e-3 DECAY=True", "ssd"]
    assert table.shortened(names[0], 13) == table.shortened(names[1], 13)
    assert plots.shortened_apart(names, 13) == ["gisa LR=1…rue", "gisa LR=2…rue", "ssd"]
    assert plots.shortened_apart([*names, "gisa" + 40 * "x" + "True"], 9)[:2] == 2 * ["gisa…True"]


# What a section says


@pytest.mark.parametrize(
    ("n_examples", "worst", "best"),
    [(1, [0], []), (2, [1], [0]), (3, [2, 1], [0]), (5, [4, 3, 2], [0, 1]), (9, [8, 7, 6], [0, 1, 2])],
)
def test_extremes_share_no_example(n_examples, worst, best):
    eps = np.arange(n_examples, dtype=float)
    assert sections.extremes(eps, np.zeros(n_examples)) == (worst, best)


def test_extremes_break_ties_by_the_shift_and_count_an_unknown_one_as_largest():
    eps = np.full(4, 50.0)
    assert sections.extremes(eps, np.array([0.1, -2.0, np.nan, 1.0]), count=2) == ([2, 1], [0, 3])


@pytest.mark.parametrize(
    ("kinds", "positive", "region", "counts"),
    [
        ((plots.UNLEARNED, plots.RETRAINED), "unlearned", (-1.0, 2.5), ["−1.00", "2.50", "1 of 10", "5 of 20"]),
        ((plots.UNLEARNED, plots.RETRAINED), "retrained", (-1.0, np.inf), ["−1.00", "2 of 20", "2 of 10"]),
        ((plots.COPIES, plots.RETRAINED), "unlearned", (1.0, np.inf), ["1.00", "1 of 10", "5 of 20"]),
        ((plots.SECOND_SET, plots.FIRST_SET), "unlearned", (1.0, np.inf), ["1.00", "1 of 10", "5 of 20"]),
    ],
)
def test_attack_sentence_counts_models_of_the_kinds_at_hand(kinds, positive, region, counts):
    attack = Attack(2.0, "interval", positive, *region, fpr=0.25, fnr=0.1)
    sentence = sections.attack_sentence(attack, n_unlearned=10, n_retrained=20, kinds=kinds)
    assert re.findall(r"\d+ of \d+|−?\d+\.\d+", sentence) == counts
    sides = [kind.several for kind in kinds]
    if positive == "retrained":
        sides.reverse()
    assert [part for part in re.split(r"\d+ of \d+ | and |\.$", sentence) if part in sides] == sides
    assert f"“{kinds[positive == 'retrained'].word}”" in sentence


def test_attack_sentence_has_words_for_every_kind_without_a_region():
    sentences = {
        kind: sections.attack_sentence(Attack(50.0, kind), 10, 10)
        for kind in ("spread", "nonfinite", "disjoint", "none")
    }
    assert len(set(sentences.values())) == 4
    assert all("nan" not in sentence for sentence in sentences.values())


def test_file_stems_are_safe_and_differ():
    names = [
        "a",
        "A",
        "good",
        "GOOD",
        "Good",
        "A b",
        "A-b",
        "a/b",
        "../a",
        HOSTILE,
        "x" * 300,
        "x" * 301,
        "字",
        "",
        "\udcff",
    ]
    stems = [svg.file_stem(name) for name in names]
    assert len({stem.lower() for stem in stems}) == len(names)  # some systems know no capital letters
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,80}", stem) for stem in stems)


def test_figures_of_an_earlier_page_are_removed_and_other_files_stay(tmp_path):
    for name in ("gone-epsilon.png", "notes.txt"):
        (tmp_path / name).write_text("old")
    gallery = svg.Gallery(tmp_path)
    gallery.keep(plots.new_figure(1, 1)[0], "leaderboard")
    gallery.tidy()
    assert {path.name for path in tmp_path.iterdir()} == {"leaderboard.png", "notes.txt"}


# The drawings


def test_bars_and_points_give_forgetting_quality():
    eps = np.array([0.0, 0.49, 0.5, 1.2, 2.1, 50.0])
    counts, worth = plots.bin_counts(eps, 10), plots.epsilon_bins(10)[1]
    assert counts.tolist() == [2, 1, 1, 0, 1, 0, 1]
    assert counts @ worth / len(eps) == pytest.approx(forgetting_quality(eps, 10))


def test_notebook_bins_earn_points_even_at_infinity():
    eps = np.array([0.3, 6.0, np.inf])
    edges, worth = plots.epsilon_bins(10, "notebook")
    assert (len(worth), edges[-2:], worth[-1]) == (13, ["6", "more"], 0.5**12)
    assert plots.bin_counts(eps, 10, "notebook") @ worth / 3 == forgetting_quality(eps, 10, "notebook")


def test_histogram_shows_the_points_of_each_bin():
    eps = np.array([0.2, 1.1, 50.0])
    axes, drawing = drawn(plots.epsilon_histogram, eps, 10, ceiling=np.array([0.2, 0.2, 0.7]))
    assert [bar.get_height() for bar in axes.patches[:7]] == [1, 0, 1, 0, 0, 0, 1]
    assert {"1", "½", "¼", "⅛", "1/16", "1/32", "0"} <= set(words(drawing))


def test_confidences_mark_the_thresholds_of_the_attack():
    unlearned, retrained = np.linspace(0, 2, 10), np.linspace(1, 3, 12)
    attack = strongest_attack(unlearned, retrained)
    axes, _ = drawn(plots.confidences, unlearned, retrained, attack)
    upright = {
        line.get_xdata()[0] for line in axes.lines if len(line.get_xdata()) == 2 and line.get_ydata()[1] == 1
    }
    low, high = axes.get_xlim()
    assert upright - {0} == {end for end in (attack.low, attack.high) if low < end < high}
    assert upright


def test_confidences_of_a_second_set_are_named_and_blue():
    first, second = np.linspace(0, 2, 10), np.linspace(5, 6, 10)
    attack = strongest_attack(second, first)
    _, drawing = drawn(plots.confidences, second, first, attack, kinds=(plots.SECOND_SET, plots.FIRST_SET))
    assert {"second set", "first set"} <= set(words(drawing))
    assert {"unlearned", "retrained"}.isdisjoint(words(drawing))
    assert plots.PALETTE["second"] in drawing
    assert plots.PALETTE["unlearned"] not in drawing


@pytest.mark.parametrize(
    "sample", [np.full(5, 2.0), np.full(5, np.nan), np.array([np.inf, 1.0, 1.0]), np.arange(600.0)]
)
def test_confidences_of_awkward_samples(sample):
    axes, drawing = drawn(plots.confidences, sample, np.arange(5.0), Attack(50.0, "spread"))
    assert np.isfinite(axes.get_xlim()).all()
    assert "nan" not in drawing


def test_density_peaks_at_one_and_follows_the_sample():
    grid = np.linspace(-5, 5, 101)
    curve = plots.density(np.array([1.0, 1.1, 0.9]), grid)
    assert curve.max() == 1
    assert grid[curve.argmax()] == pytest.approx(1)


def test_shift_and_spread_stays_in_the_picture():
    shift, ratio = np.array([0.0, 100.0, np.nan]), np.array([1.0, 0.0, np.nan])
    axes, _ = drawn(plots.shift_and_spread, shift, ratio, (shift, ratio))
    assert axes.get_xlim() == (-6, 6)
    assert axes.get_ylim() == (1 / 32, 4)
    assert axes.lines[-1].get_xdata()[:2].tolist() == [0, 6]
    assert axes.lines[-1].get_ydata()[:2].tolist() == [1, 1 / 32]


def test_forest_without_intervals_and_with_hostile_names():
    name = formats.plain(HOSTILE)[:30]
    axes, drawing = drawn(plots.forest, [name, "字"], [0.1, 0.0], floor=0.0, ceiling=0.2)
    assert name in words(drawing)
    assert "<script" not in drawing
    assert axes.get_xlim()[1] > 0.2


def test_forest_cuts_names_in_the_middle_and_has_room_for_them_above():
    names = ["contrastive FLATTEN_LR=5e-4 RETAIN_BATCH=64 RETAIN_LR=3e-3", "gisa"]
    beside, drawing = drawn(plots.forest, names, [0.1, 0.0])
    (cut,) = (word for word in words(drawing) if word.startswith("contrastive"))
    assert (len(cut), cut[-4:]) == (42, "3e-3")
    above, drawing = drawn(plots.forest, names, [0.1, 0.0], names_above=True)
    assert cut in words(drawing)
    assert above.get_position().width > 2 * beside.get_position().width


def test_forest_draws_intervals():
    axes, _ = drawn(plots.forest, ["a", "b"], [0.1, 0.2], [0.05, np.nan], [0.15, np.nan])
    assert list(axes.lines[0].get_xdata()) == [0.05, 0.15]
    assert np.isnan(axes.lines[2].get_xdata()).all()


def test_accuracy_shows_every_run():
    runs = np.array([0.5, 0.7])
    axes, _ = drawn(plots.accuracy_ranges, {"test": runs}, {"test": np.array([0.6, 0.8])})
    assert [list(line.get_xdata()) for line in axes.lines] == [[0.6, 0.8], [0.7, 0.7], [0.5, 0.7], [0.6, 0.6]]


def test_svg_is_well_formed_and_has_no_colours_but_those_that_the_page_replaces():
    eps = np.array([0.2, 1.1, 50.0])
    _, drawing = drawn(plots.epsilon_histogram, eps, 10, ceiling=np.array([0.2, 0.2, 0.7]))
    ElementTree.fromstring(drawing)
    colors = set(re.findall(r"(?:fill|stroke): (#\w+)", drawing))
    assert plots.PALETTE["unlearned"] in colors
    assert colors <= set(plots.PALETTE.values())


def test_ids_in_svg_are_unique_among_figures():
    sample = np.array([0.2, 1.1, 3.0])
    found = []
    for name in ("one", "two"):
        figure, axes = plots.new_figure(4, 3)
        plots.confidences(axes, sample, sample + 1)
        found.append(re.findall(r' id="([^"]*)"', svg.draw(figure, name, "label").svg))
    ids = [each for one in found for each in one]
    assert len(ids) == len(set(ids)) > 20


def test_equal_figures_give_equal_svg():
    made = [drawn(plots.shift_and_spread, np.array([0.5]), np.array([1.0]))[1] for _ in range(2)]
    assert made[0] == made[1]


def test_picture_is_a_png_in_the_page():
    assert svg.picture(np.zeros((3, 4, 4), np.uint8)).startswith("data:image/png;base64,iVBOR")
