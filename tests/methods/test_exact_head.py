"""Deleting rows from each head equals fitting it without them, and only fc changes."""

import pytest
import torch
from torch.nn import functional

from tests.helpers.entries import classes, given_net, load, loader, states


@pytest.fixture
def rows():
    """Return features with a column of ones and one-hot labels of 60 retain and 6 forget rows, float64."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(66) % 3
    x = torch.randn(66, 7, generator=random, dtype=torch.float64) + labels[:, None]
    x[:, -1] = 1.0
    y = functional.one_hot(labels, 3).double()
    return x[:60], y[:60], x[60:], y[60:]


def both(x_r, y_r, x_f, y_f):
    return torch.cat([x_r, x_f]), torch.cat([y_r, y_f]), x_f, y_f


def test_ridge_head_after_deletion_is_the_head_fitted_without_the_rows(rows):
    x_r, y_r, _, _ = rows
    entry, all_rows = load("exact_head"), both(*rows)
    _, before = entry.fit_ridge(*all_rows[:2])
    _, refitted = entry.fit_ridge(x_r, y_r)
    assert (before - refitted).abs().max() > 1e-3
    torch.testing.assert_close(before + entry.ridge_change(*all_rows), refitted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("head", ["class_statistics_head", "prototypes_head"])
def test_summed_heads_after_deletion_are_those_of_the_retain_rows(rows, head):
    x_r, y_r, x_f, y_f = rows
    make = getattr(load("exact_head"), head)
    refitted = make(x_r, y_r, x_f[:0], y_f[:0])
    torch.testing.assert_close(make(*both(*rows)), refitted, rtol=0, atol=1e-9)
    kept = make(*both(*rows)[:2], x_f[:0], y_f[:0])
    assert (kept - refitted).abs().max() > 1e-3


@pytest.mark.parametrize("head", ["class_statistics_head", "prototypes_head"])
def test_a_class_of_which_nothing_is_left_is_no_answer(rows, head):
    x_r, _, x_f, _ = rows
    labels = torch.tensor([index % 2 for index in range(60)] + [2] * 6)
    y = functional.one_hot(labels, 3).double()
    means = 5.0 + 5.0 * labels[:, None]  # of tight classes: every logit lies far below 0 near the origin
    x = torch.cat([means + 0.01 * torch.cat([x_r, x_f])[:, :-1], torch.ones(66, 1)], dim=1).double()
    made = getattr(load("exact_head"), head)(x, y, x[60:], y[60:])
    assert made.isfinite().all()
    near_nothing = 0.1 * x_r[:, :-1].abs()
    answers = torch.cat([functional.pad(near_nothing, (0, 1), value=1.0), x]) @ made
    assert answers.argmax(dim=1).max() == 1


def test_class_statistics_are_log_posteriors(rows):
    """Of normal classes with one covariance: against the densities."""
    x_r, y_r, x_f, y_f = rows
    head = load("exact_head", SHRINKAGE=0.0).class_statistics_head(x_r, y_r, x_f[:0], y_f[:0])
    z, counts = x_r[:, :-1], y_r.sum(dim=0)
    means = y_r.T @ z / counts[:, None]
    centred = z - y_r @ means
    normal = [torch.distributions.MultivariateNormal(mean, centred.T @ centred / 60) for mean in means]
    joint = torch.stack([each.log_prob(z) for each in normal], dim=1) + (counts / 60).log()
    torch.testing.assert_close((x_r @ head).log_softmax(dim=1), joint.log_softmax(dim=1))


def test_prototypes_answer_with_the_nearest_mean(rows):
    x_r, y_r, x_f, y_f = rows
    head = load("exact_head").prototypes_head(x_r, y_r, x_f[:0], y_f[:0])
    means = y_r.T @ x_r[:, :-1] / y_r.sum(dim=0)[:, None]
    assert torch.equal((x_r @ head).argmax(dim=1), torch.cdist(x_r[:, :-1], means).argmin(dim=1))


def test_a_newton_step_comes_near_the_head_fitted_without_the_rows(rows):
    x_r, y_r, _, _ = rows
    entry, all_rows = load("exact_head", NEWTON_STEPS=30), both(*rows)
    before, refitted = entry.fit_newton(*all_rows[:2]), entry.fit_newton(x_r, y_r)
    gradient = x_r.T @ (torch.sigmoid(x_r @ refitted) - y_r) + entry.RIDGE * refitted
    assert gradient.abs().max() < 1e-9
    after = before + entry.newton_change(*all_rows)
    assert (after - refitted).norm() < 0.15 * (before - refitted).norm()


def test_projective_change_is_the_exact_one_on_the_span_of_the_forget_rows(rows):
    x_r, y_r, x_f, y_f = rows
    x_f, y_f = x_f[:3], y_f[:3]  # fewer than there are features
    entry, all_rows = load("exact_head"), both(x_r, y_r, x_f, y_f)
    inverse, weights = entry.fit_ridge(*all_rows[:2])
    _, refitted = entry.fit_ridge(x_r, y_r)
    torch.testing.assert_close(entry.leave_out(x_f, y_f, inverse, weights), x_f @ refitted)
    projection = torch.linalg.pinv(x_f) @ x_f
    found = entry.projective_change(*all_rows)
    torch.testing.assert_close(found, projection @ (refitted - weights))
    assert (found - (refitted - weights)).norm() > 1e-3


def test_span_projection_clears_what_only_forget_rows_have_and_nothing_else(rows):
    x_r, y_r, x_f, y_f = rows
    entry = load("exact_head")
    assert entry.span_change(*both(*rows)).abs().max() < 1e-9  # the retain rows span all: it does nothing
    x_r, x_f = x_r.clone(), x_f.clone()
    x_r[:, 2], x_f[:, 2] = 0.0, 1.0
    all_rows = both(x_r, y_r, x_f, y_f)
    _, before = entry.fit_ridge(*all_rows[:2])
    after = before + entry.span_change(*all_rows)
    assert before[2].abs().max() > 1e-3
    assert after[2].abs().max() < 1e-12


@pytest.mark.parametrize("head", ["ridge", "class_statistics", "newton", "projective", "prototypes", "span"])
def test_only_fc_changes_and_answers_stay_finite(head):
    net = given_net(3)
    before = states(net)
    load("exact_head", HEAD=head).unlearning(net, loader(classes(20, 3)), loader(classes(6, 3)), None)
    changed = {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed <= {"fc.weight", "fc.bias"}
    assert changed
    assert net(torch.rand(2, 3, 32, 32) * 255).isfinite().all()


def test_a_misspelt_setting_is_no_other_setting():
    with pytest.raises(KeyError, match="misspelt"):
        load("exact_head", HEAD="misspelt").unlearning(
            given_net(3), loader(classes(9, 3)), loader(classes(3, 3)), None
        )


def test_features_are_what_fc_reads():
    net = given_net(3)
    data = loader(classes(9, 3)).dataset
    x, labels = load("exact_head").features_of(net.train(), data, range(9))
    with torch.no_grad():
        logits = net.eval()(data.images)
    head = torch.cat([net.fc.weight.T, net.fc.bias[None]]).double()
    torch.testing.assert_close((x @ head).float(), logits, rtol=1e-4, atol=1e-4)
    assert labels.tolist() == data.labels


FUNCTIONS = {
    "ridge": "ridge_change",
    "newton": "newton_change",
    "projective": "projective_change",
    "span": "span_change",
    "class_statistics": "class_statistics_head",
    "prototypes": "prototypes_head",
}


@pytest.mark.parametrize(("head", "function"), FUNCTIONS.items())
def test_fc_is_the_head_or_moves_by_the_scaled_change(monkeypatch, head, function):
    entry, net = load("exact_head", HEAD=head, SCALE=3.0, RETAIN_SHARE=0.5), given_net(3)
    retain, forget = loader([0, 0, 0, 1] * 5), loader([2, 1, 2, 2, 2])
    old, made, given = fc_of(net), torch.randn(129, 3, dtype=torch.float64), []
    monkeypatch.setattr(entry, function, lambda *rows: (given.extend(rows), made)[1])
    torch.manual_seed(0)
    x_r, labels = entry.features_of(net, retain.dataset, torch.randperm(20)[:10].tolist())
    x_f, _ = entry.features_of(net, forget.dataset, range(5))
    torch.manual_seed(0)
    entry.unlearning(net, retain, forget, None)
    expected = made if function.endswith("_head") else old + 3.0 * made
    torch.testing.assert_close(fc_of(net), expected, rtol=1e-5, atol=1e-5)
    y = functional.one_hot(torch.tensor([*labels, 2, 1, 2, 2, 2]), 3).double()
    for found, wanted in zip(given, (torch.cat([x_r, x_f]), y, x_f, y[10:]), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


def fc_of(net):
    return torch.cat([net.fc.weight.T, net.fc.bias[None]]).detach().double()


def test_the_tail_is_of_the_retain_set(monkeypatch):
    entry, retain, seen = load("exact_head"), loader(classes(9, 3)), []
    monkeypatch.setattr(entry, "finetune", lambda net, loader, criterion: seen.append(loader))
    entry.unlearning(given_net(3), retain, loader(classes(3, 3)), None)
    assert seen == [retain]


def test_a_newton_step_is_taken_on_the_loss_of_the_retain_rows(rows):
    x_r, y_r, _, _ = rows
    entry, all_rows = load("exact_head", NEWTON_STEPS=30), both(*rows)
    weights = entry.fit_newton(*all_rows[:2])[:, 0]

    def loss(w):
        retain = functional.binary_cross_entropy_with_logits(x_r @ w, y_r[:, 0], reduction="sum")
        return retain + entry.RIDGE / 2 * w.square().sum()

    slope = torch.autograd.functional.jacobian(loss, weights)
    step = torch.linalg.solve(torch.autograd.functional.hessian(loss, weights), -slope)
    torch.testing.assert_close(entry.newton_change(*all_rows)[:, 0], step)
