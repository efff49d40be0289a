import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision

import data_prep.dataset
from local_scorer.execution import steps
from local_scorer.execution.job import TRAINED_ROLES, Job, derive_seed
from local_scorer.models import nets
from local_scorer.models.recipes import RECIPES, Recipe
from local_scorer.runs.store import RunFolder
from tests.helpers.runs import MADE_ON

SHORT = Recipe("short", "adam", lr=1e-3, weight_decay=5e-4, epochs=1)


@pytest.fixture(autouse=True)
def one_thread():
    """Sums over threads may come in any order; one thread always gives the same bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def pictures(n, seed=0):
    random = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 3, 32, 32), generator=random, dtype=torch.uint8)
    return images, torch.arange(n) % 8


def trained(n=20, seed=0, recipe=SHORT, images=None):
    net = nets.fresh_net(8, 16, seed=1)
    some, labels = pictures(n)
    nets.train(net, some if images is None else images, labels, recipe, torch.bincount(labels), seed)
    return net


def equal(one, other):
    one, other = one.state_dict(), other.state_dict()
    return list(one) == list(other) and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_width_64_is_torchvisions_model():
    torch.manual_seed(3)
    theirs = torchvision.models.resnet18(weights=None, num_classes=8)
    torch.manual_seed(3)
    ours = nets.resnet18(8, width=64)
    assert equal(ours, theirs)
    assert sum(parameter.numel() for parameter in ours.parameters()) == 11_180_616


@pytest.mark.parametrize("width", [16, 32])
def test_narrow_nets_have_the_same_layers_in_proportion(width):
    wide = nets.resnet18(8, width=64)
    narrow = nets.resnet18(8, width=width)
    assert [str(type(module)) for module in narrow.modules()] == [str(type(module)) for module in wide.modules()]
    share = 64 // width
    for (name, tensor), (wide_name, wide_tensor) in zip(
        narrow.state_dict().items(), wide.state_dict().items(), strict=True
    ):
        assert name == wide_name
        expected = [
            size // share if size >= 64 else size for size in wide_tensor.shape
        ]  # 3 colours, kernels of 7, 3 and 1, and 8 classes stay
        assert list(tensor.shape) == expected


@pytest.mark.parametrize("width", nets.WIDTHS)
def test_initial_weights_follow_torchvisions_rule(width):
    net = nets.fresh_net(8, width, seed=0)
    weight = net.layer4[1].conv2.weight  # kaiming normal over fan out: variance 2 / (9 * channels)
    expected = (2 / (9 * weight.shape[0])) ** 0.5
    assert weight.std().item() == pytest.approx(expected, rel=0.02)
    assert weight.mean().item() == pytest.approx(0, abs=0.02 * expected)
    assert torch.equal(net.bn1.weight, torch.ones(width))


def test_other_widths_are_refused():
    with pytest.raises(ValueError) as error:
        nets.resnet18(8, width=48)
    assert str(error.value) == "width must be one of 16, 32, 64, found 48."


@pytest.mark.parametrize("size", [32, 33, 128])
@pytest.mark.parametrize("n_classes", [2, 10])
def test_logits_for_any_picture_size(size, n_classes):
    net = nets.fresh_net(n_classes, 16, seed=0).eval()
    assert net(torch.zeros(2, 3, size, size)).shape == (2, n_classes)


@pytest.mark.parametrize("width", [16, 64])
def test_fresh_net_depends_on_its_seed_alone(width):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = nets.fresh_net(8, width, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert equal(nets.fresh_net(8, width, seed=5), first)
    assert not equal(nets.fresh_net(8, width, seed=6), first)


def test_an_empty_net_draws_nothing_and_takes_the_weights_of_a_fresh_one():
    fresh, state = nets.fresh_net(8, 16, seed=5), torch.get_rng_state()
    net = nets.empty_net(8, 16)
    assert torch.equal(torch.get_rng_state(), state)
    net.load_state_dict(fresh.state_dict())
    assert equal(net, fresh) and str(net) == str(fresh)
    assert equal(nets.fresh_net(8, 16, seed=5), fresh)  # those built later have their initial weights


def test_recipes_carry_their_own_names():
    assert {name: recipe.name for name, recipe in RECIPES.items()} == {name: name for name in RECIPES}
    assert set(RECIPES) == {"competition", "report", "quick"}


@pytest.mark.parametrize("name", RECIPES)
def test_training_gives_the_same_bits_and_leaves_the_global_generator(name):
    recipe = replace(RECIPES[name], epochs=2, batch_size=8)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = trained(recipe=recipe)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert equal(trained(recipe=recipe), first)
    assert not equal(trained(recipe=recipe, seed=1), first)
    assert not first.training


def test_sgd_trains_too():
    assert not equal(trained(recipe=replace(SHORT, optimizer="sgd")), nets.fresh_net(8, 16, seed=1))


@pytest.mark.parametrize("change", [{"optimizer": "lion"}, {"schedule": "step"}])
def test_unknown_parts_of_a_recipe_are_refused(change):
    with pytest.raises(ValueError, match=r"^Recipe 'short' has an unknown optimizer or schedule\.$"):
        trained(recipe=replace(SHORT, **change))


def test_training_does_not_change_the_pictures():
    images, _ = pictures(20)
    before = images.clone()
    trained(images=images, recipe=replace(SHORT, augment=True))
    assert torch.equal(images, before)


def test_training_memorises_noise():
    images, labels = pictures(16)
    net = trained(n=16, recipe=replace(SHORT, epochs=30, schedule="cosine"))
    assert (nets.predict_logits(net, images).argmax(dim=1) == labels).all()


@pytest.mark.parametrize("schedule", ["constant", "cosine", "onecycle"])
@pytest.mark.parametrize(
    ("n", "sizes"), [(3, [3]), (9, [9]), (12, [6, 6]), (16, [8, 8]), (17, [9, 8]), (23, [8, 8, 7])]
)
def test_every_epoch_has_every_picture_once_and_no_last_batch_of_a_few(n, sizes, schedule):
    batches = []
    net = nets.fresh_net(8, 16, seed=1)
    net.register_forward_pre_hook(lambda module, inputs: batches.append(inputs[0][:, 0, 0, 0].tolist()))
    images = torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 32, 32)
    labels = torch.arange(n) % 8
    recipe = replace(SHORT, schedule=schedule, batch_size=8, epochs=2)
    nets.train(net, images, labels, recipe, torch.bincount(labels), seed=0)
    assert [len(batch) for batch in batches] == [*sizes, *sizes]
    first = [number for batch in batches[: len(sizes)] for number in batch]
    second = [number for batch in batches[len(sizes) :] for number in batch]
    assert sorted(first) == sorted(second) == list(range(n))
    assert first != second


def test_class_weights_are_one_over_the_count():
    """Two pictures each of classes 0 and 1, counted 1 and 3: the mean weighs them 3 to 1."""
    images, _ = pictures(4)
    labels = torch.tensor([0, 0, 1, 1])
    net = nets.fresh_net(8, 16, seed=1)
    by_hand = copy.deepcopy(net)
    counts = torch.tensor([1, 3, 0, 0, 0, 0, 0, 0])
    recipe = Recipe(
        "plain", "sgd", lr=0.1, weight_decay=0.0, epochs=1, momentum=0.0, class_weights="inverse_count"
    )
    nets.train(net, images, labels, recipe, counts, seed=0)

    by_hand.train()
    losses = -torch.log_softmax(by_hand(images.float()), dim=1)[torch.arange(4), labels]
    loss = (3 * losses[0] + 3 * losses[1] + losses[2] + losses[3]) / 8
    loss.backward()
    expected = by_hand.fc.weight.detach() - 0.1 * by_hand.fc.weight.grad
    torch.testing.assert_close(net.fc.weight.detach(), expected, rtol=1e-4, atol=1e-5)


def test_logits_do_not_depend_on_the_batch_and_need_no_gradient():
    net = trained()
    images, _ = pictures(21, seed=4)
    logits = nets.predict_logits(net.train(), images, batch_size=8)
    assert not net.training
    assert logits.shape == (21, 8)
    assert logits.dtype == torch.float32
    assert not logits.requires_grad
    torch.testing.assert_close(logits, nets.predict_logits(net, images, batch_size=21), rtol=1e-4, atol=1e-4)
    alone = net(images[20:].float()).detach()
    torch.testing.assert_close(logits[20:], alone, rtol=1e-4, atol=1e-4)


def test_augmentation_keeps_shape_and_range():
    batch = pictures(200)[0].float()
    result = nets.augmented(batch, torch.Generator().manual_seed(0))
    assert result.shape == batch.shape
    assert result.dtype == torch.float32
    assert result.min() >= -1e-3
    assert result.max() <= 255 + 1e-3
    assert not torch.equal(result, batch)


def test_augmentation_moves_pictures_a_little_and_flips_half_of_them():
    """A lamp in the right half of each picture stays near its place, or near the mirrored one."""
    batch = torch.zeros(400, 3, 32, 32)
    batch[:, :, 14:18, 22:26] = 255  # centre at row 15.5, column 23.5
    result = nets.augmented(batch, torch.Generator().manual_seed(0))[:, 0]
    weight = result.sum(dim=(1, 2))
    row = (result.sum(dim=2) * torch.arange(32)).sum(dim=1) / weight
    column = (result.sum(dim=1) * torch.arange(32)).sum(dim=1) / weight
    flipped = column < 15.5
    assert 160 < flipped.sum() < 240  # 4 standard deviations around 200
    column = torch.where(flipped, 31 - column, column)
    # shift 6 % of 32, zoom 8 % of the distance 8 to the centre, rotation sin(8 degrees) of it, and some slack
    assert (column - 23.5).abs().max() < 1.1 * (0.06 * 32 * 1.1 + 0.08 * 8) + 0.2
    assert (row - 15.5).abs().max() < 1.1 * (0.06 * 32 * 1.1 + 0.14 * 8) + 0.2
    assert (column - 23.5).abs().max() > 1


def test_augmentation_leaves_an_even_picture_as_it_is():
    batch = torch.full((8, 3, 32, 32), 100.0)
    torch.testing.assert_close(nets.augmented(batch, torch.Generator().manual_seed(0)), batch)


def trained_job(data_folder, out, role):
    """Train a model as a run does, and return what it left."""
    data = data_prep.dataset.load(data_folder)
    job = Job(role, 0, str(data_folder), data.fingerprint, SHORT, width=16, seed=0, device="cpu")
    folder = RunFolder(out)
    steps.train(job, folder, "cpu", MADE_ON)
    return job, folder, folder.load_result(job.key)


def with_other_forget_pictures(data_folder, out):
    data = data_prep.dataset.load(data_folder)
    images = data.images.copy()
    images[data.rows("forget")] = 255 - images[data.rows("forget")]
    return data_prep.dataset.write(
        out,
        images=images,
        examples=data.examples,
        name="changed",
        class_names=data.class_names,
        settings={},
        seed=0,
        sources={},
    )


@pytest.mark.parametrize(("role", "remembers"), [("retrained", False), ("ceiling", False), ("original", True)])
def test_only_the_original_depends_on_the_forget_pictures(tiny_data, tmp_path, role, remembers):
    changed = with_other_forget_pictures(tiny_data, tmp_path / "changed")
    _, _, one = trained_job(tiny_data, tmp_path / "one", role)
    _, _, other = trained_job(changed, tmp_path / "other", role)
    for split in ("validation", "test"):
        assert np.array_equal(one.logits[split], other.logits[split]) is not remembers


def test_nothing_of_the_original_survives_in_retrained_models(tiny_data, tmp_path):
    _, _, alone = trained_job(tiny_data, tmp_path / "alone", "retrained")
    original, folder, _ = trained_job(tiny_data, tmp_path / "both", "original")
    weights = torch.load(folder.weights_path(original.key), weights_only=True)
    weights["fc.bias"] += 100.0
    torch.save(weights, folder.weights_path(original.key))
    _, _, beside = trained_job(tiny_data, tmp_path / "both", "retrained")
    for split in ("forget", "validation", "test"):
        np.testing.assert_array_equal(beside.logits[split], alone.logits[split])


def test_starts_of_original_and_retrained_models_all_differ():
    seeds = [
        derive_seed(run_seed, role, index)
        for run_seed in (0, 1)
        for role in (*TRAINED_ROLES, "unlearned")
        for index in range(100)
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)
