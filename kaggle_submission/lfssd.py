"""LFSSD, label-free selective synaptic dampening: SSD with importances from the size of the outputs and not from
the loss, so that no label is needed. Nothing is trained.

Source: Foster, Schoepf and Brintrup, arXiv:2402.19308.

Reading: an importance is the mean absolute gradient of the mean squared output. That is the square root of what
SSD has, so ALPHA is the root of SSD's 10. I_r comes from another random sample in each run, as in ssd.py.

Results: docs/methods/lfssd.md, from results/*/lfssd.json.
"""

import copy
from contextlib import contextmanager

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

# SETTINGS
ALPHA = 3.2  # dampen where I_f > ALPHA * I_r; the root of SSD's 10
LAMBDA = 1.0  # strength; the source's choice
RETAIN_SAMPLE = 512  # random pictures behind I_r, anew in each run; None takes all: an epoch's time, less spread
IMPORTANCE_BATCH = 32  # pictures behind one gradient; smaller is less noisy and slower
TAIL_EPOCHS = 0  # passes of fine-tuning after dampening; 1 repairs what a strong dampening breaks, and adds spread
LR = 1e-4  # of the tail: Adam, as in finetune.py
WEIGHT_DECAY = 5e-3  # of the tail

# METHOD


def output_importances(net, dataset, n=None):
    """Return the mean over batches of |gradient of the mean squared output|, over `n` random pictures.

    The result is a list of tensors shaped as the parameters. A batch counts as many times as it has pictures.
    """
    parameters = list(net.parameters())
    rows = torch.randperm(len(dataset))[:n].tolist()
    totals = [torch.zeros_like(parameter) for parameter in parameters]
    net.eval()
    for batch in DataLoader(Subset(dataset, rows), batch_size=IMPORTANCE_BATCH):
        images, _ = unpack(batch, device_of(net))
        size = net(images).square().sum(dim=1).mean()
        for total, gradient in zip(totals, torch.autograd.grad(size, parameters), strict=True):
            total += len(images) * gradient.abs()
    return [total / len(rows) for total in totals]


@torch.no_grad()
def dampen(net, forget_importances, retain_importances):
    """Multiply each weight with I_f > ALPHA * I_r by min(LAMBDA * I_r / I_f, 1)."""
    for parameter, forget, retain in zip(net.parameters(), forget_importances, retain_importances, strict=True):
        factor = (LAMBDA * retain / forget).clamp(max=1)
        parameter.mul_(torch.where(forget > ALPHA * retain, factor, 1.0))


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
        forget_importances = output_importances(net, forget_loader.dataset)
        dampen(net, forget_importances, output_importances(net, retain_loader.dataset, RETAIN_SAMPLE))
        finetune(net, retain_loader, nn.CrossEntropyLoss())
