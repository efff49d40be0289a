"""JiT, just in time unlearning: make the net's answers to forget pictures insensitive to small noise on them,
which flattens what was memorised around each. No retain picture and no label is needed.

Source: Foster, Fogarty, Schoepf, Oztireli and Brintrup, arXiv:2402.01401 (zero-shot, Lipschitz).

Reading: noise, and its length below the fraction, are in units of the pictures' own standard deviation, as the
source's pictures are normalised and ours go from 0 to 255. As in its code, the pictures of a batch are summed, the
noised answer is the constant one, and the gradient goes through the clean picture.

Results: docs/methods/jit.md, from results/*/jit.json.
"""

import copy
from contextlib import contextmanager

import torch
from torch import nn

# SETTINGS
NOISE = 0.1  # standard deviation, in units of the pictures' own; the source's
COPIES = 10  # noised copies of each picture; the source's
PASSES = 1  # through the forget set; the source's
FLATTEN_LR = 1e-3  # SGD; the source's
TAIL_EPOCHS = 0  # passes of fine-tuning on the retain set afterwards; 1 repairs and adds spread
LR = 1e-4  # of the tail: Adam, as in finetune.py
WEIGHT_DECAY = 5e-3  # of the tail

# METHOD


def roughness(net, images, noise, unit):
    """Return the sum over pictures of |f(x) - f(x + noise)| / |noise|, with `noise` in units of `unit`."""
    with torch.no_grad():
        noised = net(images + unit * noise)
    return ((net(images) - noised).norm(dim=1) / noise.flatten(1).norm(dim=1)).sum()


def flatten(net, loader):
    """Minimise the roughness over COPIES noises in PASSES passes; batch normalisation keeps its statistics."""
    optimizer = torch.optim.SGD(net.parameters(), lr=FLATTEN_LR)
    net.eval()
    for _ in range(PASSES):
        for batch in loader:
            images, _ = unpack(batch, device_of(net))
            unit = images.std().clamp(min=1)  # 1 for pictures of one colour
            noises = (NOISE * torch.randn_like(images) for _ in range(COPIES))
            descend(optimizer, sum(roughness(net, images, noise, unit) for noise in noises) / COPIES)


# SHARED: tail
def finetune(net, loader, criterion):
    """Minimise `criterion` over TAIL_EPOCHS passes through `loader`."""
    device = device_of(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    for _ in range(TAIL_EPOCHS):
        for batch in loader:
            images, labels = unpack(batch, device)
            net.train(len(labels) > 1)  # batch normalisation cannot use a single picture
            descend(optimizer, criterion(net(images), labels))
# END: tail


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
        flatten(net, forget_loader)
        finetune(net, retain_loader, nn.CrossEntropyLoss())
