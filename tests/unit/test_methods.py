"""Each method does what its formula says: hand-computed values, gradients and one-step equalities."""

import copy
import math

import pytest
import torch
from torch import nn
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
    rates_of_steps,
    small_faces,
    small_loader,
    states,
)

LN2 = math.log(2)


class Untouchable:
    """A loader that may not be used."""

    def __iter__(self):
        raise AssertionError("This loader must not be read.")


def logits(*probabilities):
    """Return logits whose softmax has these rows."""
    return torch.tensor(probabilities, dtype=torch.float64).log()


# finetune, neggrad


def test_finetune_is_adam_on_the_retain_set_alone():
    net = given_net(3)
    expected = copy.deepcopy(net).to(memory_format=torch.channels_last).train()
    data = Faces(classes(20, 3))
    retain = DataLoader(data, batch_size=20)
    optimizer = torch.optim.Adam(expected.parameters(), lr=1e-4, weight_decay=5e-3)
    functional.cross_entropy(expected(data.images), torch.tensor(data.labels)).backward()
    optimizer.step()
    load("finetune").unlearning(net, retain, Untouchable(), Untouchable())
    assert equal(net.state_dict(), expected.state_dict())


@pytest.mark.parametrize("name", ["neggrad", "gisa"])
def test_a_forget_loader_without_a_batch_is_refused(name):
    forget = DataLoader(Faces([0, 1]), batch_size=64, drop_last=True)
    with pytest.raises(ValueError, match=r"^The forget loader has no batch"):
        load(name).unlearning(given_net(3), loader(classes(20, 3)), forget, Untouchable())


@pytest.mark.parametrize("name", ["neggrad", "gisa"])
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_batch_normalisation_learns_of_the_forget_set_if_asked(name, mode):
    """The rate changes no weight, so the running statistics show which pictures passed in train mode."""
    found = []
    for factor in (1, 0.2):
        forget = Faces(classes(6, 3))
        forget.images *= factor
        net = given_net(3)
        torch.manual_seed(0)
        entry = load(name, LR=1e-30, WEIGHT_DECAY=0.0, FORGET_MODE=mode)
        entry.unlearning(net, loader(classes(20, 3)), DataLoader(forget, batch_size=6), Untouchable())
        found.append(net.bn1.running_mean)
    assert torch.equal(*found) == (mode == "eval")
    assert not torch.equal(found[0], given_net(3).bn1.running_mean)


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("neggrad", "PAIRING"), ("gisa", "PAIRING"), ("gisa", "ADAPT"), ("neggrad", "FORGET_MODE"),
        ("gisa", "FORGET_MODE"), ("bad_teacher", "DIRECTION"),
        ("ssd", "REFERENCE"), ("contrastive", "RECIPE"), ("random_label", "LABELS"),
    ],
)  # fmt: skip
def test_a_misspelt_setting_is_no_other_setting(name, setting):
    with pytest.raises(KeyError, match="misspelt"):
        load(name, **{setting: "misspelt"}).unlearning(
            given_net(3), loader(classes(20, 3)), loader(classes(6, 3)), Untouchable()
        )


@pytest.mark.parametrize("name", ["finetune", "gisa"])
@pytest.mark.parametrize("decay", [False, True])
def test_learning_rate_falls_to_zero_if_asked(name, decay, monkeypatch):
    """Two epochs of three batches: six cosine steps."""
    entry = load(name, EPOCHS=2, DECAY=decay)
    rates = rates_of_steps(entry, monkeypatch)
    entry.unlearning(given_net(3), loader(classes(12, 3), batch_size=4), loader(classes(4, 3)), Untouchable())
    cosine = [entry.LR * (1 + math.cos(math.pi * k / 6)) / 2 for k in range(6)]
    assert rates == pytest.approx(cosine if decay else 6 * [entry.LR], abs=0)


