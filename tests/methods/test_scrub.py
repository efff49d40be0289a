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


def test_steps_by_hand():
    """Answers that are biases alone: the step away is 2 (q - p) upwards, with p and q softened by 2."""
    teacher, given, batch = OneLayer(), torch.tensor([0.0, 1.0, 0.0]), small_loader(4)  # labels 0, 1, 2, 0
    torch.nn.init.zeros_(teacher.fc.weight)
    teacher.fc.bias.data = torch.tensor([2.0, 0.0, -1.0])
    softened = 2 * ((given / 2).softmax(dim=0) - (teacher.fc.bias.detach() / 2).softmax(dim=0))
    labelled = given.softmax(dim=0) - torch.tensor([0.5, 0.25, 0.25])
    entry = load("scrub", GAMMA=3.0, ALPHA=0.5, TEMPERATURE=2.0, ROUND=1)
    for going, step in ((entry.go_away, softened), (entry.stay, -3 * labelled - 0.5 * softened)):
        student = copy.deepcopy(teacher)
        student.fc.bias.data = given.clone()
        going(student, teacher, batch, torch.optim.SGD(student.parameters(), lr=0.1))
        torch.testing.assert_close(student.fc.bias.detach(), given + 0.1 * step)


def test_turns_with_the_untouched_teacher(monkeypatch):
    entry, net, turns = load("scrub", ROUNDS=3, AWAY_ROUNDS=2), OneLayer(), []
    before = states(net)

    def turn(net, teacher, loader, optimizer):
        torch.nn.init.zeros_(net.fc.weight)
        turns.append((loader, equal(teacher.state_dict(), before)))

    monkeypatch.setattr(entry, "go_away", lambda *given: turns.append("away") or turn(*given))
    monkeypatch.setattr(entry, "stay", lambda *given: turns.append("stay") or turn(*given))
    entry.unlearning(net, "retain", "forget", "validation")
    away, stay = ["away", ("forget", True)], ["stay", ("retain", True)]
    assert turns == [*away, *stay, *away, *stay, *stay]


def test_rewinding_takes_the_turn_with_the_smallest_gap(monkeypatch):
    entry, net = load("scrub", ROUNDS=3, REWIND=True), OneLayer()
    gaps, biases, compared = iter([0.3, 0.1, 0.2]), iter([1.0, 2.0, 3.0]), []
    monkeypatch.setattr(entry, "go_away", lambda *rest: None)
    monkeypatch.setattr(entry, "stay", lambda net, *rest: torch.nn.init.constant_(net.fc.bias, next(biases)))
    monkeypatch.setattr(entry, "error_gap", lambda net, *loaders: compared.append(loaders) or next(gaps))
    entry.scrub(net, None, "retain", "forget", "validation")
    assert compared == [("forget", "validation")] * 3
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


def test_error_gap_is_a_distance_at_the_forget_sets_mix(monkeypatch):
    """(1 * (0.5 - 0) + 3 * (0 - 0.25)) / 4, without class 2."""
    entry = load("scrub")
    errors = {
        "forget": (torch.tensor([0.5, 0.0, 1.0]), torch.tensor([1.0, 3.0, 4.0])),
        "validation": (torch.tensor([0.0, 0.25, 0.0]), torch.tensor([9.0, 1.0, 0.0])),
    }
    monkeypatch.setattr(entry, "errors_by_class", lambda net, loader: errors[loader])
    assert entry.error_gap(None, "forget", "validation") == 0.0625
