"""UNSIR for single pictures: find noise whose answers are far from those to the forget pictures, train on that
noise with labels of the retain set, and repair on the retain set.

Source: Tarun and others, arXiv:2111.08947; the instance form of Choi and Na, arXiv:2311.02240.

Reading: retain and forget batches go side by side until the forget set ends, as in the code of Choi and Na. Its
comment says that the noise becomes similar to the forget pictures; the loss, which we keep, makes it different.
Noise lies in the range of the pictures.

Results: docs/methods/unsir.md, from results/*/unsir.json.
"""

import copy
from contextlib import contextmanager
from itertools import islice

import torch
from torch.nn import functional

# SETTINGS
NOISE_STEPS = 5  # steps of Adam on the noise of a batch; the source's
NOISE_LR = 2.55  # of those; the source's 0.01 where pictures go from 0 to 1
PASSES = 1  # through the forget set in the first stage; the source's
LR = 1e-3  # SGD with momentum 0.9, of both stages; the source's
WEIGHT_DECAY = 5e-4  # of both stages
EPOCHS = 1.5  # passes through the retain set in the repair; the source takes 1

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


def distant_noise(net, images):
    """Return noise like the pictures in shape and range, moved so that its logits lie far from theirs."""
    noise = (255 * torch.rand_like(images)).requires_grad_(True)
    optimizer = torch.optim.Adam([noise], lr=NOISE_LR)
    with torch.no_grad():
        logits = net(images)
    for _ in range(NOISE_STEPS):
        optimizer.zero_grad()
        (noise.grad,) = torch.autograd.grad(-functional.mse_loss(net(noise), logits), noise)
        optimizer.step()
        with torch.no_grad():
            noise.clamp_(0, 255)
    return noise.detach()


def impair(net, retain_loader, forget_loader, optimizer):
    """Train on the noise with retain labels and on the retain pictures, side by side with the forget batches."""
    device = device_of(net)
    for _ in range(PASSES):
        pairs = zip(passes(retain_loader, 1, device), passes(forget_loader, 1, device), strict=False)
        for (images, labels), (to_forget, _) in pairs:
            n = min(len(images), len(to_forget))
            net.eval()
            noise = distant_noise(net, to_forget[:n])
            net.train()
            loss = functional.cross_entropy(net(noise), labels[:n]) + functional.cross_entropy(net(images), labels)
            descend(optimizer, loss)


def repair(net, loader, optimizer):
    """Minimise the cross-entropy over EPOCHS passes through the retain set."""
    net.train()
    for images, labels in passes(loader, EPOCHS, device_of(net)):
        descend(optimizer, functional.cross_entropy(net(images), labels))


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
    optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=0.9, weight_decay=WEIGHT_DECAY)
    with all_or_nothing(net):
        impair(net, retain_loader, forget_loader, optimizer)
        repair(net, retain_loader, optimizer)
