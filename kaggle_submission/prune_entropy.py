"""Prune and keep the entropy: zero all but the largest hundredth of the weights, draw the zeroed ones anew, and
fine-tune on the retain set, where the answers' entropies are pulled to those of the original.

Source: Sebastian Oleszko, fourth in the organisers' final list and "5th place" in the post's title, Kaggle
discussion 459148.

Reading: weights and biases of convolutions and linear layers are ranked together; a zeroed bias stays 0, batch
normalisation is left alone. No schedule: none of the sources confirms one.

Results: docs/methods/prune_entropy.md, from results/*/prune_entropy.json.
"""

import copy
from contextlib import contextmanager
from itertools import islice

import torch
from torch import nn
from torch.nn import functional

# SETTINGS
PRUNED = 0.99  # share of the weights that are drawn anew; the author's choice
CLASS_POWER = -0.1  # weight of a class: its number of retain pictures to this power; the author's choice
ENTROPY = 1.0  # factor on the squared difference of entropies; the author's choice
EPOCHS = 1.5  # passes through the retain set; the author's 3.2 of 30, scaled to the 14 of `quick`
LR = 1.5e-2  # SGD with momentum 0.9; the author's 5e-4, scaled as the rate of training is
WEIGHT_DECAY = 5e-4  # the author's choice

# METHOD
# SHARED: passes
def n_steps(loader, epochs):
    """Return the number of batches in `epochs` passes through `loader`, at least one."""
    return max(1, round(epochs * len(loader)))


def passes(loader, epochs, device):
    """Yield pictures and labels of each batch in `epochs` passes; a fraction ends the last pass early.

    A batch of one picture waits for the next one: batch normalisation cannot use it alone.
    """
    left, waiting = n_steps(loader, epochs), []
    while left > 0:
        for batch in islice(loader, left):
            left -= 1
            waiting.append(unpack(batch, device))
            images, labels = map(torch.cat, zip(*waiting, strict=True))
            if len(labels) > 1:
                waiting = []
                yield images, labels
# END: passes


@torch.no_grad()
def prune_and_draw(net):
    """Zero the PRUNED share of weights and biases with the smallest absolute values; draw the weights anew."""
    layers = [module for module in net.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    tensors = [tensor for layer in layers for tensor in (layer.weight, layer.bias) if tensor is not None]
    sizes = torch.cat([tensor.abs().flatten() for tensor in tensors])
    limit = sizes.kthvalue(max(1, int(PRUNED * len(sizes)))).values
    for layer in layers:
        bound = layer.weight[0].numel() ** -0.5  # torch's own start: uniform up to 1 / sqrt(inputs)
        drawn = torch.empty_like(layer.weight).uniform_(-bound, bound)
        layer.weight.copy_(torch.where(layer.weight.abs() <= limit, drawn, layer.weight))
        if layer.bias is not None:
            layer.bias[layer.bias.abs() <= limit] = 0.0


def entropy(logits):
    """Return the entropy of the answer to each picture, ``[B]``."""
    logs = logits.log_softmax(dim=1)
    return -(logs.exp() * logs).sum(dim=1)


def pruned_loss(student, teacher, labels, weights):
    """Return weighted cross-entropy + ENTROPY times the mean squared difference of entropies, from logits."""
    difference = functional.mse_loss(entropy(student), entropy(teacher))
    return functional.cross_entropy(student, labels, weight=weights) + ENTROPY * difference


def finetune(net, teacher, loader, weights):
    """Minimise the loss over EPOCHS passes through `loader`."""
    device = device_of(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=0.9, weight_decay=WEIGHT_DECAY)
    net.train()
    for images, labels in passes(loader, EPOCHS, device):
        with torch.no_grad():
            logits = teacher(images)
        descend(optimizer, pruned_loss(net(images), logits, labels, weights))


@torch.no_grad()
def round_to_half(net):
    """Round each weight to half precision, as the author hands it in; larger ones than that holds stay."""
    for parameter in net.parameters():
        rounded = parameter.half().to(parameter.dtype)
        parameter.copy_(torch.where(rounded.isfinite(), rounded, parameter))


# PLUMBING
# SHARED: plumbing
@contextmanager
def all_or_nothing(net):
    """Give the net its old weights back if the block fails; leave it in eval mode either way."""
    before = copy.deepcopy(net.state_dict())
    try:
        yield
        if not all(tensor.isfinite().all() for tensor in net.state_dict().values()):
            raise RuntimeError("Unlearning left weights that are not finite. Lower the learning rate.")
    except Exception:
        net.load_state_dict(before)
        raise
    finally:
        net.eval()


def descend(optimizer, loss):
    """Take one step down `loss`.

    Raises:
        RuntimeError: the loss has exploded.
    """
    if not loss.abs() < 1e6:
        raise RuntimeError(f"The loss has exploded (it is {loss.item():.3g}). Lower the learning rate.")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def device_of(net):
    """Return the device that the net lies on."""
    return next(net.parameters()).device


def unpack(batch, device):
    """Return pictures and labels of a batch, which is a dict as on Kaggle or a tuple, on `device`."""
    if isinstance(batch, dict):
        images, labels = batch["image"], batch["age_group"]
    else:
        images, labels = batch[0], batch[1]
    return images.to(device), labels.to(device)
# END: plumbing
# SHARED: labels
def labels_of(dataset):
    """Return all labels of a map-style dataset, int64 ``[n]``."""
    items = (dataset[index] for index in range(len(dataset)))
    return torch.tensor([int(item["age_group"] if isinstance(item, dict) else item[1]) for item in items])
# END: labels


def unlearning(net, retain_loader, forget_loader, val_loader):
    """Unlearn in place: see the top of the file."""
    net.to(memory_format=torch.channels_last)  # faster convolutions, the same weights
    counts = torch.bincount(labels_of(retain_loader.dataset), minlength=net.fc.out_features).clamp(min=1)
    weights = counts.float().pow(CLASS_POWER).to(device_of(net))
    teacher = copy.deepcopy(net).eval()
    with all_or_nothing(net):
        prune_and_draw(net)
        finetune(net, teacher, retain_loader, weights)
        round_to_half(net)
