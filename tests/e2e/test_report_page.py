"""The report page of a whole run as a parser sees it: its parts, its numbers, and what it must not let through."""

import re
from dataclasses import replace

import pytest

from data_prep import dataset
from local_scorer.report import board as boards
from local_scorer.report import columns, formats, page, plots
from local_scorer.runs.record import CEILING, FLOOR
from local_scorer.statistics.forecast import Forecast
from local_scorer.statistics.ties import Comparison, Tie
from tests.helpers.pages import DETAILS, HOSTILE, METHODS, N_CLASSES, changed, parse, write_run, written


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    """Return a run, its board, and the paths of its page and of the figures."""
    run = write_run(tmp_path_factory.mktemp("page") / "run", 10, METHODS)
    board = boards.collect(run)
    return run, board, page.write_page(run, board)


def part_of(board, entry):
    """Return the id of an entry's section."""
    return f"entry-{[row.entry for row in board.rows].index(entry) + 1}"


def drawings(parsed, part):
    return [attributes for _, attributes in parsed.parts[part] if attributes.get("role") == "img"]


def test_every_row_has_a_line_that_links_to_its_section(small_run):
    _, board, paths = small_run
    parsed = parse(paths[0])
    heads, *lines = parsed.tables["leaderboard"][0]
    assert heads == ["entry", "group", *(column.head for column in columns.STANDINGS), "status"]
    assert [line[0] for line in lines] == [row.entry for row in board.rows]
    links = [link for link in parsed.values("href", "leaderboard") if link.startswith("#entry-")]
    assert links == [f"#{part_of(board, row.entry)}" for row in board.rows]
    for row, line in zip(board.rows, lines, strict=True):
        cells = dict(zip(heads, line, strict=True))
        assert cells["score"] == formats.number(row.score)
        assert cells["95% interval"] == formats.between(row.score_low, row.score_high)
        assert cells["time"] == formats.percent(row.time_ratio, 1)
        assert cells["status"] == {FLOOR: "floor", CEILING: "ceiling"}.get(row.entry, row.status)


def test_every_section_has_the_numbers_of_its_row(small_run):
    _, board, paths = small_run
    parsed = parse(paths[0])
    for row in board.rows:
        part = part_of(board, row.entry)
        words = " ".join(parsed.text[part].split())
        assert words.startswith(row.entry)
        assert " ".join(row.reason.split()) in words
        if not row.n_models:
            assert drawings(parsed, part) == []
            continue
        values = {name: value for name, (value, *_) in parsed.terms[part].items()}
        assert values["score"] == formats.number(row.score)
        assert values["F"] == formats.number(row.forgetting_quality)
        assert values["time"] == formats.percent(row.time_ratio, 1)
        n_drawings = 8 if row.is_reference else 9  # epsilon, shift and 6 examples; of entries the runs too
        assert len(drawings(parsed, part)) == n_drawings
        if row.distance:
            assert formats.signed(row.distance.median_shift) in words
            assert formats.factor(row.distance.median_spread) in words
        found = row.intervals and (row.intervals.models, row.intervals.examples, row.intervals.both)
        for ends in found or ():
            assert formats.between(ends.score_low, ends.score_high) in values.values()


def test_floor_and_ceiling_are_tiles_at_the_top(small_run):
    _, board, paths = small_run
    scores = {row.entry: row.score for row in board.rows}
    tiles = parse(paths[0]).terms[None]
    assert tiles["floor"][0] == f"{scores[FLOOR]:.4f}"
    assert tiles["ceiling"][0] == f"{scores[CEILING]:.4f}"
    assert tiles["to forget"][0].startswith(f"{board.to_forget:.2f} ")


def test_notes_are_in_a_list_of_their_own(small_run):
    _, board, paths = small_run
    source = paths[0].read_text(encoding="utf-8")
    (notes,) = re.findall('<ul class="notes"[^>]*>(.*?)</ul>', source, re.DOTALL)
    assert notes.count("<li>") == len(board.notes) > 0


# Nothing of what comes from an entry or a data set is more than text


