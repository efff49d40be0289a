"""What holds for every entry: any batch form, class count and ragged batch, and a way back from a bad setting."""

import pytest
import torch
from torch import nn

from tests.helpers.entries import NAMES, classes, equal, given_net, load, loader, states


def rates(entry):
    """Return the names of the learning rates among an entry's settings; an entry without steps has none."""
    return [setting for setting in vars(entry) if setting == "LR" or setting.endswith("_LR")]


WITH_CLASS_WEIGHTS = [name for name in NAMES if hasattr(load(name), "CLASS_WEIGHTS")]

def run(entry, n_classes=3, retain=None, forget=None, form="dict"):
    """Unlearn on tiny sets; return the net and its old weights."""
    net = given_net(n_classes)
    before = states(net)
    sets = (retain or classes(65, n_classes), forget or classes(3, n_classes), classes(5, n_classes))
    entry.unlearning(net, *(loader(labels, form) for labels in sets))
    return net, before


def weights(net):
    """Return the net's parameters by name."""
    return dict(net.named_parameters())


def training(name):
    """Load an entry with its tail, if it has one: some train nothing by default."""
    entry = load(name)
    if hasattr(entry, "TAIL_EPOCHS"):
        entry.TAIL_EPOCHS = 1
    return entry


def test_all_methods_of_the_report_are_there():
    of_the_table = {"finetune", "neggrad", "bad_teacher", "bad_teacher_similarity", "ssd", "gisa", "contrastive"}
    assert {*NAMES} >= of_the_table | {"random_label", "fisher_noise"}


@pytest.mark.parametrize("name", NAMES)
def test_changes_the_net_in_place_and_differently_each_time(name):
    """65 retain and 65 forget pictures leave last batches of one."""
    first, before = run(load(name), 10, forget=classes(65, 10))
    second, _ = run(load(name), 10, forget=classes(65, 10))
    after = first.state_dict()
    assert {key: tensor.shape for key, tensor in after.items()} == {k: t.shape for k, t in before.items()}
    assert all(tensor.isfinite().all() for tensor in after.values())
    assert not equal(weights(first), before)
    assert not equal(weights(first), weights(second))
    assert not any(module.training for module in first.modules())
    assert all(parameter.requires_grad for parameter in first.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_a_retain_loader_of_single_pictures_trains(name):
    net = given_net(3)
    before = states(net)
    sets = loader(classes(4, 3), batch_size=1), loader(classes(3, 3)), loader(classes(5, 3))
    training(name).unlearning(net, *sets)
    assert not equal(weights(net), before)


@pytest.mark.parametrize("name", NAMES)
def test_takes_tuples_and_a_forget_set_of_one_picture(name):
    net, before = run(load(name), forget=classes(1, 3), form="tuple")
    assert not equal(net.state_dict(), before)


@pytest.mark.parametrize("use_class_weights", [False, True])
@pytest.mark.parametrize("name", WITH_CLASS_WEIGHTS)
def test_takes_a_class_that_only_the_forget_set_has(name, use_class_weights):
    net, before = run(load(name, CLASS_WEIGHTS=use_class_weights), retain=classes(20, 2), forget=[2, 2])
    assert not equal(net.state_dict(), before)


@pytest.mark.parametrize("name", [name for name in NAMES if rates(load(name))])
def test_exploding_loss_gives_the_old_weights_back(name):
    net = given_net(3)
    before = states(net)
    entry = training(name)
    for rate in rates(entry):
        setattr(entry, rate, 1e30)
    sets = [loader(classes(n, 3)) for n in (130, 70, 5)]
    with pytest.raises(RuntimeError, match=r"^(The loss has exploded|Unlearning left) .*Lower the learning rate"):
        entry.unlearning(net, *sets)
    assert equal(net.state_dict(), before)
    assert not any(module.training for module in net.modules())


def test_last_step_into_infinity_is_noticed():
    net = given_net(3)
    before = states(net)
    sets = [loader(classes(n, 3)) for n in (10, 3, 5)]  # one step, and no loss after it
    with pytest.raises(RuntimeError, match=r"^Unlearning left weights that are not finite\. Lower the learning"):
        load("finetune", LR=float("inf")).unlearning(net, *sets)
    assert equal(net.state_dict(), before)


def test_class_weights_by_hand():
    """6 pictures, 3 classes, 4 + 2 + 0 of them: 6 / (3 * 4), 6 / (3 * 2), and 6 / (3 * 1) for the absent class."""
    net = given_net(3)
    for form in ("dict", "tuple"):
        found = load("finetune").class_weights(net, loader([0, 0, 1, 0, 1, 0], form))
        assert found.tolist() == [0.5, 1.0, 2.0]


@pytest.mark.parametrize("name", WITH_CLASS_WEIGHTS)
def test_class_weights_are_those_of_the_retain_set(name, monkeypatch):
    entry, weighted = training(name), []
    entry.CLASS_WEIGHTS, given, criterion = True, torch.tensor([1.0, 2.0, 3.0]), nn.CrossEntropyLoss
    retain, others = loader(classes(20, 3)), (loader(classes(3, 3)), loader(classes(5, 3)))

    def class_weights(net, counted):
        assert counted is retain
        return given

    def remember(weight=None):
        weighted.append(weight)
        return criterion(weight)

    monkeypatch.setattr(entry, "class_weights", class_weights)
    monkeypatch.setattr(nn, "CrossEntropyLoss", remember)
    entry.unlearning(given_net(3), retain, *others)
    assert [weight is given for weight in weighted] == [True]
