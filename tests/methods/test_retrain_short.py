"""Nothing of the original is left, and the fresh net learns."""

import copy

import pytest
import torch
from torch import nn

from tests.helpers.entries import Faces, classes, given_net, load, loss_of


@pytest.mark.parametrize("name", ["retrain_short", "distil_short"])
def test_nothing_of_the_original_is_left(name):
    net = given_net(3)
    fresh = copy.deepcopy(net)
    load(name).draw_anew(fresh.modules())
    for key, tensor in fresh.named_parameters():
        assert tensor.dim() == 1 or (tensor == net.get_parameter(key)).float().mean() < 0.01, key
    norms = [module for module in fresh.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all((norm.running_mean == 0).all() and norm.num_batches_tracked == 0 for norm in norms)
    weight = fresh.layer4[1].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (weight.shape[0] * 9)) ** 0.5, rel=0.02)


def test_two_originals_end_in_the_same_model():
    """What is left does not depend on the model that was given."""
    retain = torch.utils.data.DataLoader(Faces(classes(12, 3)), batch_size=4)
    ends = []
    for scale in (1.0, 2.0):
        net = given_net(3)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter *= scale
        torch.manual_seed(0)
        load("retrain_short").unlearning(net, retain, None, None)
        ends.append(net.state_dict())
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


def test_it_learns():
    faces, net = Faces(classes(12, 3)), given_net(3)
    entry = load("retrain_short", EPOCHS=15)
    entry.unlearning(net, torch.utils.data.DataLoader(faces, batch_size=6), None, None)
    net.train()  # so few steps leave running statistics behind
    assert loss_of(net, faces) < 0.5
