"""SSD, selective synaptic dampening: shrink the weights that matter much more to the forget set than to the
rest, by the ratio of the two importances. Nothing is trained.

Source: Foster, Schoepf and Brintrup, arXiv:2308.07707; report, section 4.4 and Algorithm 2.

Reading: Algorithm 2, which multiplies theta by min(lambda I_r / I_f, 1); equations 9 and 10 have a second theta
inside the minimum, and the sign would be lost. Importances are squared gradients of the loss of the true label,
over small batches: torch.func's gradient of each picture takes seven times as long on a CPU. Dampening with the
whole retain set maps one net to nearly one net, and the metric gives nothing to models without spread: I_r
comes from another random sample in each run.

Results: docs/methods/ssd.md, from results/*/ssd.json.
"""

import copy
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Subset

# SETTINGS
ALPHA = 10.0  # dampen where I_f > ALPHA * reference; the report's and the paper's choice
LAMBDA = 1.0  # strength; the paper's choice. The report's 0.1 multiplies by 0.01 or less, which is pruning
REFERENCE = "retain"  # I_r, as in the report; "train": I_D = (n_r I_r + n_f I_f) / n, as in the paper
BATCH_NORM = True  # dampen scales and shifts too, as the paper's code does; False: convolutions and fc alone
RETAIN_SAMPLE = 512  # random pictures behind I_r, anew in each run; None takes all: an epoch's time, less spread
IMPORTANCE_BATCH = 32  # pictures behind one squared gradient; smaller is less noisy and slower (8: 2.5 times)
TAIL_EPOCHS = 0  # passes of fine-tuning after dampening; 1 repairs what a strong dampening breaks, and adds spread
LR = 1e-4  # of the tail: Adam, as in finetune.py
WEIGHT_DECAY = 5e-3  # of the tail
CLASS_WEIGHTS = False  # True: the tail's loss is weighted by n / (n_classes * n_of_class), from the retain labels

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


def reference_importances(forget_importances, retain_importances, n_forget, n_retain):
    """Return I_r, or the importances over the whole training set, as REFERENCE says."""
    share = {"retain": 0.0, "train": n_forget / (n_forget + n_retain)}[REFERENCE]
    return [share * f + (1 - share) * r for f, r in zip(forget_importances, retain_importances, strict=True)]


@torch.no_grad()
def dampen(net, forget_importances, reference):
    """Multiply each weight with I_f > ALPHA * I by min(LAMBDA * I / I_f, 1): Algorithm 2."""
    spared = {
        id(parameter)
        for module in net.modules()
        if isinstance(module, nn.BatchNorm2d) and not BATCH_NORM
        for parameter in module.parameters()
    }
    for parameter, forget, other in zip(net.parameters(), forget_importances, reference, strict=True):
        if id(parameter) not in spared:
            factor = (LAMBDA * other / forget).clamp(max=1)
            parameter.mul_(torch.where(forget > ALPHA * other, factor, 1.0))


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
    weights = class_weights(net, retain_loader) if CLASS_WEIGHTS and TAIL_EPOCHS else None
    forget, retain = forget_loader.dataset, retain_loader.dataset
    with all_or_nothing(net):
        forget_importances = importances(net, forget)
        retain_importances = importances(net, retain, RETAIN_SAMPLE)
        dampen(
            net,
            forget_importances,
            reference_importances(forget_importances, retain_importances, len(forget), len(retain)),
        )
        finetune(net, retain_loader, nn.CrossEntropyLoss(weight=weights))
