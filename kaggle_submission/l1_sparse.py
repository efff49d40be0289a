"""l1-sparse fine-tuning: fine-tune on the retain set with a penalty on the size of all weights that fades out, so
that weights which only the forget set needs go to zero.

Source: Jia and others, arXiv:2304.04934.

Reading: the penalty falls linearly by the step, to nothing after the first FADED share of the steps; the source's
code lowers it by the epoch.

Results: docs/methods/l1_sparse.md, from results/*/l1_sparse.json.
"""

import copy
from contextlib import contextmanager
from itertools import islice

import torch
from torch import nn
from torch.nn import functional

# SETTINGS
ALPHA = 5e-4  # of the penalty at the start; the source's
FADED = 0.8  # share of the steps after which there is no penalty; the source ends it some epochs before the last
BATCH_NORM = True  # scales and shifts are in the penalty, as in the source; False: convolutions and fc alone
EPOCHS = 1.9  # passes through the retain set; the source takes 10
LR = 1e-2  # SGD with momentum 0.9; the source's
WEIGHT_DECAY = 5e-4  # the source's

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


def penalised(net):
    """Return the parameters that are in the penalty."""
    modules = [module for module in net.modules() if BATCH_NORM or not isinstance(module, nn.BatchNorm2d)]
    return [parameter for module in modules for parameter in module.parameters(recurse=False)]


def strength(progress):
    """Return ALPHA falling linearly to 0 at FADED; `progress` is the share of steps that are done."""
    return ALPHA * max(0.0, 1 - progress / FADED)


def sparse_loss(logits, labels, parameters, alpha):
    """Return cross-entropy + alpha times the sum of the absolute values of all parameters."""
    return functional.cross_entropy(logits, labels) + alpha * sum(p.abs().sum() for p in parameters)


def finetune(net, loader):
    """Minimise the loss over EPOCHS passes while the penalty fades."""
    parameters, n = penalised(net), n_steps(loader, EPOCHS)
    optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=0.9, weight_decay=WEIGHT_DECAY)
    net.train()
    for step, (images, labels) in enumerate(passes(loader, EPOCHS, device_of(net))):
        descend(optimizer, sparse_loss(net(images), labels, parameters, strength(step / n)))


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
        finetune(net, retain_loader)
