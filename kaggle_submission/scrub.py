"""SCRUB: a student goes away from the original's answers on the forget set and stays with them, and with the
labels, on the retain set, in turns. SCRUB+R then takes the turn after which the forget set was as hard as fresh
pictures.

Source: Kurmanji, Triantafillou, Hayes and Triantafillou, arXiv:2302.09880.

Reading: as in the source's code, its setting for small sets, cut to the time: fewer turns, each through a part of
the retain set, at one rate. For REWIND the validation error is weighted to the forget set's mix of classes.

Results: docs/methods/scrub.md, from results/*/scrub.json.
"""

import copy
from contextlib import contextmanager
from itertools import islice

import torch
from torch.nn import functional

# SETTINGS
ROUNDS = 3  # turns; the source has 10
AWAY_ROUNDS = 2  # of them go away from the teacher on the forget set first; the source has 3
ROUND = 0.5  # passes through the retain set in a turn; the source has 1
ALPHA = 0.5  # weight of the teacher on the retain set; the source's
GAMMA = 1.0  # weight of the labels there; the source's
TEMPERATURE = 2.0  # of teacher and student; the source's
REWIND = False  # True: SCRUB+R, which takes the turn whose forget error is nearest to the validation error
LR = 5e-4  # Adam; the source's, before it falls
WEIGHT_DECAY = 5e-4  # coupled, inside Adam; the source's for large sets, where small ones have 0.1

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
    """Return TEMPERATURE^2 KL(teacher || student), averaged over the batch, from logits."""
    p, q = (teacher / TEMPERATURE).log_softmax(dim=1), (student / TEMPERATURE).log_softmax(dim=1)
    return TEMPERATURE**2 * (p.exp() * (p - q)).sum(dim=1).mean()


def go_away(net, teacher, loader, optimizer):
    """Maximise the divergence on the forget set, in one pass."""
    for images, _ in passes(loader, 1, device_of(net)):
        with torch.no_grad():
            logits = teacher(images)
        descend(optimizer, -divergence(logits, net(images)))


def stay(net, teacher, loader, optimizer):
    """Minimise GAMMA cross-entropy + ALPHA divergence on the retain set, in a part of a pass."""
    for images, labels in passes(loader, ROUND, device_of(net)):
        with torch.no_grad():
            logits = teacher(images)
        student = net(images)
        loss = GAMMA * functional.cross_entropy(student, labels) + ALPHA * divergence(logits, student)
        descend(optimizer, loss)


@torch.no_grad()
def errors_by_class(net, loader):
    """Return the share of wrong answers and the number of pictures of each class, in eval mode."""
    n_classes, device = net.fc.out_features, device_of(net)
    wrong, number = torch.zeros(n_classes, device=device), torch.zeros(n_classes, device=device)
    net.eval()
    for batch in loader:
        images, labels = unpack(batch, device)
        number += torch.bincount(labels, minlength=n_classes)
        wrong += torch.bincount(labels[net(images).argmax(dim=1) != labels], minlength=n_classes)
    return wrong / number.clamp(min=1), number


def error_gap(net, forget_loader, val_loader):
    """Return |forget error - validation error at the forget set's mix of classes|."""
    forget_errors, mix = errors_by_class(net, forget_loader)
    val_errors, number = errors_by_class(net, val_loader)
    mix = mix * (number > 0)  # a class that validation does not have cannot be compared
    return (((forget_errors - val_errors) * mix).sum() / mix.sum().clamp(min=1)).abs().item()


def scrub(net, teacher, retain_loader, forget_loader, val_loader):
    """Take turns; with REWIND, end at the best of their ends."""
    optimizer = torch.optim.Adam(net.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    ends = []
    for number in range(ROUNDS):
        net.train()
        if number < AWAY_ROUNDS:
            go_away(net, teacher, forget_loader, optimizer)
        stay(net, teacher, retain_loader, optimizer)
        if REWIND:
            ends.append((error_gap(net, forget_loader, val_loader), copy.deepcopy(net.state_dict())))
    if REWIND:
        net.load_state_dict(min(ends, key=lambda end: end[0])[1])


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
    teacher = copy.deepcopy(net).eval()
    with all_or_nothing(net):
        scrub(net, teacher, retain_loader, forget_loader, val_loader)
