"""The last stages end alike whatever they were; test_cf_k.py shows that the front is frozen."""

import torch
from torch.utils.data import DataLoader

from tests.helpers.entries import Faces, classes, given_net, load, loss_of


def test_the_last_stages_do_not_depend_on_what_they_were():
    ends = []
    for scale in (1.0, 2.0):
        net = given_net(3)
        with torch.no_grad():
            for parameter in [*net.layer4.parameters(), *net.fc.parameters()]:
                parameter *= scale
        torch.manual_seed(0)
        load("eu_k").unlearning(net, DataLoader(Faces(classes(12, 3)), batch_size=4), None, None)
        ends.append(net.state_dict())
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


def test_new_stages_are_in_train_mode_and_frozen_ones_are_not(monkeypatch):
    entry, net, modes = load("eu_k"), given_net(3), []
    take_step = entry.descend

    def step(optimizer, loss):
        front = net.layer3.training or net.bn1.training or net.conv1.weight.requires_grad
        modes.append((front, net.layer4[0].bn1.training))
        take_step(optimizer, loss)

    monkeypatch.setattr(entry, "descend", step)
    entry.unlearning(net, loader := DataLoader(Faces(classes(12, 3)), batch_size=4), None, None)
    assert modes == [(False, True)] * 3 * len(loader)


def test_first_step_goes_down_the_retain_loss(monkeypatch):
    """Adam's first step is its rate against the sign of the slope; fc alone is trained."""
    entry, net = load("eu_k", K=0, EPOCHS=1, LR=0.01, WEIGHT_DECAY=0.0), given_net(3)
    monkeypatch.setattr(entry, "draw_anew", lambda modules: None)
    faces, start = Faces(classes(6, 3)), net.fc.weight.detach().clone()
    loss = loss_of(net, faces)
    (gradient,) = torch.autograd.grad(loss, net.fc.weight)
    entry.unlearning(net, DataLoader(faces, batch_size=6), None, None)
    torch.testing.assert_close(net.fc.weight.detach(), start - 0.01 * gradient.sign(), rtol=0, atol=1e-4)
