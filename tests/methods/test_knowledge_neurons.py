"""Integrated gradients share an answer out among neurons; those named most often lose their outgoing weights."""

import copy

import pytest
import torch
from torch.utils.data import DataLoader

from tests.helpers.entries import (
    Faces,
    OneLayer,
    classes,
    given_net,
    load,
    loader,
    small_faces,
    small_loader,
    states,
)


@pytest.fixture(scope="module")
def given():
    """Return a net for three classes that no test changes."""
    return given_net(3)


def test_attributions_by_hand():
    """Of (a + 2 b)^2 at (1, 2): slopes 2 (5 k / 4) (1, 2) at k / 4 of the way, on average 6.25 (1, 2)."""
    neurons = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1)
    weights = torch.tensor([1.0, 2.0])

    def answer(part):
        return (part.sum(dim=(2, 3)) @ weights).square()

    found = load("knowledge_neurons", STEPS=4).integrated_gradients(answer, neurons)
    assert found.tolist()[0] == pytest.approx([6.25, 25.0])


def test_attributions_of_a_block_add_up_to_what_its_neurons_do_for_the_answer(given):
    faces = loader(classes(4, 3)).dataset
    labels = torch.tensor(faces.labels)
    entry = load("knowledge_neurons", STAGES=1, STEPS=20)
    found = entry.attributions(given, faces.images, labels).split([128, 128], dim=1)
    for index, each in enumerate(found):
        silent = copy.deepcopy(given)
        silent.layer4[index].conv2.weight.data.zero_()
        with torch.no_grad():
            does = [n(faces.images).softmax(dim=1).gather(1, labels[:, None])[:, 0] for n in (given, silent)]
        assert (does[0] - does[1]).abs().max() > 0.05
        torch.testing.assert_close(each.sum(dim=1), does[0] - does[1], rtol=0.1, atol=0.01)


def test_neurons_are_named_by_pictures_where_they_add_nearly_as_much_as_any(given):
    """At a fifth of the largest: the first picture names neurons 0 and 1, the second 1 and 3."""
    found = torch.zeros(2, 256)
    found[0, :3], found[1, :4] = torch.tensor([1.0, 0.25, 0.1]), torch.tensor([0.1, 0.9, -5.0, 1.0])
    entry = load("knowledge_neurons", STAGES=1, attributions=lambda *_: found)
    share = entry.named_share(given, small_faces(2), range(2))
    assert share[:4].tolist() == [0.5, 1.0, 0.0, 0.5]
    assert share[4:].sum() == 0


def test_cutting_off_is_silencing_and_spares_what_the_retain_set_names_more(given):
    before, net, silent = states(given), copy.deepcopy(given), copy.deepcopy(given)
    excess = torch.full((256,), -0.1)
    excess[[5, 130, 131]] = torch.tensor([0.5, 0.2, 0.1])  # channel 5 of the first block, 2 and 3 of the second
    entry = load("knowledge_neurons", STAGES=1, SHARE=2 / 256)
    entry.cut_off(net, excess)
    changed = {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"layer4.0.conv2.weight", "layer4.1.conv2.weight"}

    def silencing(channel):
        def hook(_, inputs):
            mask = torch.ones(1, inputs[0].shape[1], 1, 1)
            mask[:, channel] = 0
            return inputs[0] * mask

        return hook

    for block, channel in zip(silent.layer4, (5, 2), strict=True):
        block.conv2.register_forward_pre_hook(silencing(channel))
    images = loader(classes(4, 3)).dataset.images
    with torch.no_grad():
        torch.testing.assert_close(net(images), silent(images))
    entry.SHARE = 1.0
    entry.cut_off(net, excess)
    assert (net.layer4[1].conv2.weight == 0).all(dim=(0, 2, 3)).nonzero().flatten().tolist() == [2, 3]


def test_retain_pictures_have_the_classes_of_the_forget_pictures():
    labels = torch.tensor([0, 0, 1, 2, 2])
    rows = load("knowledge_neurons").same_classes(torch.tensor([2, 0, 3, 2]), labels)
    assert labels[rows].tolist() == [2, 0, 2]  # no retain picture has class 3


def test_retain_pictures_of_the_forget_classes_count_against_a_neuron(monkeypatch):
    entry, steps = load("knowledge_neurons"), []
    retain, forget = small_loader(9), DataLoader(Faces([2, 1], size=2))

    def named_share(net, dataset, rows):
        assert not net.training
        assert [dataset.labels[row] for row in rows] == [2, 1]
        return torch.tensor({forget.dataset: [0.5, 0.25], retain.dataset: [0.125, 1.0]}[dataset])

    monkeypatch.setattr(entry, "named_share", named_share)
    monkeypatch.setattr(entry, "cut_off", lambda net, excess: steps.append(excess.tolist()))
    monkeypatch.setattr(entry, "finetune", lambda net, tail, criterion: steps.append(tail))
    entry.unlearning(OneLayer(), retain, forget, None)
    assert steps == [[0.375, -0.75], retain]
