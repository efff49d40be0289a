"""A few tensors are drawn anew, the original teaches, and pixel noise stays out of the data."""

import copy
from types import SimpleNamespace

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
    small_faces,
    small_loader,
    states,
)


def test_forgetting_draws_weights_and_zeroes_biases_but_for_shortcuts_and_the_last_layer():
    entry, net = load("forget_free_cycles", LAYERS=2000), given_net(3)  # so many that every tensor is drawn
    before = states(net)
    with torch.no_grad():
        net.bn1.bias.fill_(3.0)
    entry.forget(net)
    for name, parameter in net.named_parameters():
        if "downsample" in name or name.startswith("fc."):
            assert torch.equal(parameter, before[name]), name
        elif name.endswith("bias"):
            assert (parameter == 0).all(), name
    assert net.layer4[1].conv2.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert net.layer4[1].bn2.weight.abs().max() < 0.06  # scales of batch normalisation are in the pool


def test_at_most_six_tensors_are_drawn():
    net = given_net(3)
    before = states(net)
    load("forget_free_cycles").forget(net)
    weights = [name for name in before if not torch.equal(net.state_dict()[name], before[name])]
    assert 1 <= len(weights) <= 6


def test_student_moves_and_neither_teacher_nor_pictures_do():
    entry, net = load("forget_free_cycles"), given_net(3)
    teacher = copy.deepcopy(net)
    before = states(net)
    faces = Faces(classes(20, 3))
    images = faces.images.clone()
    optimizer = torch.optim.SGD(net.parameters(), lr=entry.LR)
    retain = DataLoader(faces, batch_size=10)
    entry.remember(net, teacher, retain, optimizer, 1, first=False)
    assert equal(teacher.state_dict(), before)
    assert not equal(net.state_dict(), before)
    assert torch.equal(faces.images, images)


def test_cycles_and_rates(monkeypatch):
    """Two cycles through ten batches: the first half of the first at half the rate."""
    entry, events = load("forget_free_cycles", CYCLES=(0.6, 0.2), LR=1e-3), []
    monkeypatch.setattr(entry, "forget", lambda net: events.append("forget"))
    monkeypatch.setattr(entry, "descend", lambda optimizer, loss: events.append(optimizer.param_groups[0]["lr"]))
    entry.unlearning(given_net(3), loader(classes(20, 3), batch_size=2), None, None)
    assert events == ["forget", *3 * [5e-4], *3 * [1e-3], "forget", *2 * [1e-3]]


def test_the_original_teaches_on_the_retain_set_in_all_cycles(monkeypatch):
    """The original answers in eval mode, to the last batch as it did before the first tensor was drawn anew."""
    entry, net, seen = load("forget_free_cycles", CYCLES=(1, 1), PIXEL_NOISE=0.0), given_net(3), []
    original, faces = copy.deepcopy(net), Faces(classes(8, 3))

    def distance(student, teacher):
        seen.append((student, teacher))
        return functional.mse_loss(student, teacher)

    monkeypatch.setattr(entry, "functional", SimpleNamespace(mse_loss=distance))
    entry.unlearning(net, DataLoader(faces, batch_size=4), loader([1]), loader([1]))
    for start, (student, teacher) in zip((0, 4, 0, 4), seen, strict=True):
        with torch.no_grad():
            torch.testing.assert_close(teacher, original(faces.images[start : start + 4]), rtol=1e-3, atol=1e-4)
        assert student.requires_grad


def test_teacher_and_student_see_the_same_noise_which_is_new_in_each_step():
    entry, net, seen = load("forget_free_cycles", PIXEL_NOISE=0.5), OneLayer(), []
    net.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    faces = Faces([0, 1, 2] * 40, size=2)
    optimizer = torch.optim.SGD(net.parameters(), lr=entry.LR)
    entry.remember(net, copy.deepcopy(net), DataLoader(faces, batch_size=120), optimizer, 2, first=False)
    of_teacher, of_student, *second = seen
    assert torch.equal(of_teacher, of_student)
    assert torch.equal(*second)
    assert (of_teacher - faces.images).mean().item() == pytest.approx(0, abs=0.1)
    assert (of_teacher - faces.images).std().item() == pytest.approx(0.5, rel=0.1)
    assert (of_teacher - second[0]).std().item() == pytest.approx(0.5 * 2**0.5, rel=0.1)


def test_the_student_comes_back_to_the_teacher():
    entry, teacher, net, faces = load("forget_free_cycles"), OneLayer(), OneLayer(), small_faces(4)
    before = functional.mse_loss(net(faces.images), teacher(faces.images)).item()
    optimizer = torch.optim.SGD(net.parameters(), lr=entry.LR)
    entry.remember(net, teacher, small_loader(4), optimizer, 20, first=False)
    assert functional.mse_loss(net(faces.images), teacher(faces.images)).item() < before
