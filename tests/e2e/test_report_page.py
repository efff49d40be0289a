"""The report page of a whole run, as a parser sees it and, where there is one, as a browser does."""

import collections
import html.parser
import json
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from data_prep import dataset
from local_scorer import cli
from local_scorer import run as leaderboard
from local_scorer.report import board as report
from local_scorer.report import page
from local_scorer.runs.record import Counts, Entry, Run
from local_scorer.runs.store import ACCURACIES, LOGITS, Failure, RunFolder
from local_scorer.statistics.forecast import Forecast
from local_scorer.statistics.ties import Comparison, Tie
from studies import variants
from tests.helpers.runs import job_result, run_data, run_record, save_jobs, saved_run

N_FORGET, N_CLASSES = 56, 8
HOSTILE = "<script>alert(1)</script>$x"
VOID = {"meta", "img", "br"}
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def write_run(root, n_models, methods, fingerprint="none", n_forget=N_FORGET):
    """Make a run folder from drawn confidences; `methods` maps names to shift, spread and seconds."""
    folder = RunFolder(root)
    random = np.random.default_rng(0)
    center, deviation = random.normal(0.5, 2, n_forget), random.uniform(0.5, 1.2, n_forget)
    labels = random.integers(0, N_CLASSES, n_forget)

    def save(name, count, shift, spread, seconds):
        results = []
        for _ in range(count):
            confidence = center + deviation * (shift + spread * random.normal(size=n_forget))
            accuracy = {split: random.uniform(0.6, 0.65) for split in ACCURACIES}
            result = job_result(
                dict.fromkeys(LOGITS, confidence),
                labels,
                N_CLASSES,
                seconds * random.uniform(0.95, 1.05),
                accuracy,
            )
            results.append(replace(result, cpu_seconds=2 * seconds))
        return save_jobs(folder, f"{name}-", results)

    save("original", 1, 2.5, 0.0, 20)
    retrained, ceiling = save("retrained", n_models, 0, 1, 20), save("ceiling", n_models, 0, 1, 20)
    entries = [
        Entry(name, "ab" * 32, save(f"method{position}", n_models, *method))
        for position, (name, method) in enumerate(methods.items())
    ]
    entries += [Entry(name, "cd" * 32, (f"{name}-0",)) for name in ("broken", "stopped")]
    entries.append(Entry("unreadable", None, (), "unreadable.py is not text."))
    details = 'Traceback\n  <img src="http://evil.example/x" onerror="alert(2)">\n\x1b[31mKeyError'
    folder.save_failure("broken-0", Failure("exception", f"KeyError: '{HOSTILE}'", details))
    folder.save_failure("stopped-0", Failure("time-out", "too slow", seconds=12.0))
    data = run_data(
        name="drawn <b>",
        fingerprint=fingerprint,
        class_names=tuple(f"class <{number}>" for number in range(N_CLASSES)),
        counts=Counts(retain=1000, forget=n_forget, validation=10, test=100),
    )
    record = run_record(retrained, ceiling, *entries, original="original-0", data=data)
    provenance = replace(record.provenance, command="python -m local_scorer leaderboard 'a & b.py'")
    return saved_run(root, replace(record, provenance=provenance))


def changed(run, **changes):
    """Return a run whose record is another one; it is not saved."""
    return Run(run.folder, replace(run.record, **changes))


def written(run, rules=None, **options):
    """Write the page of a run and return its path."""
    return page.write_page(run, report.collect(run, rules), **options)[0]


METHODS = {"good": (0.1, 1.0, 2.0), "shifted": (2.0, 0.5, 1.0), HOSTILE: (1.0, 1.0, 3.0), "slow": (0, 1, 9.0)}


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    run = write_run(tmp_path_factory.mktemp("page") / "run", 10, METHODS)
    board = report.collect(run)
    return run.folder, run.record, board, page.write_page(run, board)


