"""FOCI finds what the loss depends on, gradients of single pictures are right, and only chosen channels move."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.helpers.entries import Faces, OneLayer, classes, equal, load, small_faces, small_loader, states


def coefficient(ranks, before, after):
    """Return Azadkia and Chatterjee's T(Y; Z | X) from ranks of Y and neighbours in X and in (X, Z)."""
    known = torch.minimum(ranks, ranks[before])
    return ((torch.minimum(ranks, ranks[after]) - known).sum() / (ranks - known).sum()).item()


def test_conditional_dependence_by_hand():
    """Y = 1, 2, 3, 4 at X = 0, 3, 1, 4 and Z = 0, 0, 9, 9: neighbours in X are 2, 3, 0, 1, in both 1, 0, 3, 2."""
    ranks, x, z = torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.0, 3.0, 1.0, 4.0], [0.0, 0.0, 9.0, 9.0]])
    distances = (x[:, None] - x).square().fill_diagonal_(torch.inf)
    entry = load("l_codec")
    known = entry.gains(ranks, distances, torch.zeros(4, 1)).item()
    gained = entry.gains(ranks, distances, z[:, None]).item()
    assert (known, gained) == (1 + 2 + 1 + 2, 1 + 1 + 3 + 3)
    assert (gained - known) / (ranks.sum().item() - known) == pytest.approx(
        coefficient(ranks, [2, 3, 0, 1], [1, 0, 3, 2])
    )


def test_foci_chooses_the_units_that_the_loss_depends_on_together():
    """The loss is mostly the product of two units' signs, of which one alone says nothing; 38 are beside it."""
    random = torch.Generator().manual_seed(0)
    units = torch.randn(400, 40, generator=random) * torch.logspace(-2, 2, 40)  # scales are no matter
    losses = units[:, 7] / units[:, 7].std() + 3 * (units[:, 7] * units[:, 30]).sign()
    chosen = load("l_codec", SCREEN=40).foci(losses, units)
    assert set(chosen[:2]) == {7, 30}
    assert len(chosen) < 10


def test_foci_stops_where_nothing_adds():
    units = torch.rand(50, 1).expand(50, 5)
    assert load("l_codec").foci(units[:, 0], units) in ([0], [1], [2], [3], [4])


class TwoConvolutions(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False)
        self.second = nn.Conv2d(4, 2, 1, stride=2, bias=False)
        self.fc = nn.Linear(8, 3)

    def forward(self, images):
        return self.fc(self.second(torch.relu(self.first(images / 255))).flatten(1))


def test_gradients_are_those_of_single_pictures():
    """In a strided convolution, in one with a kernel of one, and in the last layer."""
    net, faces = TwoConvolutions(), Faces(classes(3, 3), size=8)
    chosen = {net.first: [3, 1], net.second: [0], net.fc: [2]}
    found = load("l_codec", BATCH=2).sample_gradients(net, chosen, faces, range(3))
    for image, label, row in zip(faces.images, faces.labels, found, strict=True):
        loss = functional.cross_entropy(net(image[None]), torch.tensor([label]))
        each = torch.autograd.grad(loss, [layer.weight for layer in chosen])
        expected = [g[channels].flatten() for g, channels in zip(each, chosen.values(), strict=True)]
        torch.testing.assert_close(row, torch.cat(expected))


def test_step_is_newtons_and_not_a_plain_ascent():
    """Against the dense inverse; the published code's curvature, of one gradient less itself, would be zero."""
    torch.manual_seed(0)
    gradients, vector = torch.randn(4, 9, dtype=torch.float64), torch.randn(9, dtype=torch.float64)
    dense = 0.1 * torch.eye(9, dtype=torch.float64) + gradients.T @ gradients / 4
    step = load("l_codec", DAMPING=0.1).newton_step(gradients, vector)
    torch.testing.assert_close(step, torch.linalg.solve(dense, vector))
    assert (step - vector / 0.1).norm() > 0.1


