"""The curvature is the Hessian's diagonal, and on a quadratic loss a step is Newton's."""

import pytest
import torch

from tests.helpers.entries import OneLayer, given_net, load, loss_of, small_faces, small_loader, states


def test_curvature_by_hand():
    """On the loss sum a w^2 / 2, where the estimate is exact: |a|; a convolution's is averaged over its kernel."""
    a = [torch.tensor([3.0, -2.0]), torch.tensor([1.0, 2.0, 5.0, 8.0]).reshape(1, 1, 2, 2)]
    weights = [torch.full_like(scale, 0.5, requires_grad=True) for scale in a]
    loss = sum((scale * weight.square()).sum() / 2 for scale, weight in zip(a, weights, strict=True))
    gradients = torch.autograd.grad(loss, weights, create_graph=True)
    found = load("rapid_retrain", CURVATURE="hessian").curvature_of(gradients, weights, 7)
    assert found[0].tolist() == pytest.approx([3, 2])
    assert found[1].flatten().tolist() == pytest.approx([4] * 4)
    squared = load("rapid_retrain", CURVATURE="fisher").curvature_of(gradients, weights, 2)
    assert squared[0].tolist() == pytest.approx([2 * 1.5**2, 2 * 1.0**2])


def test_first_step_is_newtons():
    """From w, with slope a w and curvature a, to 0, whatever a is: means are corrected for their start."""
    entry = load("rapid_retrain", LR=1.0, DAMPING=0.0)
    a, weight = torch.tensor([3.0, 1e-6]), torch.tensor([2.0, -4.0])
    mean, square = torch.zeros(2), torch.zeros(2)
    entry.update([mean], [a * weight], entry.BETAS[0])
    entry.update([square], [a.square()], entry.BETAS[1])
    entry.step([weight], [mean], [square], 1, 1)
    assert weight.tolist() == pytest.approx([0, 0], abs=1e-3)


def test_momentum_and_curvature_are_running_means():
    """Slopes 1 and 3 with beta 1/2: (1/4 + 3/2) / (3/4); curvatures 3 and 4: the root of their mean square."""
    entry = load("rapid_retrain", LR=1.0, DAMPING=0.5, BETAS=(0.5, 0.5))
    weight, mean, square = torch.zeros(1), torch.zeros(1), torch.zeros(1)
    for slope, curvature in ((1.0, 3.0), (3.0, 4.0)):
        entry.update([mean], [torch.tensor([slope])], 0.5)
        entry.update([square], [torch.tensor([curvature**2])], 0.5)
    entry.step([weight], [mean], [square], 2, 2)
    root = ((9 / 4 + 16 / 2) / (3 / 4)) ** 0.5
    assert weight.item() == pytest.approx(-(7 / 4) / (3 / 4) / (root + 0.5))


def test_curvature_is_estimated_from_one_batch_in_every(monkeypatch):
    entry, net = load("rapid_retrain", EVERY=3, EPOCHS=1), OneLayer()
    sizes, curvature_of = [], entry.curvature_of
    monkeypatch.setattr(entry, "curvature_of", lambda *given: sizes.append(given[2]) or curvature_of(*given))
    before = net.fc.weight.detach().clone()
    entry.train(net, small_loader(13, batch_size=2))
    assert sizes == [2, 2]
    assert not torch.equal(net.fc.weight, before)


@pytest.mark.parametrize("n", [1, 2])
def test_only_the_back_starts_anew_and_the_retain_set_trains_it(monkeypatch, n):
    entry, net, trained = load("rapid_retrain", K=n), given_net(3), []
    before, retain = states(net), small_loader(12)
    monkeypatch.setattr(entry, "train", lambda net, loader: trained.append((loader, states(net))))
    entry.unlearning(net, retain, small_loader(3), None)
    ((found, start),) = trained
    assert found is retain
    back = (*[f"layer{4 - i}" for i in range(n)], "fc")
    for name, tensor in start.items():
        if tensor.dim() > 1 or not name.startswith(back):
            assert torch.equal(tensor, before[name]) != name.startswith(back), name


def test_training_descends_by_the_curvature():
    """A first step on one batch of n, of squared gradients: LR g / (n g^2 + DAMPING)."""
    net, faces = OneLayer().eval(), small_faces(6)
    loss = loss_of(net, faces)
    (slope,) = torch.autograd.grad(loss, net.fc.weight)
    expected = net.fc.weight.detach() - 0.01 * slope / (6 * slope.square() + 0.5)
    load("rapid_retrain", CURVATURE="fisher", LR=0.01, DAMPING=0.5).train(net, small_loader(6, batch_size=6))
    assert net.training  # until `unlearning` ends
    torch.testing.assert_close(net.fc.weight.detach(), expected)
