"""ASSD, adaptive selective synaptic dampening: SSD that dampens a share of the weights which the size of the
forget set fixes, so that no threshold has to be found. Nothing is trained.

Source: Schoepf, Foster and Brintrup, arXiv:2402.10098.

Reading: the threshold is the percentile 100 - ln(1 + 100 n_f / n) of the finite ratios I_f / I_D over all weights,
with I_D = (n_r I_r + n_f I_f) / n. A re-implementation takes 99 for the threshold where no ratio is finite; ours
dampens nothing then. I_r comes from another random sample in each run, as in ssd.py.

Results: docs/methods/assd.md, from results/*/assd.json.
"""

import copy
import math
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Subset

# SETTINGS
LAMBDA = 1.0  # strength; the source's choice
RETAIN_SAMPLE = 512  # random pictures behind I_r, anew in each run; None takes all: an epoch's time, less spread
IMPORTANCE_BATCH = 32  # pictures behind one squared gradient; smaller is less noisy and slower
TAIL_EPOCHS = 0  # passes of fine-tuning after dampening; 1 repairs what a strong dampening breaks, and adds spread
LR = 1e-4  # of the tail: Adam, as in finetune.py
WEIGHT_DECAY = 5e-3  # of the tail

# METHOD
# SHARED: importances
def importances(net, dataset, n=None):
    """Return the empirical Fisher diagonal over `n` random pictures, a list of tensors shaped as the parameters.

    It is the sum over batches of the squared gradient of the summed loss, over `n`. While gradients at the optimum
    average to zero, its expectation does not depend on the batch size, and a ragged last batch does no harm.
    """
    device = device_of(net)
    parameters = list(net.parameters())
    rows = torch.randperm(len(dataset))[:n].tolist()
    totals = [torch.zeros_like(parameter) for parameter in parameters]
    net.eval()
    for batch in DataLoader(Subset(dataset, rows), batch_size=IMPORTANCE_BATCH):
        images, labels = unpack(batch, device)
        loss = functional.cross_entropy(net(images), labels, reduction="sum")
        for total, gradient in zip(totals, torch.autograd.grad(loss, parameters), strict=True):
            total += gradient.square()
    return [total / len(rows) for total in totals]
# END: importances


def dampened_share(n_forget, n):
    """Return the share of weights to dampen: ln(1 + percent to forget) percent."""
    return math.log(1 + 100 * n_forget / n) / 100


@torch.no_grad()
def dampen(net, forget_importances, retain_importances, n_forget, n_retain):
    """Multiply the weights with the largest I_f / I_D by min(LAMBDA * I_D / I_f, 1)."""
    n = n_forget + n_retain
    pairs = zip(forget_importances, retain_importances, strict=True)
    wholes = [(n_forget * forget + n_retain * retain) / n for forget, retain in pairs]
    ratios = [forget / whole for forget, whole in zip(forget_importances, wholes, strict=True)]
    finite = torch.cat([ratio[ratio.isfinite()] for ratio in ratios])
    dampened = math.ceil(dampened_share(n_forget, n) * len(finite))
    if not dampened:
        return
    limit = finite.topk(dampened).values[-1]
    for parameter, ratio in zip(net.parameters(), ratios, strict=True):
        factor = (LAMBDA / ratio).clamp(max=1)
        parameter.mul_(torch.where(ratio.isfinite() & (ratio >= limit), factor, 1.0))


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
    forget, retain = forget_loader.dataset, retain_loader.dataset
    with all_or_nothing(net):
        forget_importances = importances(net, forget)
        dampen(net, forget_importances, importances(net, retain, RETAIN_SAMPLE), len(forget), len(retain))
        finetune(net, retain_loader, nn.CrossEntropyLoss())
