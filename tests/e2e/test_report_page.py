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
from local_scorer import page, report
from local_scorer.store import ACCURACIES, LOGITS, Failure, JobResult, RunFolder

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
        keys = [f"{name}-{index}" for index in range(count)]
        for key in keys:
            logits = np.zeros((n_forget, N_CLASSES))
            confidence = center + deviation * (shift + spread * random.normal(size=n_forget))
            logits[np.arange(n_forget), labels] = confidence + np.log(N_CLASSES - 1)
            result = JobResult(
                header={"workers": 2},
                logits=dict.fromkeys(LOGITS, logits),
                labels=dict.fromkeys(LOGITS, labels),
                accuracy={split: random.uniform(0.6, 0.65) for split in ACCURACIES},
                wall_seconds=seconds * random.uniform(0.95, 1.05),
                cpu_seconds=2 * seconds,
            )
            folder.save_result(key, result)
        return keys

    (original,) = save("original", 1, 2.5, 0.0, 20)
    retrained, ceiling = save("retrained", n_models, 0, 1, 20), save("ceiling", n_models, 0, 1, 20)
    entries = [
        {"name": name, "hash": "ab" * 32, "keys": save(f"method{position}", n_models, *method)}
        for position, (name, method) in enumerate(methods.items())
    ]
    entries += [{"name": name, "hash": "cd" * 32, "keys": [f"{name}-0"]} for name in ("broken", "stopped")]
    entries.append({"name": "unreadable", "hash": None, "keys": [], "error": "unreadable.py is not text."})
    details = 'Traceback\n  <img src="http://evil.example/x" onerror="alert(2)">\n\x1b[31mKeyError'
    folder.save_failure("broken-0", Failure("exception", f"KeyError: '{HOSTILE}'", details))
    folder.save_failure("stopped-0", Failure("time-out", "too slow", seconds=12.0))
    data = {
        "name": "drawn <b>",
        "fingerprint": fingerprint,
        "class_names": [f"class <{number}>" for number in range(N_CLASSES)],
        "counts": {"retain": 1000, "forget": n_forget, "validation": 10, "test": 100},
    }
    record = report.RunRecord(
        "official", n_models, data,
        {"recipe": {"name": "quick", "lr": 0.1}, "width": 16, "size": 32, "device": "cpu"},
        original, retrained, ceiling, entries,
        {"command": "python -m local_scorer leaderboard 'a & b.py'", "environment": {"python": "3"}},
    )  # fmt: skip
    report.save_record(folder, record)
    return folder, record


METHODS = {"good": (0.1, 1.0, 2.0), "shifted": (2.0, 0.5, 1.0), HOSTILE: (1.0, 1.0, 3.0), "slow": (0, 1, 9.0)}


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    folder, record = write_run(tmp_path_factory.mktemp("page") / "run", 10, METHODS)
    board = report.collect(folder, record)
    return folder, record, board, page.write_page(folder, board, record)


