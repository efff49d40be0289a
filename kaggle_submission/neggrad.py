"""Advanced NegGrad: descend the loss on the retain set and, in the same step, ascend it on the forget set.

Source: report, section 4.2, equation 2 (L = R - lambda F); Choi and Na, arXiv:2311.02240, use lambda = 1.

Reading: each retain batch is paired with a forget batch, and the forget set starts again as often as the retain
set needs it, and both pass in train mode (the benchmark of Choi and Na). With PAIRING = "cycle", lambda = 0 gives
the weights of fine-tuning; FORGET_MODE = "eval" its batch normalisation as well.

Results: docs/methods/neggrad.md, from results/*/neggrad.json.
"""

import copy
import math
from contextlib import contextmanager

import torch
from torch import nn

# SETTINGS
LAMBDA = 0.1  # strength of the ascent; the report's choice for MUFAC
PAIRING = "cycle"  # "zip": an epoch ends with the forget set, after a few steps, so that it is ascended once
FORGET_MODE = "train"  # of batch normalisation, as for retain batches; "eval": old statistics, ruinous on MUFAC
CAP = False  # True: ascend no forget batch above the original's mean validation loss; F alone has no bound
EPOCHS = 1  # passes through the retain set; a paired step takes nearly two of fine-tuning
LR = 1e-4  # Adam; the report's choice for MUFAC
WEIGHT_DECAY = 5e-3  # coupled, inside Adam, as in the report
CLASS_WEIGHTS = False  # True: weigh R and F by n / (n_classes * n_of_class), from the retain labels

# METHOD
# SHARED: pairs
def pairs(retain_loader, forget_loader):
    """Yield retain and forget batches side by side, for as long as PAIRING says."""
    forget_batches = {"cycle": cycle(forget_loader), "zip": forget_loader}[PAIRING]
    return zip(retain_loader, forget_batches, strict=False)


def cycle(loader):
    """Yield the batches of `loader` without end, shuffled anew in each pass.

    Raises:
        ValueError: it has none.
    """
    if len(loader) == 0:
        raise ValueError("The forget loader has no batch: is its data set smaller than a batch, and drop_last on?")
    while True:
        yield from loader
# END: pairs


def joint_loss(retain_loss, forget_loss, cap):
    """Return R - lambda min(F, cap): equation 2, and no more ascent from a batch above the cap."""
    return retain_loss - LAMBDA * forget_loss.clamp(max=cap)


@torch.no_grad()
def mean_loss(net, loader, criterion):
    """Return the loss over `loader` in eval mode, averaged over batches."""
    net.eval()
    batches = (unpack(batch, device_of(net)) for batch in loader)
    return torch.stack([criterion(net(images), labels) for images, labels in batches]).mean().item()


def ascend_and_descend(net, retain_loader, forget_loader, criterion, cap):
    """Minimise the joint loss over EPOCHS passes of paired batches."""
    device = device_of(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    for _ in range(EPOCHS):
        for retain_batch, forget_batch in pairs(retain_loader, forget_loader):
            images, labels = unpack(retain_batch, device)
            net.train(len(labels) > 1)  # batch normalisation cannot use a single picture
            retain_loss = criterion(net(images), labels)
            images, labels = unpack(forget_batch, device)
            net.train({"train": len(labels) > 1, "eval": False}[FORGET_MODE])
            forget_loss = criterion(net(images), labels)
            descend(optimizer, joint_loss(retain_loss, forget_loss, cap))


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
# SHARED: class_weights
def class_weights(net, loader):
    """Return n / (n_classes * n_of_class) of each class, on the net's device; no picture counts as one."""
    n_classes = net.fc.out_features
    counts = torch.bincount(labels_of(loader.dataset), minlength=n_classes).clamp(min=1)
    return (len(loader.dataset) / (n_classes * counts)).to(device_of(net))
# END: class_weights


def unlearning(net, retain_loader, forget_loader, val_loader):
    """Unlearn in place: see the top of the file."""
    net.to(memory_format=torch.channels_last)  # faster convolutions, the same weights
    weights = class_weights(net, retain_loader) if CLASS_WEIGHTS else None
    with all_or_nothing(net):
        criterion = nn.CrossEntropyLoss(weight=weights)
        cap = mean_loss(net, val_loader, criterion) if CAP else math.inf
        ascend_and_descend(net, retain_loader, forget_loader, criterion, cap)
