"""The bad teacher learns and answers apart from the original, which teaches what resembles the forget set."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from tests.helpers.entries import Faces, OneLayer, equal, given_net, load, loader, small_faces, states


@pytest.mark.parametrize("class_weights", [False, True])
def test_each_teacher_has_its_own_pictures(monkeypatch, class_weights):
    """The bad teacher is one layer on what the front makes of a picture; retain picture 7 was chosen 9 times."""
    entry = load("bad_teacher_similarity", RETAIN_SCALE=2, CLASS_WEIGHTS=class_weights)
    net, bad_teacher = given_net(3), nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    original, retain, forget = copy.deepcopy(net), Faces([0, 0, 0, 1] * 3), Faces([2, 1, 2])
    chosen = torch.tensor([0, 3, 0, 0, 1, 0, 0, 9, 0, 2, 0, 0])
    features, learned, taught = [], [], []
    monkeypatch.setattr(entry, "times_chosen", lambda *given: (features.extend(given), chosen)[1])
    monkeypatch.setattr(entry, "train_teacher", lambda *given: (learned.extend(given[1:]), bad_teacher)[1])
    monkeypatch.setattr(entry, "teach", lambda net, *given: taught.extend([states(net), *given]))
    entry.unlearning(net, *(DataLoader(faces, batch_size=5) for faces in (retain, forget)), loader([0, 1]))

    front = nn.Sequential(*[*original.children()][:7])
    pooled = nn.Sequential(*[*original.children()][:-1], nn.Flatten())
    after, forget_images, bad, retain_images, good, weights = taught
    rows = torch.cdist(retain_images.flatten(1), retain.images.flatten(1)).argmin(dim=1)
    counts = chosen[rows].clamp(min=1).float()
    maps, labels, criterion = learned
    with torch.no_grad():
        for found, wanted in [
            (features[0], pooled(forget.images)),
            (features[1], pooled(retain.images)),
            (maps, front(retain.images)),
            (forget_images, forget.images),
            (bad, bad_teacher(front(forget.images))),
            (retain_images, retain.images[rows]),
            (good, original(retain_images)),
            (weights, counts / counts.mean()),
        ]:
            torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
    assert labels.tolist() == retain.labels
    assert len({*rows.tolist()}) == 6 and {1, 4, 7, 9} <= {*rows.tolist()}
    assert equal(after, states(original))
    if class_weights:
        assert criterion.weight.tolist() == pytest.approx([12 / 27, 12 / 9, 12 / 3])
    else:
        assert criterion.weight is None


def test_loss_of_each_batch_is_of_its_own_pictures(monkeypatch):
    """The forget set in one batch, then retain batches of four and four, which meet in their mean."""
    entry = load("bad_teacher_similarity", EPOCHS=1, REBUILD=2)
    net, steps = OneLayer(), []
    forget, retain = small_faces(5).images, small_faces(8).images
    bad, good, weights = torch.randn(5, 3), torch.randn(8, 3), torch.rand(8)
    monkeypatch.setattr(entry, "descend", lambda optimizer, loss: steps.append(loss.item()))
    entry.teach(net, forget, bad, retain, good, weights)

    def divergence(teacher, images):
        p, q = teacher.log_softmax(dim=1), net(images).log_softmax(dim=1).detach()
        return (p.exp() * (p - q)).sum(dim=1)

    destroyed, *rebuilt = steps
    assert destroyed == pytest.approx(divergence(bad, forget).mean().item(), rel=1e-4)
    assert sum(rebuilt) / 2 == pytest.approx((weights * divergence(good, retain)).mean().item(), rel=1e-4)


@pytest.mark.parametrize("kind", ["forget", "retain"])
def test_the_student_comes_to_its_teachers(kind):
    """The other set's teacher is the student itself, who has nothing to learn there."""
    entry, net, teacher = load("bad_teacher_similarity", EPOCHS=20, LR=0.01), OneLayer(), OneLayer()
    forget, retain = small_faces(4).images, small_faces(8).images
    images = {"forget": forget, "retain": retain}[kind]
    bad, good = (
        (teacher if name == kind else net)(given).detach()
        for name, given in (("forget", forget), ("retain", retain))
    )

    def loss():
        return entry.divergence(teacher(images), net(images)).mean().item()

    before = loss()
    entry.teach(net, forget, bad, retain, good, torch.ones(8))
    assert loss() < before
