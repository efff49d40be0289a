"""What the original is taught are the confidences of a fresh net, calibrated on the validation set."""

import copy
import math

import pytest
import torch
from torch.nn import functional
from torch.utils.data import DataLoader

from tests.helpers.entries import (
    Faces,
    OneLayer,
    classes,
    equal,
    given_net,
    load,
    loader,
    small_faces,
    small_loader,
    states,
)


def test_confidence_is_the_log_odds_of_the_true_class():
    probabilities = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    found = load("best").confidence(probabilities.log(), torch.tensor([0, 1]))
    assert found.tolist() == pytest.approx([0.0, math.log(1 / 9)], abs=1e-6)


def test_the_original_on_the_validation_set_is_regressed_on_the_fresh_net_by_hand():
    """theirs = -1 - 2 ours, exactly: nothing is left to chance."""
    ours, theirs = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([-1.0, -3.0, -5.0])
    found = load("best").drawn(torch.tensor([1.0, 4.0]), ours, theirs)
    assert found.tolist() == pytest.approx([-3.0, -9.0])


def test_what_the_regression_leaves_open_is_drawn():
    """Slope 0 and residuals of deviation 2, half of which is drawn: targets spread by 1 around the mean, 5."""
    ours, theirs = torch.tensor([0.0, 0.0, 1.0, 1.0] * 25), torch.tensor([3.0, 7.0] * 50)
    found = load("best", NOISE=0.5).drawn(torch.linspace(-9, 9, 4000), ours, theirs)
    assert found.mean().item() == pytest.approx(5, abs=0.2)
    assert found.std().item() == pytest.approx(1, abs=0.1)


def test_the_fresh_net_keeps_the_front_and_learns_the_rest_anew():
    entry, net = load("best", K=3, FRESH_EPOCHS=2), given_net(3)
    before = states(net)
    entry.train_anew(net, loader(classes(9, 3)))
    same = {name for name, tensor in states(net).items() if torch.equal(tensor, before[name])}
    assert {name.split(".")[0] for name in same} == {"conv1", "bn1", "layer1"}
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_the_original_does_not_move_while_targets_are_found_and_they_differ_each_time():
    entry, net = load("best", FEWEST=2), given_net(3)
    before, sets = states(net), [loader(classes(n, 3)) for n in (9, 5)]
    forget = [entry.unpack(batch, "cpu") for batch in loader(classes(4, 3))]
    one, two = entry.targets(net, forget, *sets), entry.targets(net, forget, *sets)
    assert equal(states(net), before)
    assert one.shape == (4,)
    assert not torch.equal(one, two)


@pytest.mark.parametrize("n", [0, 3])
def test_a_validation_set_of_too_few_pictures_calibrates_nothing(monkeypatch, n):
    entry, net = load("best", FEWEST=4), given_net(3)
    forget, found = [(torch.rand(2, 3, 32, 32), torch.tensor([0, 1]))], []
    monkeypatch.setattr(entry, "train_anew", lambda fresh, _: found.append(entry.confidences(fresh, forget)))
    few = loader(classes(n, 3)) if n else Nothing()
    assert torch.equal(entry.targets(net, forget, None, few), found[0])


class Nothing(list):
    """A loader without a batch."""

    dataset = ()


def test_the_forget_pictures_come_close_to_what_is_wanted():
    forget = [(images, labels) for images, labels in DataLoader(Faces(classes(4, 3), "tuple", size=2))]
    wanted, off = torch.tensor([-3.0, 2.0, -1.0, 0.5]), {}
    for share in (0.0, 2.0):
        entry, net = load("best", EPOCHS=40, LR=0.1, FORGET_SHARE=share, FORGET_BATCH=4), OneLayer()
        entry.fit(net, forget, wanted, small_loader(4))
        off[share] = (entry.confidences(net, forget) - wanted).abs().mean()
    assert off[2.0] < off[0.0] / 2


def test_the_fresh_net_is_of_the_retain_set_and_the_validation_set_calibrates_it(monkeypatch):
    """The fresh net has another last layer; the targets are on the line of the validation pictures."""
    entry, net, trained, fitted = load("best", FEWEST=2, NOISE=0.0), OneLayer(), [], []
    original, other = copy.deepcopy(net), OneLayer()
    retain, forget, validation = small_loader(9), small_loader(5), small_loader(7)

    def train_anew(fresh, loader):
        trained.append(loader)
        fresh.load_state_dict(other.state_dict())

    monkeypatch.setattr(entry, "train_anew", train_anew)
    monkeypatch.setattr(entry, "fit", lambda net, *given: fitted.extend([states(net), *given]))
    entry.unlearning(net, retain, forget, validation)
    before, batches, wanted, loader = fitted
    assert trained == [retain]
    assert loader is retain
    assert equal(before, original.state_dict())
    images, labels = map(torch.cat, zip(*batches, strict=True))
    assert torch.equal(images, forget.dataset.images)
    assert labels.tolist() == forget.dataset.labels

    def sure(net, faces):
        p = net(faces.images).softmax(dim=1).detach()[range(len(faces)), faces.labels]
        return p.log() - (1 - p).log()

    ours, theirs = (sure(net, validation.dataset) for net in (other, original))
    slope = torch.cov(torch.stack([ours, theirs]))[0, 1] / ours.var()
    expected = theirs.mean() + slope * (sure(other, forget.dataset) - ours.mean())
    torch.testing.assert_close(wanted, expected, rtol=1e-3, atol=1e-4)


def test_confidences_are_of_the_net_in_eval_mode():
    net, faces = given_net(3), Faces(classes(8, 3))
    batch = faces.images, torch.tensor(faces.labels)
    expected = load("best").confidences(net, [batch])
    torch.testing.assert_close(load("best").confidences(net.train(), [batch]), expected)


def test_loss_of_a_fitting_step_by_hand(monkeypatch):
    """All five forget pictures in a step, each with its own target: their order does not matter."""
    entry, net, steps = load("best", FORGET_BATCH=5, EPOCHS=1, FORGET_SHARE=0.25), OneLayer(), []
    retain, forget, wanted = small_faces(4), small_faces(5), torch.randn(5)
    monkeypatch.setattr(entry, "descend", lambda optimizer, loss: steps.append(loss.item()))
    entry.fit(net, [(forget.images, torch.tensor(forget.labels))], wanted, small_loader(4))
    with torch.no_grad():
        found = entry.confidence(net(forget.images), torch.tensor(forget.labels))
        loss = functional.cross_entropy(net(retain.images), torch.tensor(retain.labels))
    assert steps == pytest.approx([(loss + 0.25 * functional.smooth_l1_loss(found, wanted)).item()], rel=1e-4)


def test_the_fresh_net_learns(monkeypatch):
    entry, losses = load("best", FRESH_EPOCHS=6), []
    take_step = entry.descend
    monkeypatch.setattr(entry, "descend", lambda *given: (losses.append(given[1].item()), take_step(*given)))
    entry.train_anew(given_net(3), DataLoader(Faces(classes(8, 3)), batch_size=8))
    assert 0 < losses[-1] < losses[0] / 2
