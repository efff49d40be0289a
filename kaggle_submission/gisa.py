"""GISA: fine-tune on a ratio of retain and forget losses, with a larger step for each parameter tensor that
matters more to the forget set than to the retain set.

Source: report, section 4.5: equation 11 (learning rates), 12 (loss R^2 / (F + epsilon)) and 13 (update).

Reading: the "parameter" of equation 11 is a tensor of the net, for the mean in it needs elements to run over.
The step grows with I_f / I_r, as the equation says and as in Newton's method; the text's "dampened" would
shrink it. The update is Adam's (section 5.4), so a factor scales the update and not the gradient, which Adam
would undo. The forget set starts again as often as the retain set needs it, and passes in train mode too.
Importances are squared gradients of small batches: torch.func's gradient of each picture takes seven times as
long on a CPU.

Results: docs/methods/gisa.md, from results/*/gisa.json.
"""

import copy
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Subset

# SETTINGS
ADAPT = "tensor"  # "element": a factor for each weight, no mean; "dampened": 1 / factor of the tensor; "none": 1
EPSILON = 1e-8  # of equation 12, "small" there; 0.1 keeps R^2 / F from exploding where the forget set is memorised
PAIRING = "cycle"  # "zip": an epoch ends with the forget set, after a few steps, so that it is ascended once
FORGET_MODE = "train"  # of batch normalisation, as for retain batches; "eval": old statistics, ruinous on MUFAC
RETAIN_SAMPLE = 256  # random pictures behind I_r, anew in each run; None takes all, for an epoch's time
IMPORTANCE_BATCH = 32  # pictures behind one squared gradient; smaller is less noisy and slower (8: 2.5 times)
IMPORTANCE_EPSILON = 1e-12  # of equation 11; squared gradients are often 1e-10, which 1e-8 would mute
EPOCHS = 1  # passes through the retain set; a paired step takes nearly two of fine-tuning
LR = 1e-4  # Adam; the report's choice for MUFAC; eta_base of equation 11
DECAY = False  # True: LR falls to 0 by cosine over all steps; the report does not say
WEIGHT_DECAY = 5e-3  # coupled, inside Adam, as in the report
CLASS_WEIGHTS = False  # True: weigh R and F by n / (n_classes * n_of_class), from the retain labels

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


def learning_rate_factors(forget_importances, retain_importances):
    """Return eta_i / eta_base of equation 11: a number or a tensor for each parameter tensor, as ADAPT says."""
    factor_of = {
        "tensor": lambda excess: 1 + excess.mean(),
        "element": lambda excess: 1 + excess,
        "dampened": lambda excess: 1 / (1 + excess.mean()),
        "none": lambda excess: torch.ones_like(excess.mean()),
    }[ADAPT]
    return [
        factor_of(torch.log(forget / (retain + IMPORTANCE_EPSILON)).clamp(min=0))
        for forget, retain in zip(forget_importances, retain_importances, strict=True)
    ]


def joint_loss(retain_loss, forget_loss):
    """Return R^2 / (F + epsilon): equation 12."""
    return retain_loss**2 / (forget_loss + EPSILON)


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


def adjust(net, retain_loader, forget_loader, criterion, factors):
    """Minimise the joint loss over EPOCHS passes of paired batches; scale each update by its factor."""
    device = device_of(net)
    parameters = list(net.parameters())
    optimizer = torch.optim.Adam(parameters, lr=LR, weight_decay=WEIGHT_DECAY)
    passes = {"cycle": len(retain_loader), "zip": min(len(retain_loader), len(forget_loader))}[PAIRING]
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, T_max=EPOCHS * passes, eta_min=0 if DECAY else LR
    )
    for _ in range(EPOCHS):
        for retain_batch, forget_batch in pairs(retain_loader, forget_loader):
            images, labels = unpack(retain_batch, device)
            net.train(len(labels) > 1)  # batch normalisation cannot use a single picture
            retain_loss = criterion(net(images), labels)
            images, labels = unpack(forget_batch, device)
            net.train({"train": len(labels) > 1, "eval": False}[FORGET_MODE])
            forget_loss = criterion(net(images), labels)
            before = [parameter.detach().clone() for parameter in parameters]
            descend(optimizer, joint_loss(retain_loss, forget_loss))
            schedule.step()
            with torch.no_grad():
                for parameter, old, factor in zip(parameters, before, factors, strict=True):
                    parameter.copy_(old.lerp(parameter, factor))


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
        factors = learning_rate_factors(
            importances(net, forget_loader.dataset), importances(net, retain_loader.dataset, RETAIN_SAMPLE)
        )
        adjust(net, retain_loader, forget_loader, nn.CrossEntropyLoss(weight=weights), factors)
