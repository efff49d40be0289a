"""EU-k, exact unlearning of the last k stages: freeze the front of the net, draw its last K stages and fc anew and
train them on the retain set. What those held is forgotten for certain, and what the front holds is not.

Source: Goel and others, arXiv:2201.06640.

Reading: a stage is one of layer1 to layer4. The frozen stages stay in eval mode; the new ones need train mode, as
their running statistics are new too.

Results: docs/methods/eu_k.md, from results/*/eu_k.json.
"""

import copy
from contextlib import contextmanager
from itertools import islice

import torch
from torch import nn
from torch.nn import functional

# SETTINGS
K = 1  # stages that are drawn anew and trained, from the back
EPOCHS = 3  # passes through the retain set, at about half the price each; the source takes 10
LR = 3e-3  # Adam, falling to 0 by cosine; the rate of `quick`, as the layers are new
WEIGHT_DECAY = 5e-4  # coupled, inside Adam, as in `quick`

# METHOD
# SHARED: fresh
def draw_anew(modules):
    """Draw the weights of all given modules as torchvision does at the start of training."""
    for module in modules:
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
# END: fresh


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


# SHARED: last_stages
def last_stages(net):
    """Return the last K of the four stages, and fc."""
    return [*[net.layer1, net.layer2, net.layer3, net.layer4][4 - K :], net.fc]


@contextmanager
def frozen_but(net, modules):
    """Let gradients reach only the given modules, as long as the block lasts."""
    net.requires_grad_(False)
    for module in modules:
        module.requires_grad_(True)
    try:
        yield
    finally:
        net.requires_grad_(True)
# END: last_stages


def train(net, modules, loader):
    """Minimise the cross-entropy over EPOCHS passes, in the given modules."""
    parameters = [parameter for module in modules for parameter in module.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=LR, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=n_steps(loader, EPOCHS))
    net.eval()
    for module in modules:
        module.train()
    for images, labels in passes(loader, EPOCHS, device_of(net)):
        descend(optimizer, functional.cross_entropy(net(images), labels))
        schedule.step()


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

def unlearning(net, retain_loader, forget_loader, val_loader):
    """Unlearn in place: see the top of the file."""
    net.to(memory_format=torch.channels_last)  # faster convolutions, the same weights
    modules = last_stages(net)
    with all_or_nothing(net), frozen_but(net, modules):
        draw_anew(part for module in modules for part in module.modules())
        train(net, modules, retain_loader)
