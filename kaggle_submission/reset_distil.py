"""Reset and distil: draw the first and the last layer anew, warm them up on the validation set with the original
as teacher, then train on the retain set with labels and teacher together. The forget set is not used.

Source: Algorithmic Amnesiacs, sixth in the organisers' final list and "7th place" in the post's title, Kaggle
discussion 458740.

Reading: the teacher is the original in eval mode. KL at TEMPERATURE has no factor of its square, and soft
cross-entropy and KL have the same gradient, so that the teacher counts twice; both as in a port of the notebook.

Results: docs/methods/reset_distil.md, from results/*/reset_distil.json.
"""

import copy
from contextlib import contextmanager
from itertools import islice

import torch
from torch.nn import functional

# SETTINGS
TEMPERATURE = 5.0  # of teacher and student; the authors' choice
WARM_UP_ON = "all"  # validation pictures; "forget": of the forget set's classes, the authors' better private score
WARM_UP_EPOCHS = 1.4  # passes through the validation set; the authors' 3 of 30, scaled to the 14 of `quick`
WARM_UP_LR = 2.7e-2  # SGD with momentum 0.9; the authors' 9e-4, scaled as the rate of training is
EPOCHS = 1.4  # passes through the retain set; the authors' 3, scaled
LR = 3e-2  # SGD with momentum 0.9, falling to 0 by cosine; the authors' 1e-3, scaled
WEIGHT_DECAY = 5e-4  # the authors' choice

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


def divergence(teacher, student):
    """Return KL(teacher || student) at TEMPERATURE, averaged over the batch, from logits."""
    p, q = (teacher / TEMPERATURE).log_softmax(dim=1), (student / TEMPERATURE).log_softmax(dim=1)
    return (p.exp() * (p - q)).sum(dim=1).mean()


def soft_cross_entropy(teacher, student):
    """Return the cross-entropy of the student against the teacher's answers at TEMPERATURE, from logits."""
    p, q = (teacher / TEMPERATURE).softmax(dim=1), (student / TEMPERATURE).log_softmax(dim=1)
    return -(p * q).sum(dim=1).mean()


def joint_loss(teacher, student, labels):
    """Return cross-entropy + soft cross-entropy + KL: all have weight 1."""
    return (
        functional.cross_entropy(student, labels)
        + soft_cross_entropy(teacher, student)
        + divergence(teacher, student)
    )


def warm_up(net, teacher, loader, wanted):
    """Bring the net to the teacher's answers on validation pictures whose class is `wanted`, a mask of classes."""
    optimizer = torch.optim.SGD(net.parameters(), lr=WARM_UP_LR, momentum=0.9, weight_decay=WEIGHT_DECAY)
    net.train()
    for images, labels in passes(loader, WARM_UP_EPOCHS, device_of(net)):
        images = images[wanted[labels]]
        if len(images) > 1:  # batch normalisation cannot use a single picture
            with torch.no_grad():
                logits = teacher(images)
            descend(optimizer, divergence(logits, net(images)))


def train(net, teacher, loader):
    """Minimise the joint loss over EPOCHS passes through the retain set."""
    optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=0.9, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=n_steps(loader, EPOCHS))
    net.train()
    for images, labels in passes(loader, EPOCHS, device_of(net)):
        with torch.no_grad():
            logits = teacher(images)
        descend(optimizer, joint_loss(logits, net(images), labels))
        schedule.step()


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


def unlearning(net, retain_loader, forget_loader, val_loader):
    """Unlearn in place: see the top of the file."""
    net.to(memory_format=torch.channels_last)  # faster convolutions, the same weights
    counts = torch.bincount(labels_of(forget_loader.dataset), minlength=net.fc.out_features)
    wanted = {"all": counts >= 0, "forget": counts > 0}[WARM_UP_ON].to(device_of(net))
    teacher = copy.deepcopy(net).eval()
    with all_or_nothing(net):
        net.conv1.reset_parameters()
        net.fc.reset_parameters()
        warm_up(net, teacher, val_loader, wanted)
        train(net, teacher, retain_loader)