def test_names_reasons_and_details_are_text(small_run):
    _, board, paths = small_run
    parsed = parse(paths[0])
    assert [tag for tag, _ in parsed.tags].count("script") == 1
    assert "img" not in [tag for tag, _ in parsed.tags]
    assert not any(name.startswith("on") for _, attributes in parsed.tags for name in attributes)
    assert parsed.tables["leaderboard"][0][-1][0] != ""
    assert HOSTILE in parsed.values("title", "leaderboard")
    assert HOSTILE in parsed.text["leaderboard"]
    assert parsed.text[part_of(board, HOSTILE)].strip().startswith(HOSTILE)
    failed = parsed.text[part_of(board, "broken")]
    assert DETAILS.replace("\x1b", "�") in failed
    assert f"KeyError: '{HOSTILE}'" in failed
    assert "drawn <b>" in parsed.text[None]
    assert {"b", "0", *map(str, range(N_CLASSES))}.isdisjoint(tag for tag, _ in parsed.tags)


def test_no_template_trusts_a_value():
    for path in page.TEMPLATES.glob("*.html"):
        source = path.read_text(encoding="utf-8")
        assert not re.search(r"\|\s*safe|autoescape|Markup", source), path.name


def test_page_loads_nothing(small_run):
    parsed = parse(small_run[2][0])
    ids = parsed.values("id")
    assert len(ids) == len(set(ids))
    for attribute in ("src", "href", "xlink:href", "action", "data", "poster"):
        for value in parsed.values(attribute):
            assert value.startswith("data:image/png") or value[1:] in ids, value
    source = small_run[2][0].read_text(encoding="utf-8")
    assert not re.search(r"@import|url\((?!#)|<link|<iframe|<object|<base", source)


def test_policy_allows_the_script_of_the_page_and_nothing_else(small_run):
    (policy,) = (value for value in parse(small_run[2][0]).values("content") if "script-src" in value)
    assert re.fullmatch(
        r"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-[\w+/]{43}='", policy
    )


# Tables and figures


def test_figures_are_also_png(small_run):
    run, _, paths = small_run
    names = {path.name for path in paths[1:]}
    assert {"leaderboard.png", *(f"good-{kind}.png" for kind in ("epsilon", "shift", "examples", "runs"))} <= names
    assert names == {path.name for path in (run.folder.root / "figures").iterdir()}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths[1:])


@pytest.mark.parametrize(
    ("part", "shown", "has"),
    [
        ("certainty", columns.CERTAINTY, lambda row: row.intervals),
        ("audits", columns.AUDITS, lambda row: row.distance),
    ],
)
def test_certainty_and_audits_have_a_line_for_each_row_that_has_them(small_run, part, shown, has):
    _, board, paths = small_run
    (table,) = parse(paths[0]).tables[part]
    rows = [row for row in board.rows if has(row)]
    assert len(rows) > 2
    assert table == [
        ["entry", *(column.head for column in shown)],
        *([row.entry, *(column.shown(row) for column in shown)] for row in rows),
    ]


def test_an_audit_or_a_status_that_is_new_is_shown(tmp_path, monkeypatch):
    run = write_run(tmp_path / "run", 3, {"only": (0.5, 1, 1.0)}, n_forget=4)
    audit = columns.Column("parameters", lambda row: 7.0, lambda row: "seven", "Their number.")
    monkeypatch.setattr(columns, "AUDITS", (*columns.AUDITS, audit))
    board = boards.collect(run)
    rows = tuple(replace(row, status="near the limit") if row.entry == "only" else row for row in board.rows)
    parsed = parse(page.write_page(run, replace(board, rows=rows))[0])
    (table,) = parsed.tables["audits"]
    assert [line[-1] for line in table] == ["parameters", "seven", "seven"]
    assert parsed.terms["audits"]["parameters"] == ["Their number."]
    (line,) = (line for line in parsed.tables["leaderboard"][0] if line[0] == "only")
    assert line[-1] == "near the limit"


def test_the_references_have_colours_and_words_of_their_own(small_run):
    _, board, paths = small_run
    parsed = parse(paths[0])
    source = paths[0].read_text(encoding="utf-8")
    for entry, own in ((CEILING, "second"), (FLOOR, "muted"), ("good", "unlearned")):
        part = part_of(board, entry)
        drawn = source.partition(f'id="{part}"')[2].partition("</section>")[0]
        assert plots.PALETTE[own] in drawn
        assert (plots.PALETTE["unlearned"] in drawn) == ("unlearned" in parsed.text[part]) == (entry == "good")


GROUPED = {"first": (0.0, 1, 1.0), "second": (0.1, 1, 1.0), "third": (1.0, 1, 1.0), "fourth": (4.0, 1, 1.0)}


