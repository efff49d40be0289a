"""Forget-free cycles: draw a few random layers anew, then bring the net back to the original's logits on the
retain set, and again. The forget set is not used.

Source: team Forget (Jaesin Ahn and others), eighth in the organisers' final list and "9th place" in the post's
title, Kaggle discussion 458715 and their notebook; submission B.

Reading: layers are drawn with replacement, scales of batch normalisation among them, but for shortcuts and fc. The
original answers in eval mode. Pixel noise is drawn anew for each step; in the notebook it piles up in the data
set.

Results: docs/methods/forget_free_cycles.md, from results/*/forget_free_cycles.json.
"""

import copy
from contextlib import contextmanager
from itertools import islice

import torch
from torch.nn import functional

# SETTINGS
LAYERS = 6  # tensors drawn anew in each cycle, with replacement; the authors' choice
SCALE = 0.01  # standard deviation of the new weights; biases become 0; the authors' choice
PIXEL_NOISE = 0.1  # standard deviation, of pictures from 0 to 255; the authors' choice
CYCLES = (0.6, 0.3, 0.3, 0.3)  # passes through the retain set; the authors' 2, 1, 1, 1, cut to the limit
FIRST_RATE = 0.5  # factor on LR in the first half of the first cycle; the authors' first epoch
LR = 3e-2  # SGD with momentum 0.9; the authors' 1e-3, scaled as the rate of training is
WEIGHT_DECAY = 5e-4  # the authors' choice

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
def forget(net):
    """Draw LAYERS random tensors, with replacement, anew."""
    named = [
        (name, parameter)
        for name, parameter in net.named_parameters()
        if "downsample" not in name and not name.startswith("fc.")
    ]
    for index in torch.randint(len(named), (LAYERS,)):
        name, parameter = named[index]
        parameter.normal_(0, 0.0 if name.endswith("bias") else SCALE)


def remember(net, teacher, loader, optimizer, epochs, first):
    """Minimise the squared distance to the teacher's logits on retain pictures with PIXEL_NOISE."""
    n = n_steps(loader, epochs)
    net.train()
    for step, (images, _) in enumerate(passes(loader, epochs, device_of(net))):
        images = images + PIXEL_NOISE * torch.randn_like(images)
        with torch.no_grad():
            logits = teacher(images)
        optimizer.param_groups[0]["lr"] = LR * (FIRST_RATE if first and step < n / 2 else 1.0)
        descend(optimizer, functional.mse_loss(net(images), logits))


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
    teacher = copy.deepcopy(net).eval()
    optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=0.9, weight_decay=WEIGHT_DECAY)
    with all_or_nothing(net):
        for cycle, epochs in enumerate(CYCLES):
            forget(net)
            remember(net, teacher, retain_loader, optimizer, epochs, first=cycle == 0)
