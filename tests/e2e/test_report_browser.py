"""The report page of a whole run in a browser; skipped where there is none."""

import html
import json
import re
import shutil
import subprocess

import pytest

from local_scorer.report import board as boards
from local_scorer.report import page
from tests.helpers.pages import METHODS, parse, write_run, written

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    """Return the board of a run and the path of its page."""
    run = write_run(tmp_path_factory.mktemp("page") / "run", 10, METHODS)
    board = boards.collect(run)
    return board, page.write_page(run, board)[0]


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
    board, path = small_run
    document, complaints = browse(path, tmp_path)
    assert complaints == []
    tables = parse(path).tables
    heads = [len(tables[part][0][0]) for part in ("leaderboard", "certainty", "audits")]
    assert document.count('<button type="button">') == sum(heads)  # the script ran
    assert document.count('<section class="entry') == len(board.rows)


def test_browser_forbids_a_script_that_is_not_the_page_s(small_run, tmp_path):
    copy = tmp_path / "copy.html"
    copy.write_text(small_run[1].read_text(encoding="utf-8").replace("</body>", SORT), encoding="utf-8")
    document, complaints = browse(copy, tmp_path)
    assert 'id="answer"' not in document
    assert any("Content Security Policy" in line for line in complaints)


def test_browser_sorts_by_a_click(small_run, tmp_path):
    board, path = small_run
    copy = tmp_path / "copy.html"
    text = re.sub(r"script-src '[^']*'", "script-src 'unsafe-inline'", path.read_text(encoding="utf-8"))
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