class Page(html.parser.HTMLParser):
    """A page as start tags, ids and the text of each section; complains about tags that do not match."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.text = [], [], collections.defaultdict(str)
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
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
    assert "needs N of at least 32" in text
    for row in board.rows:
        if row.intervals:
            assert f"{row.intervals.both.score_low:.4f} to {row.intervals.both.score_high:.4f}" in text


def test_time_that_is_not_known_is_said(tmp_path):
    folder, record = write_run(tmp_path / "run", 3, {"elsewhere": (0.5, 1, float("nan"))}, n_forget=4)
    board = report.collect(folder, record)
    position = [row.entry for row in board.rows].index("elsewhere") + 1
    text = parse(page.write_page(folder, board, record)[0]).text[f"entry-{position}"]
    assert "Not known: made elsewhere." in text


def test_a_second_report_is_the_same_but_for_the_intervals_that_it_now_has(tmp_path):
    folder, record = write_run(tmp_path / "run", 3, {"only": (0.5, 1, 1.0)}, n_forget=4)
    board = report.collect(folder, record)
    rows = [replace(row, score_low=None, score_high=None, intervals=None) for row in board.rows]
    board = replace(board, rows=tuple(rows))
    paths = page.write_page(folder, board, record)
    before = [path.read_bytes() for path in paths]
    assert "without intervals" in parse(paths[0]).text[None]
    assert page.write_page(folder, board, record) == paths
    assert [path.read_bytes() for path in paths] == before

    rows = [row if row.score is None else replace(row, score_low=0.01, score_high=0.5) for row in board.rows]
    path, *_ = page.write_page(folder, replace(board, rows=tuple(rows)), record)
    text = parse(path).text
    assert "the bars 95 % intervals" in text[None]
    assert "0.0100 to 0.5000" in text[None]
    assert "95 % interval 0.0100 to 0.5000." in text["entry-1"]


def test_notebook_rules_and_a_forget_set_of_one(tmp_path):
    folder, record = write_run(tmp_path / "run", 3, {"only": (0.5, 1, 1.0)}, n_forget=1)
    parsed = parse(page.write_page(folder, report.collect(folder, record, "notebook"), record)[0])
    assert "strongest attack" not in "".join(parsed.text.values())
    assert parsed.text["entry-1"].count("Forget example") == 1


def test_a_run_of_failed_entries_has_a_page(tmp_path):
    folder, record = write_run(tmp_path / "run", 3, {}, n_forget=2)
    text = parse(page.write_page(folder, report.collect(folder, record), record)[0]).text
    assert "None of 3 entries has a score." in text[None]


def test_thumbnails_on_request(tmp_path, tiny_data):
    data = dataset.load(tiny_data)
    n_forget = len(data.rows("forget"))
    folder, record = write_run(tmp_path / "run", 3, {}, data.fingerprint, n_forget)
    parsed = parse(page.write_page(folder, report.collect(folder, record), record, tiny_data)[0])
    assert len(parsed.values("alt")) == 12  # 3 + 3 of the floor and of the ceiling
    assert parsed.values("src") == [
        src for src in parsed.values("src") if src.startswith("data:image/png;base64,")
    ]


def test_sentence_in_place_of_thumbnails(tmp_path, tiny_data):
    _, record = write_run(tmp_path / "run", 3, {}, fingerprint="other")
    reasons = {
        None: "Pictures of the examples are left out; they are shown on request.",
        tmp_path: f"There are no pictures of the examples: {tmp_path} is not a prepared dataset.",
        tiny_data: f"There are no pictures of the examples: {tiny_data} is not the data of this run.",
    }
    assert {thumbnails: page._faces(record, thumbnails) for thumbnails in reasons} == {
        thumbnails: (None, reason) for thumbnails, reason in reasons.items()
    }


def test_ten_entries_of_64_models_make_less_than_3_megabytes(tmp_path):
    folder, record = write_run(tmp_path / "run", 64, {"only": (0.3, 1, 1.0)})
    path, *_ = page.write_page(folder, report.collect(folder, record), record)
    assert path.stat().st_size / 3 < 3e6 / 12  # sections here, and with ten entries and the two references


# In a browser

N_OTHER_HEADS = 5 + 1 + len(page.AUDITS)  # of the tables on certainty and on audits

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


def browse(path, tmp_path):
    """Return the page as the browser has it after loading, and its console messages."""
    if BROWSER is None:
        pytest.skip("no Chromium here: the page is checked by the parser alone")
    switches = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking"
    switches += " disable-component-update disable-sync dump-dom enable-logging=stderr"
    command = [BROWSER, *(f"--{switch}" for switch in switches.split()), f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run([*command, path.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_browser_shows_the_page_without_complaint(small_run, tmp_path):
    _, _, board, paths = small_run
    document, complaints = browse(paths[0], tmp_path)
    assert complaints == []
    assert document.count('<button type="button">') == len(page.HEADS) + N_OTHER_HEADS  # the script ran
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