@pytest.mark.parametrize("use_class_weights", [False, True])
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_neggrad_with_lambda_zero_is_finetuning_bit_for_bit(use_class_weights, mode):
    """In train mode the running statistics differ, for they have seen the forget set."""
    nets = [given_net(3), given_net(3)]
    for net, entry in zip(nets, (load("finetune"), load("neggrad", LAMBDA=0.0, FORGET_MODE=mode)), strict=True):
        entry.CLASS_WEIGHTS = use_class_weights
        torch.manual_seed(7)
        entry.unlearning(net, loader(classes(130, 3)), loader(classes(10, 3)), Untouchable())
    assert equal(*(dict(net.named_parameters()) for net in nets))
    assert equal(nets[0].state_dict(), nets[1].state_dict()) == (mode == "eval")
    assert not equal(nets[0].state_dict(), given_net(3).state_dict())


def test_neggrad_joint_loss_descends_retain_and_ascends_forget_up_to_the_cap():
    entry = load("neggrad", LAMBDA=0.25)
    retain, forget = torch.tensor(2.0, requires_grad=True), torch.tensor(1.5, requires_grad=True)
    loss = entry.joint_loss(retain, forget, math.inf)
    assert loss.item() == 2.0 - 0.25 * 1.5
    assert [g.item() for g in torch.autograd.grad(loss, (retain, forget))] == [1.0, -0.25]
    capped = entry.joint_loss(retain, forget, 1.0)
    assert capped.item() == 2.0 - 0.25 * 1.0
    assert [g.item() for g in torch.autograd.grad(capped, (retain, forget))] == [1.0, 0.0]


@pytest.mark.parametrize("cap", [False, True])
def test_neggrad_cap_is_the_validation_loss_of_the_given_net(cap, monkeypatch):
    entry, faces, steps = load("neggrad", CAP=cap), small_faces(8), []
    sets = OneLayer(), small_loader(12), small_loader(3)
    expected = functional.cross_entropy(sets[0](faces.images), torch.tensor(faces.labels)).item()
    monkeypatch.setattr(entry, "ascend_and_descend", lambda *given: steps.append(given))
    entry.unlearning(*sets, small_loader(8) if cap else Untouchable())
    ((*given, _, found),) = steps
    assert given == [*sets]
    assert found == (pytest.approx(expected, rel=1e-6) if cap else math.inf)


