import dataclasses
import doctest
import html
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from local_scorer.metric import forgetting_quality, strongest_attack
from local_scorer.metric.attacks import Attack
from local_scorer.report import markup, page, plots, sections, table
from local_scorer.report import svg as figures

HOSTILE = "</svg><script>alert('1')</script> $\\frac{x \x1b[31m \u202e & \"quoted\""


def drawn(draw, *arguments, **options):
    """Return the Axes that a plot was drawn on and the figure as SVG."""
    figure, axes = plots.new_figure(4, 3)
    draw(axes, *arguments, **options)
    return axes, figures.svg(figure, "name", "label")


def words(svg):
    return [html.unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg)]


@pytest.mark.parametrize("module", [figures, markup, page, plots, sections, table])
def test_doctests(module):
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0


# The page's text


def test_text_is_escaped_and_has_no_control_characters():
    safe = markup.text(HOSTILE)
    assert not re.search("[<>\"'\x1b\u202e]", safe)
    assert html.unescape(safe) == HOSTILE.replace("\x1b", "�").replace("\u202e", "�")
    assert markup.text("two\nlines\tand ½") == "two\nlines\tand ½"
    assert markup.text("\u200f\u061c\u2028") == "���"
    assert markup.text("\udcff").encode() == "�".encode()


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (markup.number(None), "–"),
        (markup.number(0.18), "0.1800"),
        (markup.percent(None), "–"),
        (markup.percent(0.304, 1), "30.4%"),
        (markup.signed(1.5), "+1.50"),
        (markup.signed(None), "–"),
        (markup.seconds(9.994), "9.99 s"),
        (markup.seconds(10.04), "10.0 s"),
        (markup.counted(1, "picture"), "1 picture"),
        (markup.counted(0, "picture"), "0 pictures"),
        (markup.between(0.1, None), "–"),
        (markup.summary(np.array([0.001, 0.003])), ("0.00 ± 0.00", "0.00 – 0.00")),
        (markup.summary(np.array([10.0, 30.0])), ("20.0 ± 14.1", "10.0 – 30.0")),
        (markup.summary(np.array([0.01, 0.03]), 100, "%"), ("2.0 ± 1.4%", "1.0 – 3.0%")),
    ],
)
def test_numbers(shown, expected):
    assert shown == expected


def test_a_name_that_is_too_long_keeps_its_end():
    assert plots.shortened("gisa LR=1e-3", 12) == "gisa LR=1e-3"
    assert plots.shortened("contrastive RETAIN_LR=3e-3", 13) == "contra…R=3e-3"
    names = ["gisa LR=1e-3 DECAY=True", "gisa LR=2e-3 DECAY=True", "ssd"]
    assert plots.shortened(names[0], 13) == plots.shortened(names[1], 13)
    assert plots.shortened_apart(names, 13) == ["gisa LR=1…rue", "gisa LR=2…rue", "ssd"]
    assert plots.shortened_apart([*names, "gisa" + 40 * "x" + "True"], 9)[:2] == 2 * ["gisa…True"]


def test_a_list_without_sentences_and_a_command_that_is_not_known_leave_no_box():
    assert markup.sentences("Notes", []) == ""
    assert markup.command("", "This made it.") == ""
    assert markup.command("a < b", "This made it.") == "<p>This made it.</p>\n<pre>a &lt; b</pre>"


def test_facts_terms_and_tables_escape_what_they_show():
    for made in (
        markup.sentences(HOSTILE, [HOSTILE]),
        markup.facts([(HOSTILE, HOSTILE, HOSTILE)]),
        markup.terms([(HOSTILE, HOSTILE)]),
        markup.table(HOSTILE, [HOSTILE], []),
        markup.document(HOSTILE, ""),
    ):
        assert "<script>alert" not in made
        assert markup.text(HOSTILE) in made


def test_policy_allows_the_script_of_the_page_and_nothing_else():
    page = markup.document("title", "<p>body</p>")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page).group(1)
    assert re.fullmatch(
        r"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-[\w+/]{43}='", policy
    )


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


def test_attack_sentence_counts_models():
    interval = Attack(2.0, "interval", "unlearned", low=-1.0, high=2.5, fpr=0.25, fnr=0.1)
    assert sections.attack_sentence(interval, n_unlearned=10, n_retrained=20) == (
        "“unlearned” from −1.00 to 2.50: misses 1 of 10 unlearned models, takes in 5 of 20 retrained models."
    )
    threshold = dataclasses.replace(interval, kind="threshold", positive="retrained", high=np.inf)
    assert sections.attack_sentence(threshold, n_unlearned=20, n_retrained=10) == (
        "“retrained” from −1.00 on: misses 1 of 10 retrained models, takes in 5 of 20 unlearned models."
    )