class Page(html.parser.HTMLParser):
    """A page as start tags, ids and the text of each section; complains about tags that do not match."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.text = [], [], collections.defaultdict(str)
        self.lines = []  # of all tables, as lists of cells
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "tr":
            self.lines.append([])
        if tag in ("td", "th"):
            self.lines[-1].append("")
        if tag not in VOID:
            self.open.append((tag, dict(attributes).get("id")))

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        name, _ = self.open.pop()
        assert name == tag, f"</{tag}> closes <{name}> at {self.getpos()}"

    def handle_data(self, data):
        section = next((name for tag, name in self.open if tag == "section"), None)
        self.text[section] += data
        if any(tag in ("td", "th") for tag, _ in self.open):
            self.lines[-1][-1] += data

    def values(self, attribute):
        return [attributes[attribute] for _, attributes in self.tags if attribute in attributes]


def parse(path):
    return Page(path.read_text(encoding="utf-8"))


def test_every_row_has_a_line_and_a_section(small_run):
    _, _, board, paths = small_run
    parsed = parse(paths[0])
    links = [value for value in parsed.values("href") if value.startswith("#entry-")]
    assert links[: len(board.rows)] == [f"#entry-{position}" for position in range(1, len(board.rows) + 1)]
    assert set(links) == set(links[: len(board.rows)])
    for position, row in enumerate(board.rows, 1):
        text = parsed.text[f"entry-{position}"].strip()
        assert text.startswith(row.entry)
        assert " ".join(row.reason.split()) in " ".join(text.split())
        if row.n_models:
            assert f"{row.forgetting_quality:.4f}" in text
            assert text.count("Forget example") == 6
    for note in board.notes:
        assert note in parsed.text[None]


def test_failed_entry_shows_its_last_lines_and_no_figures(small_run):
    _, _, board, paths = small_run
    position = next(index for index, row in enumerate(board.rows, 1) if row.entry == "broken")
    text = parse(paths[0]).text[f"entry-{position}"]
    assert 'onerror="alert(2)"' in text
    assert "�[31mKeyError" in text
    assert not any("broken" in path.name for path in paths)


def test_what_entries_say_is_text(small_run):
    parsed = parse(small_run[3][0])
    assert [tag for tag, _ in parsed.tags].count("script") == 1
    assert not any(name.startswith("on") for _, attributes in parsed.tags for name in attributes)
    assert parsed.text[None].count(HOSTILE) >= 2  # in the forest plot and in the table


def test_page_loads_nothing(small_run):
    parsed = parse(small_run[3][0])
    ids = parsed.values("id")
    assert len(ids) == len(set(ids))
    for attribute in ("src", "href", "xlink:href", "action", "data", "poster"):
        for value in parsed.values(attribute):
            assert value.startswith("data:image/png") or value[1:] in ids, value
    source = small_run[3][0].read_text(encoding="utf-8")
    assert not re.search(r"@import|url\((?!#)|<link|<iframe|<object|<base", source)


def test_figures_are_also_png(small_run):
    folder, _, _, paths = small_run
    names = {path.name for path in paths[1:]}
    assert {"leaderboard.png", *(f"good-{kind}.png" for kind in ("epsilon", "shift", "examples", "runs"))} <= names
    assert names == {path.name for path in (folder.root / "figures").iterdir()}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths[1:])


def test_certainty_and_audits_have_a_line_for_each_row_with_models(small_run):
    _, _, board, paths = small_run
    text = parse(paths[0]).text[None]
    assert "How sure is it?" in text
    assert "Audits beside the score" in text
    assert text.count("A forecast for 512 models needs N of at least 32.") == 1
    assert "forecast for N=" not in text
    for row in board.rows:
        if row.intervals:
            assert f"{row.intervals.both.score_low:.4f} to {row.intervals.both.score_high:.4f}" in text


def test_each_section_has_the_intervals_of_its_row(small_run):
    _, _, board, paths = small_run
    text = parse(paths[0]).text
    for position, row in enumerate(board.rows, 1):
        assert ("95% interval, both redrawn" in text[f"entry-{position}"]) == (row.intervals is not None)
        if row.intervals:
            for part in (row.intervals.models, row.intervals.examples, row.intervals.both):
                assert f"{part.score_low:.4f} to {part.score_high:.4f}" in text[f"entry-{position}"]


def test_shift_is_the_same_statistic_in_table_and_section(small_run):
    _, _, board, paths = small_run
    parsed = parse(paths[0])
    position, row = next((number, row) for number, row in enumerate(board.rows, 1) if row.entry == "shifted")
    shift = re.search(r"is shifted by (\S+) and spreads (×\d+\.\d+)", parsed.text[f"entry-{position}"])
    cells = [one for one in parsed.lines if one[0] == "shifted" and len(one) == 1 + len(page.AUDITS)][-1]
    assert (cells[4], cells[6]) == shift.groups()
    assert cells[5] == f"{row.distance.mean_absolute_shift:.2f}"


def test_references_are_not_called_unlearned(small_run):
    _, _, board, paths = small_run
    parsed = parse(paths[0])
    names = [row.entry for row in board.rows]
    text = parsed.text[f"entry-{names.index('retrained') + 1}"]
    assert "unlearned" not in text
    assert {"second set", "first set"} <= set(re.findall("(?:first|second) set", text))
    section = paths[0].read_text(encoding="utf-8").split('<section class="entry')[names.index("retrained") + 1]
    assert "var(--second)" in section
    assert "var(--unlearned)" not in section
    text = parsed.text[f"entry-{names.index('no unlearning') + 1}"]
    assert "copies of the original" in text
    assert "unlearned" not in text


def test_the_strongest_attack_is_introduced_once_an_entry(small_run):
    parsed = parse(small_run[3][0])
    assert parsed.text["entry-1"].count("strongest attack") == 1


GROUPED = [
    ("first", (0.0, 1.0, 1.0)),
    ("second", (0.1, 1.0, 1.0)),
    ("third", (1.0, 1.0, 1.0)),
    ("fourth", (4.0, 1.0, 1.0)),
]


@pytest.fixture(scope="module")
def grouped(tmp_path_factory):
    """A page of four scored entries, the middle two in a tie, with a forecast for the first."""
    run = write_run(tmp_path_factory.mktemp("ties") / "run", 3, dict(GROUPED), n_forget=12)
    board = report.collect(run)
    order = ["first", "second", "third", "fourth"]
    scores = dict(zip(order, (0.4, 0.3, 0.2, 0.1), strict=True))
    rows = [replace(row, score=scores.get(row.entry, row.score)) for row in board.rows]
    ahead = Forecast(0.0711, 0.0600, 0.0822, 0.07, 0.06, 0.08, 512, 64)
    rows = [replace(row, forecast=ahead if row.entry == "first" else None) for row in rows]
    rows.sort(key=lambda row: (row.score is None, -(row.score or 0)))
    pairs = tuple(
        Comparison(first, second, 0.75 if (first, second) == ("second", "third") else 0.99,
                   (first, second) != ("second", "third"), 200)
        for place, first in enumerate(order)
        for second in order[place + 1 :]
    )  # fmt: skip
    board = replace(board, rows=tuple(rows), comparisons=pairs, ties=(Tie(("second", "third"), None, 3),))
    return board, page.write_page(run, board)[0]


def test_entries_that_cannot_be_told_apart_share_a_number(grouped):
    board, path = grouped
    lines = parse(path).lines
    heads = lines[0]
    assert heads[:3] == ["entry", "group", "score"]
    shown = {cells[0]: cells[1] for cells in lines[1 : len(board.rows) + 1]}
    expected = {"first": "1", "second": "2", "third": "2", "fourth": "3", "broken": "–", "no unlearning": "–"}
    assert expected.items() <= shown.items()


def test_a_reference_has_a_number_only_in_a_tie(grouped):
    board, _ = grouped
    assert "retrained" not in page._groups(board)
    rows = [row for row in board.rows if row.entry in ("retrained", "first")]
    rows.sort(key=lambda row: row.entry == "first")
    tied = replace(board, rows=tuple(rows), ties=(Tie(("retrained", "first"), None, 3),))
    assert page._groups(tied) == {"retrained": 1, "first": 1}
    assert page._groups(replace(board, comparisons=(), ties=())) == {}


def test_ties_stand_calmly_under_the_table_and_the_notes_below_them(grouped):
    board, path = grouped
    source = path.read_text(encoding="utf-8")
    start = source.index('id="leaderboard"')
    places = [source.index(part, start) for part in (
        "<svg", "<table class=sortable", 'aria-label="Ties"', "<details", 'aria-label="Notes"',
    )]  # fmt: skip
    assert places == sorted(places)
    assert '<ul class="notes"' not in source[:start]
    ties = re.search(r'<ul class="ties" aria-label="Ties">(.*?)</ul>', source).group(1)
    assert ties.startswith(f"<li>Group 2: {board.ties[0]}</li>")
    assert ties.endswith("<li>Neighbours across groups may be tied too.</li>")


def test_shares_of_every_pair_are_in_a_table_that_folds(grouped):
    _, path = grouped
    folded = re.search("<details>(.*?)</details>", path.read_text(encoding="utf-8"), re.DOTALL).group(1)
    lines = [re.findall("<t[dh][^>]*>([^<]*)", line) for line in re.findall("<tr>.*?</tr>", folded)]
    assert lines == [
        ["", "1", "2", "3", "4"],
        ["1. first", "", "99%", "99%", "99%"],
        ["2. second", "1%", "", "75%", "99%"],
        ["3. third", "1%", "25%", "", "99%"],
        ["4. fourth", "1%", "1%", "1%", ""],
    ]
    assert folded.count('class="apart"') == 10


def test_a_forecast_has_a_column_and_stands_in_its_section(grouped):
    _, path = grouped
    parsed = parse(path)
    (heads,) = (cells for cells in parsed.lines if "forecast for N=512" in cells)
    assert heads[-1] == "forecast for N=512"
    assert "0.0711 (0.0600 to 0.0822)" in parsed.text[None]
    assert "needs N of at least" not in parsed.text[None]
    assert "0.0711, 95% interval 0.0600 to 0.0822" in parsed.text["entry-1"]
    assert "forecast" not in parsed.text["entry-2"]


def test_percentages_are_written_alike(small_run, grouped):
    for path in (small_run[3][0], grouped[1]):
        assert not re.search(r"\d\s%", "".join(parse(path).text.values()).partition("document")[2])


def test_a_command_that_is_not_known_leaves_no_box(tmp_path):
    run = write_run(tmp_path / "run", 3, {"only": (0.5, 1, 1.0)}, n_forget=4)
    for command, boxes in (("python -m this", 2), ("", 0)):  # one in the section, one at the end
        parsed = parse(written(changed(run, provenance=replace(run.record.provenance, command=command))))
        text = "".join(parsed.text.values())
        assert text.count("python -m this") == boxes
        assert ("This command ran it" in text) == ("The command that made this run" in text) == bool(boxes)
        assert [tag for tag, _ in parsed.tags].count("pre") == boxes + 1  # the last lines of the failed one


def test_variants_record_their_command(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(leaderboard, "run", lambda *arguments: called.append(arguments) or report.Leaderboard(
        {}, "official", 3, 1.0, (), {}, (report.Row("gisa LR=1", "failed", "nothing"),)
    ))  # fmt: skip
    results = tmp_path / "results.json"
    arguments = ["gisa LR=1", "--out", str(tmp_path), "--results", str(results)]
    monkeypatch.setattr("sys.argv", ["variants.py", *arguments])
    variants.main()
    assert called[0][4] == f"python -m studies.variants 'gisa LR=1' --out {tmp_path} --results {results}"


def test_other_rules_leave_the_files_of_the_run_s_own_alone(tmp_path, capsys):
    folder = write_run(tmp_path / "run", 3, {"only": (0.5, 1, 1.0)}, n_forget=4).folder

    def written():
        files = [path for path in folder.root.rglob("*") if path.suffix in (".html", ".csv", ".png")]
        files += folder.root.glob("leaderboard*.json")
        return {str(path.relative_to(folder.root)): path.read_bytes() for path in files}

    assert cli.main(["report", str(folder.root)]) == cli.ENTRY_NOT_SCORED
    own = written()
    assert "figures/only-epsilon.png" in own
    assert cli.main(["report", str(folder.root), "--rules", "notebook"]) == cli.ENTRY_NOT_SCORED
    both = written()
    assert own.items() <= both.items()
    assert {"report-notebook.html", "leaderboard-notebook.csv", "leaderboard-notebook.json",
            "figures-notebook/leaderboard.png"} <= both.keys()  # fmt: skip
    assert "figures-notebook" in capsys.readouterr().out
    assert b"leaderboard-notebook.csv" in both["report-notebook.html"]
    assert cli.main(["report", str(folder.root), "--rules", "official"]) == cli.ENTRY_NOT_SCORED
    assert written() == both


def test_report_cannot_steer_a_terminal(tmp_path, capsys):
    folder = write_run(tmp_path / "run", 3, {"only\x1b[2J\u202e": (0.5, 1, 1.0)}, n_forget=4).folder
    cli.main(["report", str(folder.root)])
    cli.main(["ls", str(tmp_path)])
    out = capsys.readouterr().out
    assert "only�[2J�" in out
    assert "Traceback\n  <img" in out
    assert "�[31mKeyError" in out
    assert not re.search("[\x1b\u202e]", out)


def test_figures_of_entries_that_are_gone_are_removed(tmp_path):
    run = write_run(tmp_path / "run", 3, {"only": (0.5, 1, 1.0), "gone": (0, 1, 1.0)}, n_forget=4)
    figures = run.folder.root / "figures"
    written(run)
    assert (figures / "gone-epsilon.png").is_file()
    written(changed(run, entries=tuple(entry for entry in run.record.entries if entry.name != "gone")))
    assert not any(path.name.startswith("gone") for path in figures.iterdir())
    assert (figures / "only-epsilon.png").is_file()


def test_the_built_in_set_is_found_by_its_content(tmp_path, tiny_data, monkeypatch):
    (tmp_path / "synthetic").mkdir()  # half made
    shutil.copytree(tiny_data, tmp_path / "synthetic-48")
    monkeypatch.setattr(cli, "DEFAULT_DATA", tmp_path / "synthetic")
    data = dataset.load(tiny_data)
    assert cli._built_in(data.fingerprint) == tmp_path / "synthetic-48"
    assert cli._built_in("another") is None
    run = write_run(tmp_path / "run", 3, {}, data.fingerprint, len(data.rows("forget")))
    for name, fingerprint, n_pictures in (
        ("synthetic", data.fingerprint, 12), ("synthetic", "another", 0), ("mine", data.fingerprint, 0),
    ):  # fmt: skip
        changed(run, data=replace(run.record.data, name=name, fingerprint=fingerprint)).save()
        cli.main(["report", str(run.folder.root)])
        parsed = parse(run.folder.root / "report.html")
        assert len(parsed.values("alt")) == n_pictures
        assert ("ictures of the examples" in parsed.text[None]) == (name == "mine")


def test_time_that_is_not_known_is_said(tmp_path):
    run = write_run(tmp_path / "run", 3, {"elsewhere": (0.5, 1, float("nan"))}, n_forget=4)
    board = report.collect(run)
    position = [row.entry for row in board.rows].index("elsewhere") + 1
    text = parse(page.write_page(run, board)[0]).text[f"entry-{position}"]
    assert "Not known: made elsewhere." in text
    assert "The time is not known: these models were made elsewhere." in text


def test_time_is_a_line_of_text(small_run):
    _, _, board, paths = small_run
    position, row = next((number, row) for number, row in enumerate(board.rows, 1) if row.entry == "good")
    text = " ".join(parse(paths[0]).text[f"entry-{position}"].split())
    assert f"Unlearning took {row.time_ratio:.1%} of the time of retraining in the mean, " in text
    assert f"{row.seconds:.2f} s a run in the mean" in text  # 2 s: two digits after the point


def test_a_second_report_is_the_same_but_for_the_intervals_that_it_now_has(tmp_path):
    run = write_run(tmp_path / "run", 3, {"only": (0.5, 1, 1.0)}, n_forget=4)
    board = report.collect(run)
    rows = [replace(row, score_low=None, score_high=None, intervals=None) for row in board.rows]
    board = replace(board, rows=tuple(rows))
    paths = page.write_page(run, board)
    before = [path.read_bytes() for path in paths]
    assert "without intervals" in parse(paths[0]).text[None]
    assert page.write_page(run, board) == paths
    assert [path.read_bytes() for path in paths] == before

    rows = [row if row.score is None else replace(row, score_low=0.01, score_high=0.5) for row in board.rows]
    path, *_ = page.write_page(run, replace(board, rows=tuple(rows)))
    text = parse(path).text
    assert "the bars 95% intervals. Which entries cannot be told apart stands below." in text[None]
    assert "0.0100 to 0.5000" in text[None]
    assert "95% interval 0.0100 to 0.5000." in text["entry-1"]


def test_notebook_rules_and_a_forget_set_of_one(tmp_path):
    run = write_run(tmp_path / "run", 3, {"only": (0.5, 1, 1.0)}, n_forget=1)
    parsed = parse(written(run, "notebook"))
    assert "strongest attack" not in "".join(parsed.text.values())
    assert parsed.text["entry-1"].count("Forget example") == 1
    assert "1 picture" in parsed.text[None]
    assert "over 1 forget example;" in parsed.text["entry-1"]
    assert "group" not in parsed.lines[0]  # nothing is compared under these rules


def test_a_run_of_failed_entries_has_a_page(tmp_path):
    run = write_run(tmp_path / "run", 3, {}, n_forget=2)
    text = parse(written(run)).text
    assert "None of 3 entries has a score." in text[None]
    run = changed(run, entries=run.record.entries[:1])
    text = parse(written(run)).text
    assert "The only entry has no score." in text[None]


def test_thumbnails_on_request(tmp_path, tiny_data):
    data = dataset.load(tiny_data)
    n_forget = len(data.rows("forget"))
    run = write_run(tmp_path / "run", 3, {}, data.fingerprint, n_forget)
    parsed = parse(written(run, thumbnails=tiny_data))
    assert len(parsed.values("alt")) == 12  # 3 + 3 of the floor and of the ceiling
    assert parsed.values("src") == [
        src for src in parsed.values("src") if src.startswith("data:image/png;base64,")
    ]


def test_sentence_in_place_of_thumbnails(tmp_path, tiny_data):
    run = write_run(tmp_path / "run", 3, {}, fingerprint="other")
    reasons = {
        None: "Pictures of the examples are left out; they are shown on request.",
        tmp_path: f"There are no pictures of the examples: {tmp_path} is not a prepared dataset.",
        tiny_data: f"There are no pictures of the examples: {tiny_data} is not the data of this run.",
    }
    assert {thumbnails: page._faces(run.record, thumbnails) for thumbnails in reasons} == {
        thumbnails: (None, reason) for thumbnails, reason in reasons.items()
    }


def test_ten_entries_of_64_models_make_less_than_3_megabytes(tmp_path):
    run = write_run(tmp_path / "run", 64, {"only": (0.3, 1, 1.0)})
    path = written(run)
    assert path.stat().st_size / 3 < 3e6 / 12  # sections here, and with ten entries and the two references


# In a browser

N_HEADS = 1 + len(page.HEADS) + 4 + 1 + len(page.AUDITS)  # with groups; of the three tables that are sorted

SORT = """<script>
window.onerror = (message) => { document.title = "error: " + message; };
const board = document.querySelector("table.sortable");
const order = () => [...board.querySelectorAll("tbody tr")].map((row) => row.cells[0].innerText);
const head = (name) => [...board.querySelectorAll("th")].find((th) => th.innerText === name);
const seen = [order()];
for (const name of ["time", "time", "entry"]) {
  head(name).querySelector("button").click();
  seen.push(order(), head(name).getAttribute("aria-sort"));
}
seen.push(document.querySelectorAll("th[aria-sort]").length, document.documentElement.scrollWidth <= innerWidth);
const answer = document.createElement("pre");
answer.id = "answer";
answer.textContent = JSON.stringify(seen);
document.body.append(answer);
</script></body>"""


def browse(path, tmp_path, *more):
    """Return the page as the browser has it after loading, and its console messages."""
    if BROWSER is None:
        pytest.skip("no Chromium here: the page is checked by the parser alone")
    switches = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking"
    switches += " disable-component-update disable-sync dump-dom enable-logging=stderr"
    switches = [*switches.split(), *more, f"user-data-dir={tmp_path / 'profile'}"]
    command = [BROWSER, *(f"--{switch}" for switch in switches)]
    done = subprocess.run([*command, path.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_browser_shows_the_page_without_complaint(small_run, tmp_path):
    _, _, board, paths = small_run
    document, complaints = browse(paths[0], tmp_path)
    assert complaints == []
    assert document.count('<button type="button">') == N_HEADS  # the script ran
    assert document.count('<section class="entry') == len(board.rows)


def test_browser_forbids_a_script_that_is_not_the_page_s(small_run, tmp_path):
    copy = tmp_path / "copy.html"
    copy.write_text(small_run[3][0].read_text(encoding="utf-8").replace("</body>", SORT), encoding="utf-8")
    document, complaints = browse(copy, tmp_path)
    assert 'id="answer"' not in document
    assert any("Content Security Policy" in line for line in complaints)


def test_browser_sorts_by_a_click(small_run, tmp_path):
    _, _, board, paths = small_run
    copy = tmp_path / "copy.html"
    text = re.sub(r"script-src '[^']*'", "script-src 'unsafe-inline'", paths[0].read_text(encoding="utf-8"))
    copy.write_text(text.replace("</body>", SORT), encoding="utf-8")
    document, complaints = browse(copy, tmp_path)
    assert complaints == []
    answer = json.loads(html.unescape(re.search(r'<pre id="answer">(.*?)</pre>', document).group(1)))
    at_first, slowest, down, fastest, up, names, ascending, n_sorted, fits = answer
    assert at_first == [row.entry for row in board.rows]
    timed = sorted((row for row in board.rows if row.time_ratio is not None), key=lambda row: row.time_ratio)
    assert slowest[: len(timed)] == [row.entry for row in timed[::-1]]
    assert fastest[: len(timed)] == [row.entry for row in timed]
    assert set(slowest[len(timed) :]) == set(fastest[len(timed) :]) == {"broken", "unreadable"}
    assert (down, up, ascending, n_sorted) == ("descending", "ascending", "ascending", 1)
    assert sorted(names) == sorted(at_first)
    assert names.index("broken") < names.index("good") < names.index("slow")
    assert fits  # nothing sticks out of the window


LONG = "x" * 120
NARROW = """<script>
const frame = document.createElement("iframe");
frame.style.width = "400px";
frame.onload = () => {
  const page = frame.contentDocument;
  const wide = (one) => one.scrollWidth > one.clientWidth + 1;
  const forest = page.querySelector(".for-narrow svg");
  const answer = document.createElement("pre");
  answer.id = "answer";
  answer.textContent = JSON.stringify([
    page.documentElement.scrollWidth,
    getComputedStyle(page.querySelector(".for-wide")).display,
    forest.getBoundingClientRect().right <= 400,
    [...page.querySelectorAll("li, dd, p, h3, figcaption, pre")].filter(wide).length,
    Math.max(...[...page.querySelectorAll("table.sortable tbody tr")].map((row) => row.clientHeight)),
  ]);
  document.body.append(answer);
};
frame.src = "page.html";
document.body.append(frame);
</script>"""


def test_browser_shows_long_names_in_400_pixels(tmp_path):
    run = write_run(tmp_path / "run", 3, {LONG: (0.5, 1, 1.0), LONG + "y": (0.4, 1, 1.0)}, n_forget=4)
    path = written(run)
    path.rename(path.with_name("page.html"))
    outside = path.with_name("outside.html")
    outside.write_text(f"<!DOCTYPE html><body>{NARROW}</body>")
    document, _ = browse(outside, tmp_path, "allow-file-access-from-files", "virtual-time-budget=20000")
    answer = json.loads(html.unescape(re.search(r'<pre id="answer">(.*?)</pre>', document).group(1)))
    width, wide_plot, forest_fits, n_overflowing, height = answer
    assert width <= 400
    assert wide_plot == "none"
    assert forest_fits
    assert n_overflowing == 0
    assert height < 150  # pixels, of the highest line of a table: at most six lines of a name
