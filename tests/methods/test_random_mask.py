"""Half of the weights outside batch normalisation become zero."""

import copy
import math

import pytest
import torch
from torch import nn

from tests.helpers.entries import (
    OneLayer,
    classes,
    equal,
    given_net,
    load,
    loader,
    loss_of,
    small_faces,
    small_loader,
    states,
)


@pytest.mark.parametrize("masked", [0.0, 0.5, 1.0])
def test_masking(masked):
    net = given_net(10)
    nn.init.ones_(net.fc.bias)
    before = states(net)
    load("random_mask", MASKED=masked).mask(net)
    norms = {f"{name}." for name, module in net.named_modules() if isinstance(module, nn.BatchNorm2d)}
    for name, parameter in net.named_parameters():
        if name.rpartition(".")[0] + "." in norms:
            assert torch.equal(parameter, before[name]), name
            continue
        kept = parameter != 0
        assert torch.equal(parameter[kept], before[name][kept]), name
        if parameter.numel() > 1000:
            assert 1 - kept.float().mean().item() == pytest.approx(masked, abs=0.05), name


def test_rate_falls_by_cosine_over_all_steps(monkeypatch):
    entry, rates = load("random_mask", EPOCHS=1.5, LR=1.0, LAST_RATE=0.2), []
    monkeypatch.setattr(entry, "descend", lambda optimizer, loss: rates.append(optimizer.param_groups[0]["lr"]))
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self, closure=None: None)
    with pytest.warns(UserWarning, match="lr_scheduler.step"):  # no step is taken here
        entry.finetune(given_net(3), loader(classes(16, 3), batch_size=4))
    assert rates == pytest.approx([0.2 + 0.8 * (1 + math.cos(math.pi * k / 6)) / 2 for k in range(6)])


def test_masked_first_and_then_trained_on_the_retain_set(monkeypatch):
    entry, net, retain, seen = load("random_mask", MASKED=1.0), given_net(3), loader(classes(9, 3)), []
    expected = copy.deepcopy(net)
    entry.mask(expected)
    monkeypatch.setattr(entry, "finetune", lambda net, loader: seen.append((states(net), loader)))
    entry.unlearning(net, retain, loader([1]), loader([1]))
    ((found, given),) = seen
    assert given is retain
    assert equal(found, expected.state_dict())
    assert equal(states(net), found)


def test_training_goes_down():
    entry, net, faces = load("random_mask", EPOCHS=20), OneLayer(), small_faces(4)
    before = loss_of(net, faces).item()
    entry.finetune(net, small_loader(4))
    assert loss_of(net, faces).item() < before
