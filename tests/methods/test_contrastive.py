"""Flattening and evening out are of the forget set, fine-tuning is of the retain set, in this order."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.helpers.entries import OneLayer, load, small_faces, small_loader


@pytest.mark.parametrize("class_weights", [False, True])
def test_losses_of_all_steps_by_hand(monkeypatch, class_weights):
    """No step is taken, and each set is one batch; retain labels are 0 1 2 0 1."""
    entry, net, steps, modes = load("contrastive", EPOCHS=2, CLASS_WEIGHTS=class_weights), OneLayer(), [], []

    def note(optimizer, loss):
        steps.append(loss.item())
        optimizer.step()  # without gradients: nothing moves

    monkeypatch.setattr(entry, "descend", note)
    net.register_forward_pre_hook(lambda module, given: modes.append((len(given[0]), torch.is_grad_enabled())))
    entry.unlearning(net, small_loader(5), small_loader(3), small_loader(4))
    with torch.no_grad():
        retain, forget = (net(small_faces(n).images) for n in (5, 3))
    flat = -forget.log_softmax(dim=1).mean() - torch.tensor(3.0).log()
    even = -(forget @ retain.T / 1.15).log_softmax(dim=1).mean()
    weight = torch.tensor([5 / 6, 5 / 6, 5 / 3]) if class_weights else None
    right = functional.cross_entropy(retain, torch.tensor([0, 1, 2, 0, 1]), weight=weight)
    assert steps == pytest.approx([flat.item(), *2 * [even.item(), right.item()]], rel=1e-4, abs=1e-6)
    in_training = [(3, True), *2 * [(5, False), (3, True), (5, True)]]
    assert modes[: len(in_training)] == in_training


@pytest.mark.parametrize("part", ["flatten", "even out", "fine-tune"])
def test_each_part_goes_down(part):
    entry, net = load("contrastive", FLATTEN_LR=0.1), OneLayer()
    retain, forget = small_faces(5), small_faces(3)
    nn.init.normal_(net.fc.weight)

    def loss():
        of_retain, of_forget = net(retain.images).detach(), net(forget.images).detach()
        return {
            "flatten": lambda: entry.uniform_loss(of_forget),
            "even out": lambda: entry.contrastive_loss(of_forget, of_retain),
            "fine-tune": lambda: functional.cross_entropy(of_retain, torch.tensor(retain.labels)),
        }[part]().item()

    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)
    before = loss()
    if part == "flatten":
        entry.flatten_outputs(net, small_loader(3))
    elif part == "even out":
        entry.forget_round(net, small_loader(3), small_loader(5, batch_size=5), optimizer, schedule)
    else:
        entry.retain_round(net, small_loader(5), optimizer, nn.CrossEntropyLoss())
    assert loss() < before
