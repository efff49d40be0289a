"""The smallest gradient differences are drawn anew, and the other weights move slowly."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.helpers.entries import (
    Faces,
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


def test_differences_are_of_summed_batch_gradients_and_leave_the_net_alone():
    entry, net = load("targeted_reinit", BATCH=4), given_net(3)
    before = states(net)
    retain, forget = Faces(classes(12, 3)), Faces(classes(8, 3)[::-1])  # of the retain set as many as of the other

    def gradient(faces):
        losses = [
            functional.cross_entropy(net(faces.images[rows]), torch.tensor(faces.labels)[rows])
            for rows in torch.arange(8).split(4)
        ]
        return torch.autograd.grad(sum(losses), net.conv1.weight)[0]

    torch.manual_seed(0)
    order = torch.randperm(12)[:8]
    shuffled = Faces(classes(8, 3))
    shuffled.images, shuffled.labels = retain.images[order], [retain.labels[row] for row in order]
    expected = (gradient(shuffled) - gradient(forget)).abs()
    torch.manual_seed(0)
    found = entry.gradient_differences(net.train(), retain, forget)
    assert len(found) == 20
    torch.testing.assert_close(found[0], expected, rtol=1e-3, atol=1e-5)
    assert equal(net.state_dict(), before)


def test_share_is_of_each_layer_or_of_all():
    """Half of 1 2 3 4 and of 5 6 7 8, or 1 to 4 of all eight."""
    tensors = [torch.tensor([4.0, 1.0, 3.0, 2.0]), torch.tensor([[5.0, 6.0], [7.0, 8.0]])]
    by_layer = load("targeted_reinit", SHARE=0.5).smallest(tensors)
    assert [mask.tolist() for mask in by_layer] == [[False, True, False, True], [[True, True], [False, False]]]
    of_all = load("targeted_reinit", SHARE=0.5, SCOPE="global").smallest(tensors)
    assert [mask.all().item() for mask in of_all] == [True, False]
    assert not of_all[1].any()
    with pytest.raises(KeyError, match="misspelt"):
        load("targeted_reinit", SCOPE="misspelt").smallest(tensors)


def test_masked_weights_are_drawn_as_at_the_start_of_training():
    """He's normal by outputs: a deviation of sqrt(2 / (64 * 3 * 3))."""
    weight = nn.Parameter(torch.full((64, 32, 3, 3), 9.0))
    mask = torch.arange(32).lt(10)[None, :, None, None].expand(64, 32, 3, 3)
    load("targeted_reinit").draw_anew([weight], [mask])
    assert (weight[~mask] == 9.0).all()
    assert weight[mask].mean().item() == pytest.approx(0, abs=0.003)
    assert weight[mask].std().item() == pytest.approx((2 / 576) ** 0.5, rel=0.05)


def test_kept_weights_have_a_tenth_of_the_gradient_while_the_block_lasts():
    weight, mask = nn.Parameter(torch.ones(3)), torch.tensor([True, False, True])
    with load("targeted_reinit").slowed([weight], [mask]):
        (slow,) = torch.autograd.grad((2 * weight).sum(), weight)
        (2 * weight).sum().backward()
    assert weight.grad.tolist() == pytest.approx([2.0, 0.2, 2.0])
    weight.grad = None
    (2 * weight).sum().backward()
    assert weight.grad.tolist() == [2.0, 2.0, 2.0]
    assert slow.shape == weight.shape


def test_rates_follow_one_another(monkeypatch):
    entry, rates = load("targeted_reinit", EPOCHS=2.5, LR=3.0), []
    monkeypatch.setattr(entry, "descend", lambda optimizer, loss: rates.append(optimizer.param_groups[0]["lr"]))
    monkeypatch.setattr(torch.optim.SGD, "step", lambda self, closure=None: None)
    with pytest.warns(UserWarning, match="lr_scheduler.step"):  # no step is taken here
        entry.finetune(given_net(3), loader(classes(16, 3), batch_size=4))
    assert rates == pytest.approx([1, 1, 2, 2, 3, 3, 2, 2, 1, 1])


def test_the_masked_weights_are_drawn_before_training_and_the_others_are_slow_in_it(monkeypatch):
    """Differences that grow along each kernel: the first tenth of its weights has the smallest."""
    entry, net, sets, seen = load("targeted_reinit", SHARE=0.1, KEPT=0.25), given_net(3), [], {}
    before = states(net)

    def differences(net, *given):
        sets.extend(given)
        return [torch.arange(w.numel()).reshape(w.shape).float() for w in entry.convolutions(net)]

    def finetune(net, loader):
        weights = entry.convolutions(net)
        sum(w.sum() for w in weights).backward()
        seen.update(states(net))
        sets.extend([loader, *[w.grad.flatten() for w in weights]])

    monkeypatch.setattr(entry, "gradient_differences", differences)
    monkeypatch.setattr(entry, "finetune", finetune)
    retain, forget = loader(classes(9, 3)), loader(classes(4, 3))
    entry.unlearning(net, retain, forget, None)
    assert sets[0] is retain.dataset
    assert sets[1] is forget.dataset
    assert sets[2] is retain
    gradients = iter(sets[3:])
    for name, tensor in seen.items():
        n = tensor.numel() // 10 if tensor.dim() == 4 else 0
        changed = (tensor != before[name]).flatten()
        assert changed[:n].all() and not changed[n:].any(), name
        if n:
            gradient = next(gradients)
            assert (gradient[:n] == 1).all() and (gradient[n:] == 0.25).all(), name
    assert next(gradients, None) is None


def test_training_goes_down():
    entry, net, faces = load("targeted_reinit", EPOCHS=20), OneLayer(), small_faces(4)
    before = loss_of(net, faces).item()
    entry.finetune(net, small_loader(4))
    assert loss_of(net, faces).item() < before
