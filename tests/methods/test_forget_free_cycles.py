"""A few tensors are drawn anew, the original teaches, and pixel noise stays out of the data."""

import copy

import pytest
import torch

from tests.helpers.entries import Faces, classes, equal, given_net, load, loader, states


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
    retain = torch.utils.data.DataLoader(faces, batch_size=10)
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
