"""Boundary shrink: give each forget picture the label of the nearest other class, found by one adversarial step on
the original, and fine-tune on the forget set.

Source: Chen and others, arXiv:2303.11570.

Reading: the attack is a step of 0.1 of the range of values along the sign of the gradient, without rounding. Where
the answer stays the true class, the second best is taken. The source's rate is for many pictures of one class;
ours is larger, as the forget set is small. The tail is ours.

Results: docs/methods/boundary_shrink.md, from results/*/boundary_shrink.json.
"""

import copy
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional

# SETTINGS
STEP = 0.1  # of the attack, as a share of the range of values, 0 to 255; the source's
PASSES = 10  # through the forget set; the source's
SHRINK_LR = 1e-4  # SGD with momentum 0.9; the source has 1e-5 for whole classes
TAIL_EPOCHS = 0  # passes of fine-tuning on the retain set afterwards; 1 repairs and adds spread
LR = 1e-4  # of the tail: Adam, as in finetune.py
WEIGHT_DECAY = 5e-3  # of the tail

# METHOD


def nearest_other_class(original, images, labels):
    """Return the original's answer to each picture after one step of attack, the true class excluded."""
    images = images.clone().requires_grad_(True)
    loss = functional.cross_entropy(original(images), labels)
    (gradient,) = torch.autograd.grad(loss, images)
    with torch.no_grad():
        logits = original((images + STEP * 255 * gradient.sign()).clamp(0, 255))
        return logits.scatter(1, labels[:, None], -torch.inf).argmax(dim=1)


def shrink(net, original, loader):
    """Minimise the cross-entropy towards the nearest other class, in PASSES passes through the forget set."""
    optimizer = torch.optim.SGD(net.parameters(), lr=SHRINK_LR, momentum=0.9)
    for _ in range(PASSES):
        for batch in loader:
            images, labels = unpack(batch, device_of(net))
            wanted = nearest_other_class(original, images, labels)
            net.train(len(labels) > 1)  # batch normalisation cannot use a single picture
            descend(optimizer, functional.cross_entropy(net(images), wanted))


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
    original = copy.deepcopy(net).eval()
    with all_or_nothing(net):
        shrink(net, original, forget_loader)
        finetune(net, retain_loader, nn.CrossEntropyLoss())