def test_neggrad_is_adam_on_the_joint_loss_of_paired_batches():
    net, retain, forget = OneLayer(), small_loader(12), small_faces(3)
    expected = copy.deepcopy(net)
    optimizer = torch.optim.Adam(expected.parameters(), lr=1e-4, weight_decay=5e-3)
    for batch in retain:
        optimizer.zero_grad()
        ascended = functional.cross_entropy(expected(forget.images), torch.tensor(forget.labels))
        (functional.cross_entropy(expected(batch["image"]), batch["age_group"]) - 2 * ascended).backward()
        optimizer.step()
    load("neggrad", LAMBDA=2.0).unlearning(net, retain, small_loader(3), Untouchable())
    torch.testing.assert_close(states(net), states(expected), rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", ["neggrad", "gisa"])
def test_pairing(name):
    retain, forget = ["r0", "r1", "r2"], ["f0", "f1"]
    assert [*load(name, PAIRING="cycle").pairs(retain, forget)] == [("r0", "f0"), ("r1", "f1"), ("r2", "f0")]
    assert [*load(name, PAIRING="zip").pairs(retain, forget)] == [("r0", "f0"), ("r1", "f1")]


# bad_teacher, bad_teacher_similarity

HALF, QUARTER = [0.5, 0.5], [0.25, 0.75]
FORWARD = 0.5 * LN2 + 0.5 * math.log(2 / 3)  # KL((1/2, 1/2) || (1/4, 3/4))
REVERSE = 0.25 * math.log(1 / 2) + 0.75 * math.log(3 / 2)  # KL((1/4, 3/4) || (1/2, 1/2))


def test_divergence_is_of_the_teacher_from_the_student():
    teacher, student = logits(HALF, QUARTER), logits(QUARTER, HALF)
    for entry in (load("bad_teacher"), load("bad_teacher_similarity")):
        assert entry.divergence(teacher, student).tolist() == pytest.approx([FORWARD, REVERSE])
    other = load("bad_teacher", DIRECTION="student")
    assert other.divergence(teacher, student).tolist() == pytest.approx([REVERSE, FORWARD])


def test_unlearning_label_switches_the_teacher():
    """Equation 5: l_u = 0 sees the competent teacher alone, l_u = 1 the incompetent one alone."""
    entry = load("bad_teacher")
    student, competent, incompetent = logits(QUARTER), logits(HALF), logits([0.75, 0.25])
    for label, expected in ((0.0, FORWARD), (1.0, 0.5 * math.log(3))):
        loss = entry.unlearning_loss(student, competent, incompetent, torch.tensor([label]))
        assert loss.item() == pytest.approx(expected)
    both = [torch.cat([z, z]) for z in (student, competent, incompetent)]
    mean = entry.unlearning_loss(*both, torch.tensor([0.0, 1.0])).item()
    assert mean == pytest.approx((FORWARD + 0.5 * math.log(3)) / 2)


def test_nothing_of_the_original_is_in_the_incompetent_teacher():
    net = given_net(8)
    entry = load("bad_teacher")
    fresh = entry.fresh_copy(net)
    for name, tensor in fresh.named_parameters():
        if tensor.dim() > 1:
            assert (tensor == net.get_parameter(name)).float().mean() < 0.01, name
    assert all((norm.running_mean == 0).all() for norm in fresh.modules() if isinstance(norm, nn.BatchNorm2d))
    outputs = entry.logits_of(fresh.train(), Faces(classes(40, 8)).images).softmax(dim=1)
    entropy = -(outputs * outputs.log()).sum(dim=1).mean().item()
    assert entropy > 0.75 * math.log(8)  # near uniform, not saturated


def test_even_batches_have_no_batch_of_one():
    entry = load("bad_teacher", BATCH=4)
    for n in range(2, 30):
        parts = entry.even_batches(torch.arange(n))
        assert torch.cat(parts).tolist() == [*range(n)]
        assert 2 <= min(map(len, parts)) <= max(map(len, parts)) <= 4


def test_similar_retain_pictures_are_counted_by_angle():
    """Forget features at 0 and 20 degrees; the two nearest are {5, -10} and {5, 40}, whatever the lengths."""

    def at(*degrees):
        angles = torch.deg2rad(torch.tensor(degrees, dtype=torch.float32))
        return torch.stack([angles.cos(), angles.sin()], dim=1)

    lengths = torch.tensor([[0.1], [3.0], [7.0], [100.0]])
    entry = load("bad_teacher_similarity", NEIGHBOURS=2)
    assert entry.times_chosen(at(0, 20), lengths * at(-10, 5, 40, 90)).tolist() == [1, 2, 1, 0]
    entry.NEIGHBOURS = 9  # more than there are
    assert entry.times_chosen(at(0, 20), at(-10, 5)).tolist() == [2, 2]


def test_sample_prefers_what_was_chosen_often():
    chosen = torch.tensor([0, 6, 0, 2, 0, 0, 0, 0, 0, 0])
    entry = load("bad_teacher_similarity", ALPHA=0.5)
    torch.manual_seed(0)
    draws = [entry.draw_sample(chosen, 4).tolist() for _ in range(200)]
    assert all(len({*rows}) == 4 and {1, 3} <= {*rows} for rows in draws)
    assert {row for rows in draws for row in rows} == {*range(10)}
    first = [entry.draw_sample(chosen, 2)[0].item() for _ in range(2000)]
    assert first.count(1) / 2000 == pytest.approx(6 / 8, abs=0.05)
    entry.ALPHA = 0.0
    first = [entry.draw_sample(chosen, 1).item() for _ in range(2000)]
    assert first.count(1) / 2000 == pytest.approx(1 / 10, abs=0.04)
    assert sorted(entry.draw_sample(chosen, 99).tolist()) == [*range(10)]


def test_one_forget_batch_then_three_weighted_retain_batches(monkeypatch):
    entry = load("bad_teacher_similarity", BATCH=2, EPOCHS=1)
    steps = []
    monkeypatch.setattr(entry, "descend", lambda optimizer, loss: steps.append(loss.item()))
    net = OneLayer(n_classes=2)
    nn.init.zeros_(net.fc.weight)
    nn.init.zeros_(net.fc.bias)  # the student answers (1/2, 1/2)
    forget, retain = torch.zeros(4, 3, 2, 2), torch.zeros(12, 3, 2, 2)
    bad, good = logits([0.5, 0.5]).repeat(4, 1), logits([0.25, 0.75]).repeat(12, 1)
    entry.teach(net, forget, bad, retain, good, torch.full((12,), 2.0))
    assert steps == pytest.approx(2 * [0.0, 2 * REVERSE, 2 * REVERSE, 2 * REVERSE], abs=1e-6)


def test_one_forget_picture_is_rebuilt_too(monkeypatch):
    """Three retain pictures make three batches of one: 5 epochs of 1 + 3 steps, after the teacher's."""
    entry, steps = load("bad_teacher_similarity", TEACHER_EPOCHS=0), []
    monkeypatch.setattr(entry, "descend", lambda optimizer, loss: steps.append(loss))
    entry.unlearning(given_net(3), loader(classes(20, 3)), loader([1]), Untouchable())
    assert len(steps) == 20


@pytest.mark.parametrize("shared", [7, 0])
def test_bad_teacher_shares_the_front_and_draws_the_back_anew(shared):
    net = given_net(3)
    before = states(net)
    entry = load("bad_teacher_similarity", TEACHER_EPOCHS=0, SHARED=shared)
    front, back = entry.split(net)
    faces = Faces(classes(10, 3))
    maps, labels = entry.front_outputs(front, faces, torch.device("cpu"))
    with torch.no_grad():
        assert torch.equal(back.eval()(maps), net(faces.images))
    assert labels.tolist() == faces.labels
    assert {id(module) for module in front} == {id(module) for module in [*net.children()][:shared]}
    teacher = entry.train_teacher(back, maps, labels, nn.CrossEntropyLoss())
    for (name, new), old in zip(teacher.named_parameters(), back.parameters(), strict=True):
        assert new.dim() == 1 or not torch.equal(new, old), name
    entry.TEACHER_EPOCHS = 60
    learned = entry.train_teacher(back, maps, labels, nn.CrossEntropyLoss())
    assert functional.cross_entropy(learned(maps), labels) < 0.5
    assert equal(net.state_dict(), before)


# contrastive, random_label


def test_contrastive_gradient_is_softmax_minus_uniform():
    """dL / dz_f = sum over retain pictures j of (softmax_j - 1/n_r) z_j / tau, over the forget batch's size."""
    entry = load("contrastive", TEMPERATURE=1.15)
    forget = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    retain = torch.randn(5, 3, dtype=torch.float64)
    similarities = (forget @ retain.T / 1.15).detach()
    (found,) = torch.autograd.grad(entry.contrastive_loss(forget, retain), forget)
    torch.testing.assert_close(found, (similarities.softmax(dim=1) - 1 / 5) @ retain / 1.15 / 2)
    equal_pictures = retain[:1].repeat(5, 1)
    assert entry.contrastive_loss(forget, equal_pictures).item() == pytest.approx(math.log(5))  # its minimum


def test_flattening_pulls_to_the_uniform_output():
    entry = load("contrastive")
    assert entry.uniform_loss(logits(QUARTER, HALF)).item() == pytest.approx(FORWARD / 2)


def test_contrastive_recipes():
    net = OneLayer()
    sgd = load("contrastive").optimizer_for(net, 0.01, 0.5)
    assert isinstance(sgd, torch.optim.SGD)
    assert [sgd.defaults[key] for key in ("lr", "momentum", "weight_decay")] == [0.01, 0.9, 0.5]
    adam = load("contrastive", RECIPE="report").optimizer_for(net, 0.01, 0.5)
    assert isinstance(adam, torch.optim.Adam)
    assert [adam.defaults[key] for key in ("lr", "weight_decay")] == [1e-4, 5e-3]


def test_contrastive_schedule_ends_at_the_last_forget_step(monkeypatch):
    """Two epochs of three forget batches: six cosine steps from 3e-4 to 1e-6."""
    entry = load("contrastive", EPOCHS=2, RETAIN_BATCH=16)
    made, rates = [], []
    build, take_step = entry.optimizer_for, entry.descend

    def remember(*settings):
        made.append(build(*settings))
        return made[-1]

    def step(optimizer, loss):
        rates.append((made.index(optimizer), optimizer.param_groups[0]["lr"]))
        take_step(optimizer, loss)

    monkeypatch.setattr(entry, "optimizer_for", remember)
    monkeypatch.setattr(entry, "descend", step)
    retain, forget = loader(classes(64, 3), batch_size=16), loader(classes(6, 3), batch_size=2)
    entry.unlearning(given_net(3), retain, forget, Untouchable())
    forget_rates = [rate for which, rate in rates if which == 1]
    cosine = [1e-6 + (3e-4 - 1e-6) * (1 + math.cos(math.pi * k / 6)) / 2 for k in range(6)]
    assert forget_rates == pytest.approx(cosine)
    assert made[1].param_groups[0]["lr"] == pytest.approx(1e-6)
    assert [which for which, _ in rates] == [0] * 3 + 2 * ([1] * 3 + [2] * 4)
    assert {rate for which, rate in rates if which == 2} == {1e-3 * 16 / 64}


def test_random_label_is_never_the_true_one():
    labels = torch.arange(4).repeat(1000)
    wrong = load("random_label").random_labels(labels, 4)
    assert not (wrong == labels).any()
    shares = torch.bincount((wrong - labels) % 4, minlength=4) / len(labels)
    assert shares.tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3], abs=0.04)
    any_label = load("random_label", LABELS="any").random_labels(labels, 4)
    assert (any_label == labels).float().mean().item() == pytest.approx(1 / 4, abs=0.04)


