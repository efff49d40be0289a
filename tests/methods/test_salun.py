"""The mask is of the largest forget gradients, weights outside it do not move, and labels are drawn anew."""

import pytest
import torch
from torch.nn import functional

from tests.helpers.entries import OneLayer, classes, given_net, load, loader, small_loader, states


def test_mask_by_hand():
    """The larger half of |sum of the two batch gradients|, over all tensors together."""
    net, entry = OneLayer(), load("salun", SALIENT=0.5)
    batches = small_loader(8)
    losses = [functional.cross_entropy(net(b["image"]), b["age_group"]) for b in batches]
    gradients = torch.autograd.grad(sum(losses), [net.fc.weight, net.fc.bias])
    sizes = torch.cat([gradient.abs().flatten() for gradient in gradients])
    limit = sizes.sort(descending=True).values[len(sizes) // 2 - 1]
    masks = entry.salient(net, batches)
    assert [torch.equal(mask, g.abs() >= limit) for mask, g in zip(masks, gradients, strict=True)] == [True, True]
    assert sum(mask.sum().item() for mask in masks) == len(sizes) // 2


def test_weights_outside_the_mask_do_not_move_at_all():
    """Weight decay and momentum would move them if only their gradients were masked."""
    entry, net = load("salun", SALIENT=0.3), given_net(3)
    before = states(net)
    masks = entry.salient(net, loader(classes(6, 3)))
    entry.relabel_and_train(net, loader(classes(20, 3)), loader(classes(6, 3)), masks)
    for (name, parameter), mask in zip(net.named_parameters(), masks, strict=True):
        assert torch.equal(parameter[~mask], before[name][~mask]), name
    assert not torch.equal(net.fc.weight, before["fc.weight"])


@pytest.mark.parametrize("epochs", [1.5, 2])
def test_forget_set_first_with_labels_drawn_anew_in_each_pass(monkeypatch, epochs):
    entry, steps = load("salun", EPOCHS=epochs), []
    drawn = iter([torch.tensor([2, 2]), torch.tensor([1, 1])])
    monkeypatch.setattr(entry.torch, "randint_like", lambda labels, n: {3: next(drawn)}[n])
    monkeypatch.setattr(entry.functional, "cross_entropy", lambda logits, labels: labels.tolist())
    monkeypatch.setattr(entry, "masked_step", lambda net, optimizer, loss, *rest: steps.append(loss))
    retain, forget = loader([0, 0, 0, 0], batch_size=2), loader([0, 0])
    entry.relabel_and_train(given_net(3), retain, forget, None)
    last = [[0, 0]] * {1.5: 1, 2: 2}[epochs]
    assert steps == [[2, 2], [0, 0], [0, 0], [1, 1], *last]


def test_one_step_by_hand():
    """Down the slope of w^2, 2 w, at a rate of a tenth; the second weight is outside the mask."""
    net = torch.nn.Linear(2, 1, bias=False)
    net.weight.data, start = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 2.0]])
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    mask = torch.tensor([[True, False]])
    load("salun").masked_step(net, optimizer, net.weight.square().sum(), [mask], [start])
    assert net.weight.tolist()[0] == pytest.approx([0.8, 2.0])


def test_saliency_is_of_the_forget_set(monkeypatch):
    entry, calls = load("salun"), []
    monkeypatch.setattr(entry, "salient", lambda net, loader: f"masks of {loader}")
    monkeypatch.setattr(entry, "relabel_and_train", lambda net, *given: calls.append(given))
    entry.unlearning(OneLayer(), "retain", "forget", "validation")
    assert calls == [("retain", "forget", "masks of forget")]
