"""The last stages end alike whatever they were; test_cf_k.py shows that the front is frozen."""

import torch
from torch.utils.data import DataLoader

from tests.helpers.entries import Faces, classes, given_net, load


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
        modes.append((net.layer3.training, net.bn1.training, net.layer4[0].bn1.training))
        take_step(optimizer, loss)

    monkeypatch.setattr(entry, "descend", step)
    entry.unlearning(net, loader := DataLoader(Faces(classes(12, 3)), batch_size=4), None, None)
    assert modes == [(False, False, True)] * 3 * len(loader)
