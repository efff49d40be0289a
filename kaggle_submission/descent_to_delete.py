"""Descent to delete: some steps of projected gradient descent on the retain set, then noise on the published
weights, as much as hides what the steps have not forgotten.

Source: Neel, Roth and Sharifi-Malvajerdi, arXiv:2007.02923, theorem 3.1 (ERM in the report's survey).

Reading: rate and noise follow from constants of a convex loss. A net's loss has none, so those here are taken for
granted, and nothing is certified. The ball of the projection is around the original, the noise is in units of each
tensor's standard deviation, and a step takes a part of the retain set.

Results: docs/methods/descent_to_delete.md, from results/*/descent_to_delete.json.
"""

import copy
import math
from contextlib import contextmanager
from itertools import islice

import torch
from torch.nn import functional

# SETTINGS
STEPS = 25  # the source's; each brings the weights nearer to the retrained ones
EPOCHS = 1.75  # passes through the retain set that all steps share; in the source each step takes one
SMOOTH = 39.5  # largest curvature; ten times the source's. The rate is 2 / (SMOOTH + STRONG), here 0.05
STRONG = 0.5  # smallest curvature; ten times the source's
LIPSCHITZ = 10.5  # largest slope; ten times the source's
EPSILON = 5.0  # what the noise would certify, were the loss convex; the source's. Larger: less noise
RADIUS = 0.1  # of the ball that steps stay in, as a share of the length of the weights
WEIGHT_DECAY = 5e-4  # as in `quick`

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


def noise_scale(n_pictures):
    """Return the standard deviation of the noise that hides one of `n_pictures` after STEPS steps."""
    left = ((SMOOTH - STRONG) / (SMOOTH + STRONG)) ** STEPS
    log = 2 * math.log(n_pictures)  # of 1 / delta, delta = 1 / n^2
    privacy = math.sqrt(log + EPSILON) - math.sqrt(log)
    return 4 * math.sqrt(2) * LIPSCHITZ * left / (STRONG * n_pictures * (1 - left) * privacy)


def accumulate(net, batches):
    """Leave the gradient of the mean loss over all pictures of some batches in the net."""
    n_pictures = sum(len(labels) for _, labels in batches)
    net.zero_grad()
    for images, labels in batches:
        (functional.cross_entropy(net(images), labels, reduction="sum") / n_pictures).backward()


@torch.no_grad()
def project(parameters, start):
    """Move the parameters to the nearest point of the ball around `start`."""
    length = torch.cat([tensor.flatten() for tensor in start]).norm()
    away = torch.cat([(now - old).flatten() for now, old in zip(parameters, start, strict=True)]).norm()
    share = (RADIUS * length / away.clamp(min=1e-12)).clamp(max=1)
    for now, old in zip(parameters, start, strict=True):
        now.copy_(old.lerp(now, share))


def descend_in_ball(net, loader):
    """Take STEPS steps down the loss on parts of the retain set, each projected on the ball around the start."""
    parameters = list(net.parameters())
    start = [parameter.detach().clone() for parameter in parameters]
    optimizer = torch.optim.SGD(parameters, lr=2 / (SMOOTH + STRONG), weight_decay=WEIGHT_DECAY)
    n, batches = n_steps(loader, EPOCHS), passes(loader, EPOCHS, device_of(net))
    for step in range(STEPS):
        part = list(islice(batches, n * (step + 1) // STEPS - n * step // STEPS))
        if part:
            accumulate(net, part)
            optimizer.step()
            project(parameters, start)


@torch.no_grad()
def publish(net, scale):
    """Add Gaussian noise of `scale` standard deviations of each tensor to the weights."""
    for parameter in net.parameters():
        parameter += scale * parameter.std(correction=0) * torch.randn_like(parameter)


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
        net.train()
        descend_in_ball(net, retain_loader)
        publish(net, noise_scale(len(retain_loader.dataset)))
