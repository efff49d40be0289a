"""Random mask: zero each weight with probability one half and fine-tune on the retain set.

Source: songxinkuan's notebook "Machine-unlearning-random-mask"; 0.0937 on the private leaderboard, where it would
have been second.

Reading: all weights and biases but those of batch normalisation, which is told by the module's type.

Results: docs/methods/random_mask.md, from results/*/random_mask.json.
"""

import copy
from contextlib import contextmanager
from itertools import islice

import torch
from torch import nn
from torch.nn import functional

# SETTINGS
MASKED = 0.5  # probability of a weight to become 0; the author's choice
EPOCHS = 2  # passes through the retain set; the author's 5 of 30 are 2.3 of 14, which the limit cuts
LR = 3e-3  # Adam, falling to LAST_RATE by cosine; the author's 1e-4, scaled as the rate of training is
LAST_RATE = 3e-4  # the author's 1e-5, scaled
WEIGHT_DECAY = 1e-4  # coupled, inside Adam; the author's choice

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
def mask(net):
    """Zero each weight outside batch normalisation with probability MASKED."""
    for module in net.modules():
        if not isinstance(module, nn.BatchNorm2d):
            for parameter in module.parameters(recurse=False):
                parameter *= torch.rand_like(parameter) >= MASKED


def finetune(net, loader):
    """Minimise the cross-entropy over EPOCHS passes through `loader`."""
    device = device_of(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, T_max=n_steps(loader, EPOCHS), eta_min=LAST_RATE
    )
    net.train()
    for images, labels in passes(loader, EPOCHS, device):
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
        mask(net)
        finetune(net, retain_loader)