@pytest.mark.parametrize(("mode", "draws"), [("wrong", 1), ("any", 3)])
@pytest.mark.parametrize("form", ["dict", "tuple"])
def test_random_label_trains_on_the_union(monkeypatch, mode, draws, form):
    """Each epoch shows each picture once, retain with its own labels and forget with the drawn ones."""
    entry = load("random_label", LABELS=mode, EPOCHS=3, BATCH=30)
    retain, forget = Faces([0] * 20, form), Faces([0] * 10, form)
    drawn, seen = [], []

    def draw(labels, n_classes):
        drawn.append(labels.tolist())
        return torch.full((10,), len(drawn))

    monkeypatch.setattr(entry, "random_labels", draw)

    def criterion(outputs, labels):
        seen.append(labels)
        return outputs.mean()

    entry.relabel_and_train(given_net(5), retain, forget, criterion)
    assert drawn == [[0] * 10] * draws
    expected = [[0] * 20 + [min(epoch, draws)] * 10 for epoch in (1, 2, 3)]
    assert [sorted(labels.tolist()) for labels in seen] == expected


def test_random_label_is_adam_on_retain_pictures_and_relabelled_forget_pictures(monkeypatch):
    """In one batch, so that the order is no matter."""
    torch.manual_seed(0)
    entry, net, retain, forget = load("random_label"), OneLayer(), small_faces(12), small_faces(4)
    expected = copy.deepcopy(net)
    monkeypatch.setattr(entry, "random_labels", lambda labels, n_classes: (labels + 1) % n_classes)
    optimizer = torch.optim.Adam(expected.parameters(), lr=1e-4, weight_decay=5e-3)
    outputs = expected(torch.cat([retain.images, forget.images]))
    functional.cross_entropy(outputs, torch.tensor([*retain.labels, 1, 2, 0, 1])).backward()
    optimizer.step()
    entry.unlearning(net, DataLoader(retain, 5), DataLoader(forget, 5), Untouchable())
    torch.testing.assert_close(states(net), states(expected), rtol=0, atol=1e-6)