@pytest.fixture(scope="module")
def grouped(tmp_path_factory):
    """Return the board and the page of four scored entries, the middle two tied, with a forecast for the first."""
    run = write_run(tmp_path_factory.mktemp("ties") / "run", 3, GROUPED, n_forget=12)
    board = boards.collect(run)
    scores = dict(zip(GROUPED, (0.4, 0.3, 0.2, 0.1), strict=True))
    ahead = Forecast(0.0711, 0.0600, 0.0822, 0.07, 0.06, 0.08, 512, 64)
    rows = [
        replace(row, score=scores.get(row.entry, row.score), forecast=ahead if row.entry == "first" else None)
        for row in board.rows
    ]
    rows.sort(key=lambda row: (row.score is None, -(row.score or 0)))
    order, tied = list(GROUPED), ("second", "third")
    pairs = tuple(
        Comparison(first, second, 0.75 if (first, second) == tied else 0.99, (first, second) != tied, 200)
        for place, first in enumerate(order)
        for second in order[place + 1 :]
    )
    board = replace(board, rows=tuple(rows), comparisons=pairs, ties=(Tie(tied, 3),))
    return board, parse(page.write_page(run, board)[0])


def test_entries_that_cannot_be_told_apart_share_a_number(grouped):
    _, parsed = grouped
    heads, *lines = parsed.tables["leaderboard"][0]
    shown = {line[0]: line[heads.index("group")] for line in lines}
    expected = {"first": "1", "second": "2", "third": "2", "fourth": "3", "broken": "–", "no unlearning": "–"}
    assert expected.items() <= shown.items()


def test_a_reference_has_a_number_only_in_a_tie(grouped):
    board, _ = grouped
    assert CEILING not in page.groups_of(board)
    rows = [row for name in (CEILING, "first") for row in board.rows if row.entry == name]
    tied = replace(board, rows=tuple(rows), ties=(Tie((CEILING, "first"), 3),))
    assert page.groups_of(tied) == {CEILING: 1, "first": 1}
    assert page.groups_of(replace(board, comparisons=(), ties=())) == {}


def test_ties_pairs_and_notes_follow_the_table(grouped):
    board, parsed = grouped
    order = [
        attributes.get("aria-label", tag)
        for tag, attributes in parsed.parts["leaderboard"]
        if tag in ("table", "details", "ul")
    ]
    assert order == ["table", "Ties", "details", "table", "Notes"]
    assert f"Group 2: {board.ties[0]}" in parsed.text["leaderboard"]


def test_shares_of_every_pair_are_in_a_table_that_folds(grouped):
    _, parsed = grouped
    assert parsed.tables["leaderboard"][1] == [
        ["", "1", "2", "3", "4"],
        ["1. first", "", "99%", "99%", "99%"],
        ["2. second", "1%", "", "75%", "99%"],
        ["3. third", "1%", "25%", "", "99%"],
        ["4. fourth", "1%", "1%", "1%", ""],
    ]
    assert parsed.values("class", "leaderboard").count("apart") == 10


def test_a_forecast_has_a_column_and_stands_in_its_section(grouped, small_run):
    board, parsed = grouped
    heads, *lines = parsed.tables["certainty"][0]
    assert heads[-1] == "forecast for N=512"
    assert {line[0]: line[-1] for line in lines}["first"] == "0.0711 (0.0600 to 0.0822)"
    assert {line[-1] for line in lines if line[0] != "first"} == {"–"}
    (ahead,) = parsed.terms[part_of(board, "first")]["forecast for N=512"]
    assert "0.0711" in ahead and "0.0600 to 0.0822" in ahead
    assert "forecast for N=512" not in parsed.terms[part_of(board, "second")]
    without = parse(small_run[2][0]).tables["certainty"][0][0]
    assert not any("forecast" in head for head in without)


def test_percentages_are_written_alike(small_run, grouped):
    for parsed in (parse(small_run[2][0]), grouped[1]):
        texts = [text for part, text in parsed.text.items() if part not in (None, "provenance")]  # style, script
        assert len(texts) > 5
        assert not any(re.search(r"\d\s%", text) for text in texts)


# What a page does without


def test_a_command_that_is_not_known_leaves_no_box(tmp_path):
    run = write_run(tmp_path / "run", 3, {"only": (0.5, 1, 1.0)}, n_forget=4)
    for command, boxes in (("python -m this", 2), ("", 0)):  # one in the section, one at the end
        parsed = parse(written(changed(run, provenance=replace(run.record.provenance, command=command))))
        assert parsed.all_text.count("python -m this") == boxes
        assert [tag for tag, _ in parsed.tags].count("pre") == boxes + 1  # the last lines of the failed one


