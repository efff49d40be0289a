"""One step up the forget loss, and no retain picture without a tail."""

import copy

import torch
from torch.nn import functional

from tests.helpers.entries import Faces, OneLayer, classes, given_net, load, small_faces, small_loader


def test_one_ascent_is_theta_plus_rate_times_gradient():
    net = OneLayer()
    start, faces = copy.deepcopy(net), small_faces(4)
    gradient = torch.autograd.grad(
        functional.cross_entropy(start(faces.images), torch.tensor(faces.labels)), start.fc.weight
    )[0]
    load("neggrad_plain", ASCENTS=1, ASCENT_LR=0.5).ascend(net, small_loader(4))
    torch.testing.assert_close(net.fc.weight, start.fc.weight + 0.5 * gradient)


def test_no_ascent_above_the_bound():
    net = OneLayer()
    before = net.fc.weight.clone()
    load("neggrad_plain", BOUND=0.1).ascend(net, small_loader(4))
    assert torch.equal(net.fc.weight, before)


def test_forget_loss_rises_and_retain_pictures_are_not_read_without_a_tail():
    faces, net = Faces(classes(6, 3)), given_net(3)
    labels = torch.tensor(faces.labels)
    before = functional.cross_entropy(net(faces.images), labels).item()
    forget = torch.utils.data.DataLoader(faces, batch_size=6)
    load("neggrad_plain", ASCENTS=1).unlearning(net, None, forget, None)
    assert functional.cross_entropy(net(faces.images), labels).item() > before


def test_all_passes_up_before_the_tail_on_the_retain_set(monkeypatch):
    entry, steps = load("neggrad_plain", ASCENTS=3), []
    monkeypatch.setattr(entry, "descend", lambda optimizer, loss: steps.append("up"))
    monkeypatch.setattr(entry, "finetune", lambda net, loader, criterion: steps.append(loader))
    entry.unlearning(OneLayer(), "retain", small_loader(8), "validation")
    assert steps == ["up"] * 6 + ["retain"]
