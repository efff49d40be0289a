"""Short retraining: throw the original model away and train a fresh one on the retain set for as long as the limit
allows. It has seen nothing that is to be forgotten, and shows what the time alone buys.

Source: the definition of unlearning; our reference row.

Results: docs/methods/retrain_short.md, from results/*/retrain_short.json.
"""

import copy
from contextlib import contextmanager
from itertools import islice

import torch
from torch import nn
from torch.nn import functional

# SETTINGS
EPOCHS = 2  # passes through the retain set; more than 2.8 of `quick` are over the limit
LR = 3e-3  # Adam, the largest rate of one cycle; as in `quick`
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


def train(net, loader):
    """Minimise the cross-entropy over EPOCHS passes, the rate going up and down in one cycle."""
    optimizer = torch.optim.Adam(net.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LR, total_steps=n_steps(loader, EPOCHS) + 1, cycle_momentum=False
    )
    net.train()
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
    with all_or_nothing(net):
        draw_anew(net.modules())
        train(net, retain_loader)
