"""The student goes away from the teacher on the forget set, the teacher stays, and +R takes the best turn."""

import copy

import pytest
import torch
from torch.nn import functional

from tests.helpers.entries import OneLayer, classes, equal, given_net, load, loader, small_loader, states


def test_divergence_has_the_factor_of_the_temperature():
    teacher, student = torch.randn(4, 3), torch.randn(4, 3)
    expected = 4 * functional.kl_div(
        (student / 2).log_softmax(dim=1), (teacher / 2).softmax(dim=1), reduction="batchmean"
    )
    assert load("scrub").divergence(teacher, student).item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_student_moves_and_the_teacher_does_not():
    """An optimiser built on the teacher's weights, as in one published benchmark, unlearns nothing."""
    entry, net = load("scrub"), given_net(3)
    teacher, before = copy.deepcopy(net), states(net)
    entry.scrub(net, teacher, loader(classes(20, 3)), loader(classes(6, 3)), None)
    assert equal(teacher.state_dict(), before)
    assert not equal(dict(net.named_parameters()), before)


def test_away_on_the_forget_set_and_close_on_the_retain_set():
    entry = load("scrub", GAMMA=0.0, ROUND=1)
    teacher = OneLayer()
    for going, sign in ((entry.go_away, 1), (entry.stay, -1)):
        student = OneLayer()
        batch = small_loader(4)
        images, _ = next(iter(batch))["image"], None

        def distance(student=student, images=images):
            with torch.no_grad():
                return entry.divergence(teacher(images), student(images)).item()

        before = distance()
        going(student, teacher, batch, torch.optim.SGD(student.parameters(), lr=0.01))
        assert sign * (distance() - before) > 0


def test_turns(monkeypatch):
    entry, turns = load("scrub", ROUNDS=3, AWAY_ROUNDS=2), []
    monkeypatch.setattr(entry, "go_away", lambda *rest: turns.append("away"))
    monkeypatch.setattr(entry, "stay", lambda *rest: turns.append("stay"))
    entry.unlearning(given_net(3), None, None, None)
    assert turns == ["away", "stay", "away", "stay", "stay"]


def test_rewinding_takes_the_turn_with_the_smallest_gap(monkeypatch):
    entry, net = load("scrub", ROUNDS=3, REWIND=True), OneLayer()
    gaps, biases = iter([0.3, 0.1, 0.2]), iter([1.0, 2.0, 3.0])
    monkeypatch.setattr(entry, "go_away", lambda *rest: None)
    monkeypatch.setattr(entry, "stay", lambda net, *rest: torch.nn.init.constant_(net.fc.bias, next(biases)))
    monkeypatch.setattr(entry, "error_gap", lambda *rest: next(gaps))
    entry.scrub(net, None, None, None, None)
    assert net.fc.bias.tolist() == [2.0] * 3


def test_error_gap_by_hand():
    """All answers are class 0, then 1; errors are compared class by class, and class 2 is not in validation."""
    net = OneLayer()
    torch.nn.init.zeros_(net.fc.weight)
    net.fc.bias.data = torch.tensor([1.0, 0.0, 0.0])
    entry = load("scrub")

    def of(labels):
        return [{"image": torch.zeros(len(labels), 3, 2, 2), "age_group": torch.tensor(labels)}]

    errors, mix = entry.errors_by_class(net, of([0, 1, 1, 2]))
    assert (errors.tolist(), mix.tolist()) == ([0, 1, 1], [1, 2, 1])
    assert entry.error_gap(net, of([0, 1, 1, 2]), of([0, 1])) == 0.0
    net.fc.bias.data = torch.tensor([0.0, 1.0, 0.0])  # forget errors 1 0 1, validation 1 0
    assert entry.error_gap(net, of([0, 1, 1]), of([0, 1])) == 0.0
    assert entry.error_gap(net, of([0]), of([1])) == 0.0  # nothing to compare with
