"""Only the last stages move, near their start, and the front is frozen with its statistics."""

import pytest
import torch
from torch.nn import functional

from tests.helpers.entries import Faces, classes, given_net, load, loader, states


@pytest.mark.parametrize("name", ["cf_k", "eu_k"])
@pytest.mark.parametrize("k", [0, 1, 2, 4])
def test_the_front_is_frozen_with_its_statistics(name, k):
    net = given_net(3)
    before = states(net)
    load(name, K=k).unlearning(net, loader(classes(20, 3)), None, None)
    parts = {f"layer{number}" for number in range(5 - k, 5)} | {"fc"}
    moved = {key.split(".")[0] for key, tensor in net.state_dict().items() if not torch.equal(tensor, before[key])}
    assert moved == parts
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_gradients_come_back_after_a_failure():
    entry, net = load("cf_k"), given_net(3)
    with pytest.raises(ZeroDivisionError), entry.frozen_but(net, [net.fc]):
        assert [parameter.requires_grad for parameter in net.parameters()] == [False] * 60 + [True] * 2
        raise ZeroDivisionError
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_running_statistics_stay():
    net = given_net(3)
    load("cf_k", K=4).unlearning(net, loader(classes(20, 3)), None, None)
    assert torch.equal(net.layer4[1].bn2.running_mean, given_net(3).layer4[1].bn2.running_mean)


def test_pull_to_the_start_by_hand():
    """Half of 0.1 times (3^2 + 4^2), with the gradient 0.1 times the way from the start."""
    parameter = torch.tensor([4.0, 6.0], requires_grad=True)
    logits, labels = torch.randn(2, 3), torch.tensor([0, 1])
    loss = load("cf_k").pulled_loss(logits, labels, [parameter], [torch.tensor([1.0, 2.0])])
    assert loss.item() == pytest.approx(functional.cross_entropy(logits, labels).item() + 1.25)
    loss.backward()
    assert parameter.grad.tolist() == pytest.approx([0.3, 0.4])


def test_two_steps_by_hand(monkeypatch):
    """From w down the slope g of the retain loss, and then down g + 0.2 (w' - w), with momentum."""
    entry, net = load("cf_k", K=0, EPOCHS=2, LR=0.5, PULL=0.2), given_net(3)
    faces, start = Faces(classes(6, 3)), net.fc.bias.detach().clone()
    slope = torch.tensor([1.0, -2.0, 3.0])
    monkeypatch.setattr(entry.functional, "cross_entropy", lambda logits, labels: (logits @ slope).mean())
    entry.unlearning(net, torch.utils.data.DataLoader(faces, batch_size=6), None, None)
    first = -0.5 * slope
    second = first - 0.5 * (0.9 * slope + slope + 0.2 * first)
    torch.testing.assert_close(net.fc.bias.detach(), start + second)
