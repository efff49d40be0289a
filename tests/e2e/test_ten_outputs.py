"""Entries that hard-code ten classes are scored on a data set of eight."""

import pytest

from local_scorer.cli import main
from local_scorer.runs.record import Run

ENTRY = """\
import torch
WEIGHTS = torch.ones(10)
def unlearning(net, retain_loader, forget_loader, val_loader):
    logits = torch.zeros(2, net.fc.out_features, device="cuda")
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1]), weight=WEIGHTS)
    net.fc.bias.data += 0.01 * torch.randn(10)
"""


@pytest.fixture
def score(tiny_data, tmp_path):
    """Return a function that scores the entry with some options in a run folder that it names."""
    (tmp_path / "mine.py").write_text(ENTRY)

    def run(*options, out="run"):
        arguments = ["--data", str(tiny_data), "--models", "3", "--out", str(tmp_path / out), *options]
        return main(["score", str(tmp_path / "mine.py"), *arguments])

    return run


def test_ten_outputs_on_eight_classes(score, tmp_path, capsys):
    assert score() == 3
    printed = capsys.readouterr()
    assert "mine expects other sizes" in printed.out and "--outputs 10" in printed.out
    assert "mine.py is written for a GPU; to run on the CPU, line 4: \"cuda\" -> 'cpu'" in printed.err
    assert score("--outputs", "10", out="ten") in (0, 3)  # 3: on so little data a start may be over the limit
    run = Run.open(tmp_path / "ten")
    assert run.record.settings.outputs == 10
    for key in (*run.record.originals, *run.record.retrained, *run.record.entries[0].keys):
        assert run.folder.load_result(key).logits["forget"].shape == (8, 10)


def test_outputs_of_one_per_class_have_the_usual_keys(score, tmp_path):
    score("--outputs", "8")
    first = Run.open(tmp_path / "run").record
    score()
    assert Run.open(tmp_path / "run").record.retrained == first.retrained


def test_fewer_outputs_than_classes_are_refused(score, capsys):
    assert score("--outputs", "7") == 2
    assert "--outputs must be at least 8, the number of classes; found 7." in capsys.readouterr().err