def test_notebook_rules_and_a_forget_set_of_one(tmp_path):
    run = write_run(tmp_path / "run", 3, {"only": (0.5, 1, 1.0)}, n_forget=1)
    board = boards.collect(run, "notebook")
    parsed = parse(page.write_page(run, board)[0])
    assert len(drawings(parsed, part_of(board, "only"))) == 4  # epsilon, shift, the example, the runs
    assert parsed.terms[None]["forget set"][0] == "1 picture"
    assert "group" not in parsed.tables["leaderboard"][0][0]  # nothing is compared under these rules
    assert parsed.tables["certainty"] == parsed.tables["audits"] == []


def test_a_run_of_failed_entries_has_a_page(tmp_path):
    run = write_run(tmp_path / "run", 3, {}, n_forget=2)
    for entries in (run.record.entries, run.record.entries[:1], ()):
        parsed = parse(written(changed(run, entries=entries)))
        assert len(parsed.tables["leaderboard"][0]) == 1 + 2 + len(entries)
        assert parsed.parts[None].count(("p", {"class": "lead"})) == 1


def test_time_that_is_not_known_is_a_dash(tmp_path):
    run = write_run(tmp_path / "run", 3, {"elsewhere": (0.5, 1, float("nan"))}, n_forget=4)
    board = boards.collect(run)
    parsed = parse(page.write_page(run, board)[0])
    part = part_of(board, "elsewhere")
    assert parsed.terms[part]["time"][0] == "–"
    assert "seconds" not in [line[0] for line in parsed.tables[part][0]]
    assert "nan" not in parsed.text[part]


def test_intervals_come_with_the_rows_that_have_them(tmp_path):
    run = write_run(tmp_path / "run", 3, {"only": (0.5, 1, 1.0)}, n_forget=4)
    board = boards.collect(run)
    bare = [replace(row, score_low=None, score_high=None, intervals=None) for row in board.rows]
    bare = replace(board, rows=tuple(bare))
    paths = page.write_page(run, bare)
    before = [path.read_bytes() for path in paths]
    parsed = parse(paths[0])
    assert parsed.tables["certainty"] == []
    assert {line[3] for line in parsed.tables["leaderboard"][0][1:]} == {"–"}
    assert page.write_page(run, bare) == paths
    assert [path.read_bytes() for path in paths] == before  # a second page is the same to the byte
    rows = [row if row.score is None else replace(row, score_low=0.01, score_high=0.5) for row in bare.rows]
    parsed = parse(page.write_page(run, replace(bare, rows=tuple(rows)))[0])
    assert "0.0100 to 0.5000" in {line[3] for line in parsed.tables["leaderboard"][0]}


def test_ten_entries_of_64_models_make_less_than_3_megabytes(tmp_path):
    path = written(write_run(tmp_path / "run", 64, {"only": (0.3, 1, 1.0)}))
    assert path.stat().st_size / 3 < 3e6 / 12  # sections here, and with ten entries and the two references


# Pictures of the examples


def test_thumbnails_on_request(tmp_path, tiny_data):
    data = dataset.load(tiny_data)
    run = write_run(tmp_path / "run", 3, {}, data.fingerprint, len(data.rows("forget")))
    parsed = parse(written(run, thumbnails=tiny_data))
    assert len(parsed.values("alt")) == 12  # 3 + 3 of the floor and of the ceiling
    assert all(source.startswith("data:image/png;base64,") for source in parsed.values("src"))


def test_sentence_in_place_of_thumbnails(tmp_path, tiny_data):
    record = write_run(tmp_path / "run", 3, {}, fingerprint="other").record
    for thumbnails in (None, tmp_path, tiny_data):
        faces, why = page.faces_of(record, thumbnails)
        assert faces is None
        assert str(thumbnails or "--thumbnails") in why


def test_figures_of_entries_that_are_gone_are_removed(tmp_path):
    run = write_run(tmp_path / "run", 3, {"only": (0.5, 1, 1.0), "gone": (0, 1, 1.0)}, n_forget=4)
    figures = run.folder.root / "figures"
    written(run)
    assert (figures / "gone-epsilon.png").is_file()
    written(changed(run, entries=tuple(entry for entry in run.record.entries if entry.name != "gone")))
    assert not any(path.name.startswith("gone") for path in figures.iterdir())
    assert (figures / "only-epsilon.png").is_file()
