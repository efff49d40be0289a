"""Plain NegGrad: ascend the loss on the forget set, and nothing else. A tail of fine-tuning on the retain set is a
setting.

Source: Golatkar, Achille and Soatto, arXiv:1911.04933 (as a baseline); Choi and Na, arXiv:2311.02240.

Reading: SGD without momentum, the forget set over and over, as in the code of Choi and Na. The number of passes is
a setting of its own; theirs is that of the retain set's batches.

Results: docs/methods/neggrad_plain.md, from results/*/neggrad_plain.json.
"""

import copy
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional

# SETTINGS
ASCENTS = 5  # passes through the forget set; the loss has no bound, so many end in chance answers
ASCENT_LR = 1e-3  # SGD without momentum; the choice of Choi and Na
BOUND = 10.0  # no ascent from a batch whose loss is above it; the source has no bound
TAIL_EPOCHS = 0  # passes of fine-tuning on the retain set afterwards; 1 repairs and adds spread
LR = 1e-4  # of the tail: Adam, as in finetune.py
WEIGHT_DECAY = 5e-3  # of the tail

# METHOD


def ascend(net, loader):
    """Maximise the cross-entropy in ASCENTS passes through `loader`."""
    optimizer = torch.optim.SGD(net.parameters(), lr=ASCENT_LR)
    for _ in range(ASCENTS):
        for batch in loader:
            images, labels = unpack(batch, device_of(net))
            net.train(len(labels) > 1)  # batch normalisation cannot use a single picture
            descend(optimizer, -functional.cross_entropy(net(images), labels).clamp(max=BOUND))


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
        ascend(net, forget_loader)
        finetune(net, retain_loader, nn.CrossEntropyLoss())
