"""The methods that weigh parameters by squared gradients: importances, dampening, learning rates and noise."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from benchmarks.importances import of_each_picture
from tests.helpers.entries import (
    Faces,
    OneLayer,
    classes,
    equal,
    given_net,
    load,
    small_faces,
    small_loader,
    states,
)


def test_importances_of_single_pictures_are_the_mean_squared_gradient():
    entry = load("ssd", IMPORTANCE_BATCH=1)
    net = given_net(3)
    faces = Faces(classes(6, 3))
    expected = of_each_picture(net, faces.images, torch.tensor(faces.labels), batch=6)
    for found, importance in zip(entry.importances(net, faces), expected, strict=True):
        torch.testing.assert_close(found, importance, rtol=1e-3, atol=1e-6)


def test_importances_of_batches_are_comparable_between_sizes():
    """Sum over batches of (gradient of the summed loss) squared, over n: a ragged batch is no special case."""
    net = OneLayer()
    faces = small_faces(5)
    entry = load("gisa", IMPORTANCE_BATCH=5)
    outputs = functional.cross_entropy(net(faces.images), torch.tensor(faces.labels), reduction="sum")
    expected = torch.autograd.grad(outputs, net.fc.weight)[0].square() / 5
    torch.testing.assert_close(entry.importances(net, faces)[0], expected)

    pure_noise = Faces([0, 1] * 100, size=2)  # zero weights, balanced labels: gradients average to zero
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
    pure_noise.images -= pure_noise.images.mean(dim=0)
    torch.manual_seed(0)
    totals = []
    for size in (1, 7, 20):
        entry.IMPORTANCE_BATCH = size
        totals.append(sum(entry.importances(net, pure_noise)[0][:2].sum().item() for _ in range(20)))
    assert totals[1] / totals[0] == pytest.approx(1, abs=0.15)
    assert totals[2] / totals[0] == pytest.approx(1, abs=0.15)


def test_importances_leave_weights_and_statistics_alone():
    net = given_net(3).train()
    before = states(net)
    load("fisher_noise").importances(net, Faces(classes(9, 3)), 5)
    assert equal(net.state_dict(), before)
    assert all(parameter.grad is None for parameter in net.parameters())


def one_weight_vector(values):
    net = nn.Module()
    net.theta = nn.Parameter(torch.tensor(values))
    return net


def test_ssd_dampens_by_hand():
    """alpha 10, lambda 2: two weights below, factors 2 * 1/20 and 2 * 1/40 with the sign kept, 0, and no data."""
    net = one_weight_vector([1.0, 1.0, 1.0, -4.0, 3.0, 5.0])
    forget, retain = torch.tensor([5.0, 10.0, 20.0, 40.0, 1.0, 0.0]), torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0, 0.0])
    load("ssd", ALPHA=10.0, LAMBDA=2.0).dampen(net, [forget], [retain])
    assert net.theta.tolist() == pytest.approx([1.0, 1.0, 0.1, -0.2, 0.0, 5.0])


def test_ssd_never_amplifies():
    net = one_weight_vector([2.0, 2.0])
    load("ssd", ALPHA=1.0, LAMBDA=3.0).dampen(net, [torch.tensor([2.0, 6.0])], [torch.tensor([1.0, 1.0])])
    assert net.theta.tolist() == pytest.approx([2.0, 1.0])  # min(3 / 2, 1) and 3 / 6


def test_ssd_reference_over_the_training_set():
    """I_D = (n_r I_r + n_f I_f) / n, so alpha_r = 10 selects as alpha_D = 10 / (n_r / n + 10 n_f / n) does."""
    forget, retain = torch.rand(1000) * 20, torch.rand(1000)
    entry = load("ssd", REFERENCE="train")
    (whole,) = entry.reference_importances([forget], [retain], n_forget=20, n_retain=980)
    torch.testing.assert_close(whole, 0.02 * forget + 0.98 * retain)
    selected = forget > 10 * retain
    assert 0 < selected.sum() < 1000
    assert torch.equal(selected, forget > 10 / (0.98 + 10 * 0.02) * whole)
    entry.REFERENCE = "retain"
    assert torch.equal(entry.reference_importances([forget], [retain], 20, 980)[0], retain)


def test_ssd_can_spare_batch_norm():
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    ones = [torch.ones_like(parameter) for parameter in net.parameters()]
    for batch_norm in (False, True):
        copied = copy.deepcopy(net)
        load("ssd", ALPHA=10.0, BATCH_NORM=batch_norm).dampen(copied, [20 * one for one in ones], ones)
        torch.testing.assert_close(copied[0].weight, net[0].weight / 20)
        assert copied[1].weight.tolist() == pytest.approx([1 / 20, 1 / 20] if batch_norm else [1.0, 1.0])


@pytest.mark.parametrize(
    ("name", "step", "sizes"), [("ssd", "reference_importances", (3, 12)), ("gisa", "learning_rate_factors", ())]
)
def test_forget_importances_come_before_those_of_a_retain_sample(name, step, sizes, monkeypatch):
    """What `unlearning` hands on: importances of the whole forget set, then of RETAIN_SAMPLE retain pictures."""

    class Enough(Exception):
        pass

    def stop(*arguments):
        raise Enough(arguments)

    entry = load(name, RETAIN_SAMPLE=7)
    monkeypatch.setattr(entry, "importances", lambda net, dataset, n=None: (len(dataset), n))
    monkeypatch.setattr(entry, step, stop)
    with pytest.raises(Enough) as caught:
        entry.unlearning(OneLayer(), small_loader(12), small_loader(3), None)
    assert caught.value.args[0] == ((3, None), (12, 7), *sizes)


def test_ssd_shrinks_what_the_forget_set_needs_more_before_a_tail_on_the_retain_set(monkeypatch):
    entry, net, tails = load("ssd", ALPHA=1.5, RETAIN_SAMPLE=None, IMPORTANCE_BATCH=1), OneLayer(), []
    retain, forget, before = small_loader(12), small_loader(3), states(net)
    pairs = zip(*(entry.importances(net, part.dataset) for part in (forget, retain)), strict=True)
    factors = [torch.where(f > 1.5 * r, r / f, 1.0) for f, r in pairs]
    assert 0 < (factors[0] < 1).sum() < 36
    monkeypatch.setattr(entry, "finetune", lambda net, tail, criterion: tails.append((tail, states(net))))
    entry.unlearning(net, retain, forget, None)
    ((tail, found),) = tails
    assert tail is retain
    for name, factor in zip(before, factors, strict=True):
        torch.testing.assert_close(found[name], factor * before[name])


def test_gisa_learning_rate_factors_by_hand():
    """log(I_f / I_r) = 2, -1, -inf, 1: clamped to 2, 0, 0, 1, with mean 3/4."""
    forget, retain = torch.tensor([math.e**2, 1 / math.e, 0.0, 2 * math.e]), torch.tensor([1.0, 1.0, 1.0, 2.0])
    expected = {"tensor": 1.75, "element": [3.0, 1.0, 1.0, 2.0], "dampened": 1 / 1.75, "none": 1.0}
    for adapt, factors in expected.items():
        found = load("gisa", ADAPT=adapt).learning_rate_factors([forget], [retain])
        assert found[0].tolist() == pytest.approx(factors)
    dead = load("gisa").learning_rate_factors([torch.zeros(2)], [torch.zeros(2)])
    assert dead[0].item() == 1.0


def test_gisa_gradient_of_equation_12():
    """dJ = 2R / (F + eps) dR - (R / (F + eps))^2 dF, at R = 2, F = 1, eps = 1/2."""
    retain, forget = torch.tensor(2.0, requires_grad=True), torch.tensor(1.0, requires_grad=True)
    loss = load("gisa", EPSILON=0.5).joint_loss(retain, forget)
    gradients = torch.autograd.grad(loss, (retain, forget))
    assert loss.item() == pytest.approx(4 / 1.5)
    assert [g.item() for g in gradients] == pytest.approx([8 / 3, -16 / 9])
    # beside gradient R, gradient F has the weight lambda = R / (2 (F + eps))
    assert -gradients[1].item() / gradients[0].item() == pytest.approx(2 / (2 * 1.5))


def test_gisa_factor_scales_the_step_of_adam():
    """A factor per tensor is Adam with that learning rate for the tensor; one per element scales each update."""
    entry = load("gisa")
    start = OneLayer()
    sets = small_loader(12), small_loader(3)
    criterion = nn.CrossEntropyLoss()

    by_tensor, by_groups = copy.deepcopy(start), copy.deepcopy(start)
    entry.adjust(by_tensor, *sets, criterion, [torch.tensor(3.0), torch.tensor(1.0)])
    rates = [(by_groups.fc.weight, 3 * entry.LR), (by_groups.fc.bias, entry.LR)]
    optimizer = torch.optim.Adam([{"params": [p], "lr": lr} for p, lr in rates], weight_decay=entry.WEIGHT_DECAY)
    forget_images, forget_labels = entry.unpack(next(iter(sets[1])), "cpu")
    for batch in sets[0]:
        images, labels = entry.unpack(batch, "cpu")
        optimizer.zero_grad()
        forget_loss = criterion(by_groups(forget_images), forget_labels)
        (criterion(by_groups(images), labels) ** 2 / (forget_loss + entry.EPSILON)).backward()
        optimizer.step()
    for found, expected in zip(by_tensor.parameters(), by_groups.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert (by_tensor.fc.weight - start.fc.weight).abs().max() > 3e-4

    one_step = small_loader(4), small_loader(3)
    plain, by_element = copy.deepcopy(start), copy.deepcopy(start)
    scale = 1 + torch.rand(3, 12)
    entry.adjust(plain, *one_step, criterion, [torch.ones(()), torch.ones(())])
    entry.adjust(by_element, *one_step, criterion, [scale, torch.ones(())])
    update = plain.fc.weight - start.fc.weight
    torch.testing.assert_close(by_element.fc.weight - start.fc.weight, scale * update, rtol=0, atol=1e-7)


def test_gisa_takes_its_steps_on_both_sets_with_the_factors(monkeypatch):
    entry, steps = load("gisa"), []
    sets = OneLayer(), small_loader(12), small_loader(3)
    monkeypatch.setattr(entry, "learning_rate_factors", lambda *importances: "the factors")
    monkeypatch.setattr(entry, "adjust", lambda *given: steps.append(given))
    entry.unlearning(*sets, None)
    ((*given, criterion, factors),) = steps
    assert given == [*sets]
    assert isinstance(criterion, nn.CrossEntropyLoss)
    assert factors == "the factors"


def test_fisher_noise_scales_by_hand():
    """min(sqrt(0.04 / I), 0.5) for importances 1, 4, 0.01 and 0; ten times that in the last layer."""
    entry = load("fisher_noise", ALPHA=0.04, CAP=0.5, LAST_LAYER=10.0)
    importance = torch.tensor([1.0, 4.0, 0.01, 0.0])
    net = nn.Module()
    net.theta = nn.Parameter(torch.zeros(4))
    net.fc = nn.Linear(4, 1, bias=False)
    scales = entry.noise_scales(net, [importance, importance])
    assert scales[0].tolist() == pytest.approx([0.2, 0.1, 0.5, 0.5])
    assert scales[1].tolist() == pytest.approx([2.0, 1.0, 5.0, 5.0])


def test_fisher_noise_has_the_variance_it_says():
    torch.manual_seed(0)
    net = one_weight_vector([[3.0] * 50_000, [-1.0] * 50_000])
    load("fisher_noise").add_noise(net, [torch.tensor([[0.3], [0.02]]).expand(2, 50_000)])
    assert net.theta.mean(dim=1).tolist() == pytest.approx([3.0, -1.0], abs=0.01)
    assert net.theta.var(dim=1).tolist() == pytest.approx([0.09, 0.0004], rel=0.03)


def test_fisher_noise_spares_what_a_sample_of_the_retain_set_needs(monkeypatch):
    entry, net, steps = load("fisher_noise", RETAIN_SAMPLE=7), OneLayer(), []
    retain = small_loader(12)
    for step in ("importances", "noise_scales", "add_noise", "finetune"):
        monkeypatch.setattr(entry, step, lambda _, *given, step=step: steps.append((step, *given[:2])) or step)
    entry.unlearning(net, retain, small_loader(3), None)
    assert [given[:2] for given in steps[1:]] == [
        ("noise_scales", "importances"), ("add_noise", "noise_scales"), ("finetune", retain),
    ]  # fmt: skip
    assert steps[0] == ("importances", retain.dataset, 7)


def test_fisher_noise_without_noise_is_finetuning_bit_for_bit(monkeypatch):
    entry, start = load("fisher_noise"), OneLayer()
    nets = copy.deepcopy(start), copy.deepcopy(start)
    monkeypatch.setattr(entry, "add_noise", lambda *given: None)
    for each, net in zip((entry, load("finetune")), nets, strict=True):
        each.unlearning(net, small_loader(12), small_loader(3), None)
    assert equal(*map(states, nets))
    assert not equal(states(nets[0]), states(start))
