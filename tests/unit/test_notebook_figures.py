"""Figures of a finished run: what they are drawn from, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from data_prep import dataset
from local_scorer import metric
from local_scorer.report import notebook
from local_scorer.runs.record import Counts, Entry
from local_scorer.runs.store import LOGITS, RunFolder
from tests.helpers.runs import job_result, run_data, run_record, saved_run

N = 6


@pytest.fixture
def run(tiny_data, tmp_path):
    """A run of made-up logits: "near" is drawn as the retrained models are, "far" is 4 more certain."""
    data = dataset.load(tiny_data)
    folder = RunFolder(tmp_path / "run")
    random = np.random.default_rng(0)
    labels = {split: data.labels(split) for split in LOGITS}

    def save(key, boost):
        logits = {split: random.normal(size=(len(labels[split]), 8)).astype(np.float32) for split in LOGITS}
        logits["forget"][np.arange(8), labels["forget"]] += boost
        result = job_result(labels=labels, n_classes=8, seconds=0.1 if "_" in key else 1.0)
        folder.save_result(key, replace(result, logits=logits, cpu_seconds=1.0))
        return key

    kinds = {"retrained": 1.0, "ceiling": 1.0, "near_": 1.0, "far_": 5.0}
    keys = {kind: [save(f"{kind}{index}", boost) for index in range(N)] for kind, boost in kinds.items()}
    entries = [Entry(name, name, tuple(keys[f"{name}_"])) for name in ("near", "far")]
    counts = Counts(forget=8, retain=64, validation=12, test=24)
    saved_run(
        folder.root,
        run_record(
            keys["retrained"], keys["ceiling"], *entries, original=save("original", 9.0),
            data=run_data(fingerprint=data.fingerprint, counts=counts),
        ),
    )  # fmt: skip
    return notebook.open_run(folder.root)


def test_it_shows_the_arrays_of_the_entry(run):
    assert run.run.models("far").logits.shape == (N, 8, 8)
    assert run.run.models("no unlearning").logits.shape == (N, 8, 8)
    far, near = run.epsilons("far"), run.epsilons("near")
    assert far.shape == (8,) and far.mean() > near.mean()
    assert (
        metric.forgetting_quality(far, N) == next(r for r in run.board.rows if r.entry == "far").forgetting_quality
    )


def test_every_figure_can_be_drawn(run, tiny_data):
    data = dataset.load(tiny_data)
    for figure in (
        run.standings(),
        run.confidences("far"),
        run.epsilon_histogram("far"),
        run.epsilon_histogram("retrained"),
        run.hardest("far", data, count=3),
        notebook.faces(data.images[:5], list("abcde"), columns=3),
    ):
        figure.canvas.draw()
        assert figure.axes


def test_the_standings_have_a_bar_a_row(run):
    (retain, *_) = run.standings().axes
    assert [label.get_text() for label in retain.get_yticklabels()] == [row.entry for row in run.board.rows]
    assert [bar.get_width() for bar in retain.patches] == [0.5] * 4


def test_a_long_name_is_cut_in_the_middle(run):
    name = "contrastive FLATTEN_LR=5e-4 RETAIN_BATCH=64 RETAIN_LR=3e-3"
    rows = [replace(row, entry=name) if row.entry == "far" else row for row in run.board.rows]
    (retain, *_) = replace(run, board=replace(run.board, rows=tuple(rows))).standings().axes
    (shown,) = (label.get_text() for label in retain.get_yticklabels() if "contrastive" in label.get_text())
    assert (len(shown), shown[-4:]) == (42, "3e-3")


def test_the_hardest_examples_come_first(run, tiny_data):
    figure = run.hardest("far", dataset.load(tiny_data), count=3)
    shown = [float(axes.get_title().rpartition(" ")[2]) for axes in figure.axes[:3]]
    assert shown == [round(epsilon, 1) for epsilon in sorted(run.epsilons("far"), reverse=True)[:3]]


def test_what_is_not_there_gets_a_sentence(run, tiny_data, tmp_path):
    with pytest.raises(ValueError, match=r"has no entry 'fars'; it has far, near, no unlearning, retrained\."):
        run.run.models("fars")
    other = dataset.load(tiny_data)
    other.manifest["class_names"][0] = "other"
    with pytest.raises(ValueError, match="is not the data set of"):
        run.hardest("far", other)
    with pytest.raises(ValueError, match="holds no run"):
        notebook.open_run(tmp_path)
