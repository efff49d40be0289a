"""A few tensors at a time, noise from the second round on and only in tensors that are new, then the whole net."""

import pytest
import torch
from torch import nn

from tests.helpers.entries import (
    OneLayer,
    classes,
    given_net,
    load,
    loader,
    loss_of,
    small_faces,
    small_loader,
    states,
)


def test_batch_normalisation_is_told_by_type():
    net = given_net(3)
    norms, others = load("noise_injection").parts(net)
    assert len(norms) == 40
    assert len(norms) + len(others) == len([*net.parameters()])
    assert {parameter.dim() for parameter in norms} == {1}
    assert any(parameter is net.layer2[0].downsample[1].weight for parameter in norms)
    assert any(parameter is net.layer2[0].downsample[0].weight for parameter in others)


def test_noise_goes_into_six_of_nine_that_were_not_trained():
    chosen = [nn.Parameter(torch.zeros(10_000)) for _ in range(9)]
    load("noise_injection").add_noise(chosen, {id(chosen[2])})
    noised = [index for index, parameter in enumerate(chosen) if parameter.any()]
    assert noised == [0, 1, 3, 4, 5]
    assert chosen[0].std().item() == pytest.approx(0.04, rel=0.05)


def test_rounds(monkeypatch):
    """Five rounds of nine tensors beside batch normalisation, then four of all; noise from the second on."""
    entry, rounds = load("noise_injection"), []
    monkeypatch.setattr(entry, "train", lambda net, loader, some, lr: rounds.append((len([*some]), lr)))
    monkeypatch.setattr(entry, "add_noise", lambda chosen, trained: rounds.append(len(chosen)))
    net = given_net(3)
    n = len([*net.parameters()])
    entry.unlearning(net, loader(classes(9, 3)), None, None)
    few = (49, entry.LR)
    assert rounds == [few, 9, few, 9, few, 9, few, 9, few, *((n, lr) for lr in entry.LAST_RATES)]


def test_a_round_changes_no_other_weight():
    entry, net = load("noise_injection", ROUNDS=1), given_net(3)
    before = states(net)
    entry.inject(net, loader(classes(20, 3)))
    norms, others = entry.parts(net)
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    changed = {name for name, parameter in net.named_parameters() if not torch.equal(parameter, before[name])}
    assert len(changed & {names[id(parameter)] for parameter in others}) == 9
    assert {names[id(parameter)] for parameter in norms} & changed


def test_all_rounds_are_of_the_retain_set_and_start_from_a_new_last_layer(monkeypatch):
    """What trains in a round is what noise was drawn for, before; what earlier rounds trained is told to it."""
    entry, net, retain = load("noise_injection"), given_net(3), loader(classes(9, 3))
    before, rounds, noises = states(net), [], []

    def train(net, loader, parameters, lr):
        changed = {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])}
        rounds.append((loader, {id(parameter) for parameter in parameters}, changed))

    def add_noise(chosen, trained):
        noises.append((len(rounds), {id(parameter) for parameter in chosen}, {*trained}))

    monkeypatch.setattr(entry, "train", train)
    monkeypatch.setattr(entry, "add_noise", add_noise)
    entry.unlearning(net, retain, loader([1]), loader([1]))
    assert all(given is retain for given, _, _ in rounds)
    assert [changed for _, _, changed in rounds] == 9 * [{"fc.weight", "fc.bias"}]
    norms = {id(parameter) for parameter in entry.parts(net)[0]}
    few = [trained - norms for _, trained, _ in rounds[:5]]
    assert noises == [(number, few[number], set().union(*few[:number])) for number in range(1, 5)]
    assert len(set().union(*few)) > 9


def test_training_goes_down():
    entry, net, faces = load("noise_injection", ROUND=20), OneLayer(), small_faces(4)
    before = loss_of(net, faces).item()
    entry.train(net, small_loader(4), net.parameters(), 0.01)
    assert loss_of(net, faces).item() < before
