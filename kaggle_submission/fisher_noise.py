"""Fisher forgetting: add Gaussian noise to each weight, the more the less the weight matters to the retain set.
A short fine-tuning on the retain set follows.

Source: Golatkar, Achille and Soatto, arXiv:1911.04933; report, section 2.1 (described, not in its table).

Reading: the simple variant of Unlearn-Sparse, standard deviation min(sqrt(ALPHA / I_r), CAP), ten times that in
the last layer. The report's prose ties the noise to the importance for the forget set; the paper and its code
tie it to the retain set, which is what keeps the net useful. The tail is ours: it repairs what noise that is
strong enough to forget breaks.

Results: docs/methods/fisher_noise.md, from results/*/fisher_noise.json.
"""

import copy
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Subset

# SETTINGS
ALPHA = 3e-8  # noise variance of a weight of importance 1; the source's 0.2 puts every weight at the cap
CAP = 3e-2  # largest standard deviation; the source's 1e-3 hardly changes an answer on the built-in set
LAST_LAYER = 10.0  # factor on the standard deviation in net.fc; the source: in tensors whose last axis is 10
RETAIN_SAMPLE = 512  # random pictures behind I_r, anew in each run; None takes all, for an epoch's time
IMPORTANCE_BATCH = 32  # pictures behind one squared gradient; smaller is less noisy and slower (8: 2.5 times)
TAIL_EPOCHS = 1  # passes through the retain set after the noise; 0 is the source's method
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


def noise_scales(net, retain_importances):
    """Return the standard deviation of each weight's noise, a list of tensors shaped as the parameters."""
    last_layer = {id(parameter) for parameter in net.fc.parameters()}
    return [
        (ALPHA / importance).sqrt().clamp(max=CAP) * (LAST_LAYER if id(parameter) in last_layer else 1.0)
        for parameter, importance in zip(net.parameters(), retain_importances, strict=True)
    ]


@torch.no_grad()
def add_noise(net, scales):
    """Add Gaussian noise of the given standard deviations to the weights."""
    for parameter, scale in zip(net.parameters(), scales, strict=True):
        parameter += scale * torch.randn_like(parameter)


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
    weights = class_weights(net, retain_loader) if CLASS_WEIGHTS else None
    with all_or_nothing(net):
        add_noise(net, noise_scales(net, importances(net, retain_loader.dataset, RETAIN_SAMPLE)))
        finetune(net, retain_loader, nn.CrossEntropyLoss(weight=weights))
