"""Runs of drawn confidences, and their report pages as a parser sees them."""

import collections
import html.parser
from dataclasses import replace

import numpy as np

from local_scorer.report import board as boards
from local_scorer.report import page
from local_scorer.runs.record import Counts, Entry, Run
from local_scorer.runs.store import ACCURACIES, LOGITS, Failure, RunFolder
from tests.helpers.runs import job_result, run_data, run_record, save_jobs, saved_run

N_FORGET, N_CLASSES = 56, 8
HOSTILE = "<script>alert(1)</script>$x"
DETAILS = 'Traceback\n  <img src="http://evil.example/x" onerror="alert(2)">\n\x1b[31mKeyError'
METHODS = {"good": (0.1, 1.0, 2.0), "shifted": (2.0, 0.5, 1.0), HOSTILE: (1.0, 1.0, 3.0), "slow": (0, 1, 9.0)}
VOID = {"meta", "img", "br"}


def write_run(root, n_models, methods, fingerprint="none", n_forget=N_FORGET):
    """Make a run folder from drawn confidences; `methods` maps names to shift, spread and seconds.

    There are three entries more: "broken" and "stopped" have failed, "unreadable" has no runs.
    """
    folder = RunFolder(root)
    random = np.random.default_rng(0)
    center, deviation = random.normal(0.5, 2, n_forget), random.uniform(0.5, 1.2, n_forget)
    labels = random.integers(0, N_CLASSES, n_forget)

    def save(name, count, shift, spread, seconds):
        results = []
        for _ in range(count):
            confidence = center + deviation * (shift + spread * random.normal(size=n_forget))
            accuracy = {split: random.uniform(0.6, 0.65) for split in ACCURACIES}
            wall_seconds = seconds * random.uniform(0.95, 1.05)
            result = job_result(dict.fromkeys(LOGITS, confidence), labels, N_CLASSES, wall_seconds, accuracy)
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
    folder.save_failure("broken-0", Failure("exception", f"KeyError: '{HOSTILE}'", DETAILS))
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
    return page.write_page(run, boards.collect(run, rules), **options)[0]


def parse(path):
    return Page(path.read_text(encoding="utf-8"))


class Page(html.parser.HTMLParser):
    """A page in parts, each known by the id of its section or, outside of these, of the heading above it.

    Tags that do not match are an error.

    Attributes:
        tags: all start tags with their attributes, in their order.
        parts: part -> the same of this part.
        text: part -> its text.
        tables: part -> its tables, lists of lines of cells.
        terms: part -> name in a ``<dl>`` -> what stands there, a value and sometimes its explanation.
    """

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.heading = [], [], None
        self.parts, self.tables = collections.defaultdict(list), collections.defaultdict(list)
        self.text, self.terms = collections.defaultdict(str), collections.defaultdict(dict)
        self.feed(text)
        self.close()
        assert self.open == []

    @property
    def part(self):
        return next((one["id"] for tag, one in self.open if tag == "section"), self.heading)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "h2":
            self.heading = attributes["id"]
        if tag not in VOID:
            self.open.append((tag, attributes))
        self.tags.append((tag, attributes))
        self.parts[self.part].append((tag, attributes))
        if tag == "table":
            self.tables[self.part].append([])
        elif tag == "tr":
            self.tables[self.part][-1].append([])
        elif tag in ("td", "th"):
            self.tables[self.part][-1][-1].append("")
        elif tag == "dt":
            self.name = ""
        elif tag == "dd":
            self.terms[self.part].setdefault(self.name, []).append("")

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.parts[self.part].append(self.tags[-1])

    def handle_endtag(self, tag):
        name, _ = self.open[-1]
        assert name == tag, f"</{tag}> closes <{name}> at {self.getpos()}"
        self.open.pop()

    def handle_data(self, data):
        self.text[self.part] += data
        within = [tag for tag, _ in self.open]
        if {"td", "th"} & set(within):
            self.tables[self.part][-1][-1][-1] += data
        elif "dt" in within:
            self.name += data
        elif "dd" in within:
            self.terms[self.part][self.name][-1] += data

    def values(self, attribute, part=None):
        """Return the values of an attribute throughout the page, or in one part."""
        tags = self.tags if part is None else self.parts[part]
        return [attributes[attribute] for _, attributes in tags if attribute in attributes]

    @property
    def all_text(self):
        return "".join(self.text.values())
