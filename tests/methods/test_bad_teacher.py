"""The original teaches a part of the retain set, an untrained net teaches the forget set."""

import copy

import pytest
import torch
from torch.utils.data import DataLoader

from tests.helpers.entries import Faces, OneLayer, classes, equal, given_net, load, loader, small_faces, states


@pytest.fixture
def reached(monkeypatch):
    """Return a function that runs `unlearning`, and what reached `teach` in it, by name."""

    def run(entry, *sets):
        seen = {}

        def teach(net, images, competent, incompetent, forget):
            seen.update(
                net=states(net), images=images, competent=competent, incompetent=incompetent, forget=forget
            )

        monkeypatch.setattr(entry, "teach", teach)
        entry.unlearning(*sets)
        return seen

    return run


def test_each_teacher_has_its_own_pictures(monkeypatch, reached):
    """The original answers in eval mode; the untrained net normalises by the statistics of the batch."""
    entry, net, fresh = load("bad_teacher", RETAIN_SCALE=2), given_net(3), given_net(3)
    torch.nn.init.normal_(fresh.fc.weight)
    original, retain, forget = copy.deepcopy(net), Faces(classes(20, 3)), Faces(classes(4, 3))
    monkeypatch.setattr(entry, "fresh_copy", lambda net: fresh)
    seen = reached(entry, net, *(DataLoader(faces) for faces in (retain, forget)), loader([0, 1]))
    assert seen["forget"].tolist() == [1.0] * 4 + [0.0] * 8
    assert torch.equal(seen["images"][:4], forget.images)
    rows = torch.cdist(seen["images"][4:].flatten(1), retain.images.flatten(1)).argmin(dim=1)
    assert torch.equal(seen["images"][4:], retain.images[rows])
    assert len(rows.unique()) == 8
    assert rows.tolist() != [*range(8)]
    with torch.no_grad():
        torch.testing.assert_close(seen["competent"], original(seen["images"]), rtol=1e-3, atol=1e-4)
        untrained = fresh.train()(seen["images"])
    torch.testing.assert_close(seen["incompetent"], untrained, rtol=1e-3, atol=1e-4)
    assert equal(seen["net"], states(original))


def test_the_untrained_teacher_is_no_copy_of_the_original(reached):
    net = OneLayer()
    seen = reached(load("bad_teacher"), net, *(DataLoader(small_faces(n)) for n in (9, 3)), None)
    assert (seen["incompetent"] - seen["competent"]).abs().min() > 0


def test_loss_of_a_pass_is_of_each_picture_with_its_own_teacher(monkeypatch):
    """One batch: its order does not matter."""
    entry, net, steps = load("bad_teacher", EPOCHS=2), OneLayer(), []
    images, forget = small_faces(6).images, torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    competent, incompetent = torch.randn(6, 3), torch.randn(6, 3)
    monkeypatch.setattr(entry, "descend", lambda optimizer, loss: steps.append(loss.item()))
    entry.teach(net, images, competent, incompetent, forget)
    p = torch.cat([incompetent[:2], competent[2:]]).log_softmax(dim=1)
    q = net(images).log_softmax(dim=1).detach()
    assert steps == pytest.approx([((p - q) * p.exp()).sum(dim=1).mean().item()] * 2, rel=1e-4)


def test_the_student_comes_to_its_teachers():
    entry, net, images = load("bad_teacher", EPOCHS=50, LR=0.1), OneLayer(), small_faces(6).images
    forget, teachers = torch.tensor([1.0] * 3 + [0.0] * 3), [OneLayer()(images).detach() for _ in range(2)]

    def loss():
        return entry.unlearning_loss(net(images).detach(), *teachers, forget).item()

    before = loss()
    entry.teach(net, images, *teachers, forget)
    assert loss() < before
