"""First and last layer are new, the teacher is the original, and the forget set's pictures are not used."""

import copy
import math

import pytest
import torch
from torch.nn import functional
from torch.utils.data import DataLoader

from tests.helpers.entries import (
    Faces,
    OneLayer,
    classes,
    equal,
    given_net,
    load,
    loader,
    rates_of_steps,
    small_faces,
    small_loader,
    states,
)


def test_divergence_at_a_temperature_has_no_factor_of_its_square():
    entry = load("reset_distil", TEMPERATURE=5.0)
    teacher, student = torch.randn(4, 3), torch.randn(4, 3)
    expected = functional.kl_div(
        (student / 5).log_softmax(dim=1), (teacher / 5).softmax(dim=1), reduction="batchmean"
    )
    assert entry.divergence(teacher, student).item() == pytest.approx(expected.item(), rel=1e-5)
    assert entry.divergence(teacher, teacher).item() == pytest.approx(0, abs=1e-6)


def test_teacher_counts_twice_in_the_gradient():
    entry = load("reset_distil")
    teacher, student = torch.randn(4, 3), torch.randn(4, 3, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 0])
    (found,) = torch.autograd.grad(entry.joint_loss(teacher, student, labels), student)
    softened = ((student / 5).softmax(dim=1) - (teacher / 5).softmax(dim=1)) / 5 / 4
    hard = (student.softmax(dim=1) - functional.one_hot(labels, 3)) / 4
    torch.testing.assert_close(found, (hard + 2 * softened).detach())


def test_student_moves_and_teacher_does_not():
    entry, net = load("reset_distil"), given_net(3)
    teacher, before = copy.deepcopy(net), states(net)
    entry.warm_up(net, teacher, loader(classes(9, 3)), torch.ones(3, dtype=torch.bool))
    assert equal(teacher.state_dict(), before)
    net.conv1.reset_parameters()
    after_reset = states(net)
    entry.train(net, teacher, loader(classes(9, 3)))
    assert equal(teacher.state_dict(), before)
    assert not equal(net.state_dict(), after_reset)


def test_only_first_and_last_layer_are_reset(monkeypatch):
    entry, net = load("reset_distil"), given_net(3)
    before, seen = states(net), {}
    monkeypatch.setattr(entry, "warm_up", lambda net, *rest: seen.update(states(net)))
    entry.unlearning(net, loader(classes(9, 3)), loader([1]), None)
    changed = {name for name in seen if not torch.equal(seen[name], before[name])}
    assert changed == {"conv1.weight", "fc.weight", "fc.bias"}


@pytest.mark.parametrize(("warm_up_on", "n"), [("all", [5, 4]), ("forget", [3])])
def test_warm_up_can_take_the_forget_sets_classes_alone(monkeypatch, warm_up_on, n):
    """Nine validation pictures in batches of five and four; three of them are of class 1, two in the first."""
    entry, seen = load("reset_distil", WARM_UP_ON=warm_up_on, WARM_UP_EPOCHS=1), []
    size = {"all": 5, "forget": 9}[warm_up_on]
    divergence = entry.divergence
    monkeypatch.setattr(entry, "train", lambda *rest: None)
    monkeypatch.setattr(entry, "divergence", lambda p, q: (seen.append(len(p)), divergence(p, q))[1])
    entry.unlearning(given_net(3), None, loader([1]), loader(classes(9, 3), batch_size=size))
    assert seen == n


def test_the_original_teaches_first_on_the_validation_set_and_then_on_the_retain_set(monkeypatch):
    """The original answers in eval mode, to the last batch as it did before the reset."""
    entry, net, seen = load("reset_distil", WARM_UP_EPOCHS=2, EPOCHS=2), given_net(3), []
    original, losses = copy.deepcopy(net), (entry.divergence, entry.joint_loss)

    def note(loss):
        return lambda *given: (seen.append((loss, *given)), losses[loss](*given))[1]

    monkeypatch.setattr(entry, "divergence", note(0))
    monkeypatch.setattr(entry, "joint_loss", note(1))
    retain, validation = Faces([2, 2, 1, 0, 1, 2, 0, 0]), Faces([1, 1, 0, 2])
    entry.unlearning(net, DataLoader(retain, batch_size=4), loader([1]), DataLoader(validation, batch_size=4))
    assert [loss for loss, *_ in seen] == [0, 0, *4 * [1, 0]]  # the joint loss has a divergence inside
    batches = [(validation, 0)] * 2 + [(retain, start) for start in (0, 0, 4, 4, 0, 0, 4, 4)]
    for (faces, start), (_, teacher, student, *labels) in zip(batches, seen, strict=True):
        with torch.no_grad():
            torch.testing.assert_close(teacher, original(faces.images[start : start + 4]), rtol=1e-3, atol=1e-4)
        assert student.requires_grad
        for given in labels:
            assert given.tolist() == faces.labels[start : start + 4]


def test_warm_up_and_training_go_down():
    entry = load("reset_distil", WARM_UP_EPOCHS=20, EPOCHS=20, LR=0.1)
    teacher, net, faces = OneLayer(), OneLayer(), small_faces(4)
    labels, every = torch.tensor(faces.labels), torch.ones(3, dtype=torch.bool)

    def losses():
        logits, answers = teacher(faces.images).detach(), net(faces.images).detach()
        return entry.divergence(logits, answers).item(), entry.joint_loss(logits, answers, labels).item()

    divergence, _ = losses()
    entry.warm_up(net, teacher, small_loader(4), every)
    after, joint = losses()
    assert after < divergence
    entry.train(net, teacher, small_loader(4))
    assert losses()[1] < joint


def test_rate_of_training_falls_to_zero_by_cosine(monkeypatch):
    entry = load("reset_distil", EPOCHS=2)
    rates = rates_of_steps(entry, monkeypatch)
    entry.train(OneLayer(), OneLayer(), small_loader(8))
    assert rates == pytest.approx([entry.LR * (1 + math.cos(math.pi * k / 4)) / 2 for k in range(4)])