def test_only_chosen_channels_move_by_a_share_of_their_length_and_a_share_of_their_spread(monkeypatch):
    net, entry = OneLayer(), load("l_codec", NOISE=0.125, STEP=0.25)
    before = states(net)["fc.weight"]
    monkeypatch.setattr(entry.torch, "randn_like", torch.ones_like)
    entry.move({net.fc: [2]}, torch.arange(12.0))
    step = torch.arange(12.0) * 0.25 * before[2].norm() / torch.arange(12.0).norm()
    torch.testing.assert_close(net.fc.weight[2], before[2] + step + 0.125 * before[2].std())
    assert torch.equal(net.fc.weight[:2], before[:2])


def test_losses_and_activations_are_those_of_noisy_copies(monkeypatch):
    net, entry, faces = OneLayer(), load("l_codec", PIXEL_NOISE=20.0, BATCH=3), small_faces(4)
    monkeypatch.setattr(entry.torch, "randn_like", torch.ones_like)
    losses, units = entry.losses_and_activations(net, [net.fc], faces, range(4))
    expected = net(faces.images + 20)
    torch.testing.assert_close(units, expected)
    torch.testing.assert_close(
        losses, functional.cross_entropy(expected, torch.tensor(faces.labels), reduction="none")
    )


def test_units_are_counted_through_the_layers():
    first, second, third = (nn.Linear(2, n) for n in (3, 4, 2))
    found = load("l_codec").channels_of([first, second, third], [8, 0, 2, 7])
    assert found == {first: [0, 2], third: [1, 0]}


def test_forgetting_raises_the_loss_of_the_group():
    torch.manual_seed(0)
    net, entry = OneLayer(), load("l_codec", NOISE=0.0)
    forget, retain = small_faces(3), small_faces(12)
    before = states(net)

    def loss():
        return functional.cross_entropy(net(forget.images), torch.tensor(forget.labels)).item()

    start = loss()
    entry.forget_group(net, [0, 1, 2], forget, retain)
    assert not equal(net.state_dict(), before)
    assert loss() > start


def test_each_forget_picture_is_in_one_group(monkeypatch):
    entry, groups = load("l_codec", GROUP=4), []
    net, retain, forget = OneLayer(), small_loader(12), small_loader(6)

    def forget_group(net, rows, *sets):
        assert (*sets, net.training) == (forget.dataset, retain.dataset, False)
        groups.append(rows)

    monkeypatch.setattr(entry, "forget_group", forget_group)
    monkeypatch.setattr(entry, "finetune", lambda net, tail, criterion: groups.append(tail))
    entry.unlearning(net, retain, forget, None)
    assert groups.pop() is retain
    assert [len(rows) for rows in groups] == [4, 2]
    assert sorted([*groups[0], *groups[1]]) == [0, 1, 2, 3, 4, 5]


def test_channels_follow_the_forget_loss_and_the_step_is_held_by_the_retain_curvature(monkeypatch):
    entry, net, asked, moves = load("l_codec", COPIES=5), OneLayer(), [], []
    forget, retain, chosen = small_faces(4), small_faces(12), {net.fc: [2, 0]}
    monkeypatch.setattr(entry, "losses_and_activations", lambda net, layers, *given: asked.append(given) or given)
    monkeypatch.setattr(entry, "foci", lambda dataset, rows: [2, 0])
    monkeypatch.setattr(entry, "move", lambda *given: moves.append(given))
    entry.forget_group(net, [3, 1], forget, retain)
    assert asked == [(forget, [3, 1, 3, 1, 3])]
    ((moved, direction),) = moves
    assert moved == chosen
    up = entry.sample_gradients(net, chosen, forget, [3, 1]).mean(dim=0)
    held = entry.sample_gradients(net, chosen, retain, range(12))
    torch.testing.assert_close(direction, entry.newton_step(held, up), rtol=1e-4, atol=1e-5)