def test_attack_sentence_names_what_the_references_are():
    attack = Attack(2.0, "threshold", "unlearned", low=1.0, high=np.inf, fpr=0.25, fnr=0.1)
    assert sections.attack_sentence(attack, 10, 20, (plots.COPIES, plots.RETRAINED)) == (
        "“original” from 1.00 on: misses 1 of 10 copies of the original, takes in 5 of 20 retrained models."
    )
    assert sections.attack_sentence(attack, 10, 20, (plots.SECOND_SET, plots.FIRST_SET)) == (
        "“second set” from 1.00 on: misses 1 of 10 models of the second set, takes in 5 of 20 models of the first "
        "set."
    )


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
    stems = [figures.file_stem(name) for name in names]
    assert len({stem.lower() for stem in stems}) == len(names)  # some systems know no capital letters
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,80}", stem) for stem in stems)


def test_figures_of_an_earlier_page_are_removed_and_other_files_stay(tmp_path):
    for name in ("gone-epsilon.png", "notes.txt"):
        (tmp_path / name).write_text("old")
    gallery = figures.Gallery(tmp_path)
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
    axes, svg = drawn(plots.epsilon_histogram, np.array([0.2, 1.1, 50.0]), 10, ceiling=np.array([0.2, 0.2, 0.7]))
    assert [bar.get_height() for bar in axes.patches[:7]] == [1, 0, 1, 0, 0, 0, 1]
    assert {"1", "½", "¼", "⅛", "1/16", "1/32", "0"} <= set(words(svg))


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
    _, svg = drawn(plots.confidences, second, first, attack, kinds=(plots.SECOND_SET, plots.FIRST_SET))
    assert {"second set", "first set"} <= set(words(svg))
    assert {"unlearned", "retrained"}.isdisjoint(words(svg))
    assert "var(--second)" in svg
    assert "var(--unlearned)" not in svg


@pytest.mark.parametrize(
    "sample", [np.full(5, 2.0), np.full(5, np.nan), np.array([np.inf, 1.0, 1.0]), np.arange(600.0)]
)
def test_confidences_of_awkward_samples(sample):
    axes, svg = drawn(plots.confidences, sample, np.arange(5.0), Attack(50.0, "spread"))
    assert np.isfinite(axes.get_xlim()).all()
    assert "nan" not in svg


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
    name = markup.plain(HOSTILE)[:30]
    axes, svg = drawn(plots.forest, [name, "字"], [0.1, 0.0], floor=0.0, ceiling=0.2)
    assert name in words(svg)
    assert "<script" not in svg
    assert axes.get_xlim()[1] > 0.2


def test_forest_cuts_names_in_the_middle_and_has_room_for_them_above():
    names = ["contrastive FLATTEN_LR=5e-4 RETAIN_BATCH=64 RETAIN_LR=3e-3", "gisa"]
    beside, svg = drawn(plots.forest, names, [0.1, 0.0])
    (cut,) = (word for word in words(svg) if word.startswith("contrastive"))
    assert (len(cut), cut[-4:]) == (42, "3e-3")
    above, svg = drawn(plots.forest, names, [0.1, 0.0], names_above=True)
    assert cut in words(svg)
    assert above.get_position().width > 2 * beside.get_position().width


def test_forest_draws_intervals():
    axes, _ = drawn(plots.forest, ["a", "b"], [0.1, 0.2], [0.05, np.nan], [0.15, np.nan])
    assert list(axes.lines[0].get_xdata()) == [0.05, 0.15]
    assert np.isnan(axes.lines[2].get_xdata()).all()


def test_accuracy_shows_every_run():
    runs = np.array([0.5, 0.7])
    axes, _ = drawn(plots.accuracy_ranges, {"test": runs}, {"test": np.array([0.6, 0.8])})
    assert [list(line.get_xdata()) for line in axes.lines] == [[0.6, 0.8], [0.7, 0.7], [0.5, 0.7], [0.6, 0.6]]


def test_svg_is_well_formed_and_has_the_colours_of_the_page():
    _, svg = drawn(plots.epsilon_histogram, np.array([0.2, 1.1, 50.0]), 10, ceiling=np.array([0.2, 0.2, 0.7]))
    ElementTree.fromstring(svg.replace("xlink:href", "href"))
    assert "var(--unlearned)" in svg
    assert not re.search(r"#[0-9a-f]{6}\b", svg)
    assert "http" not in svg
    ids = re.findall(r' id="([^"]*)"', svg)
    assert ids
    assert all(each.startswith("name-") for each in ids)
    assert set(re.findall(r"url\(#([^)]*)\)|href=\"#([^\"]*)\"", svg)) <= {
        pair for each in ids for pair in ((each, ""), ("", each))
    }


def test_equal_figures_give_equal_svg():
    made = [drawn(plots.shift_and_spread, np.array([0.5]), np.array([1.0]))[1] for _ in range(2)]
    assert made[0] == made[1]


def test_picture_is_a_png_in_the_page():
    assert figures.picture(np.zeros((3, 4, 4), np.uint8)).startswith("data:image/png;base64,iVBOR")
