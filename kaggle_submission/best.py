"""Borrowed confidence: a net whose back is drawn anew and trained shortly on the retain set foretells how sure a
retrained model is of each forget picture; the original is fine-tuned to be as sure, and right on the retain set.

Source: our own idea, to beat the other entries under the official metric.

Results: docs/methods/best.md, from results/*/best.json.
"""

import copy
from contextlib import contextmanager
from itertools import islice

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

# SETTINGS
K = 3  # stages of the fresh net that are drawn anew, from the back; what is in front stays the original's
FRESH_EPOCHS = 1.2  # passes of the fresh net through the retain set
FRESH_LR = 3e-3  # Adam, the largest rate of one cycle; as in `quick`
FRESH_WEIGHT_DECAY = 5e-4  # coupled, inside Adam, as in `quick`
EPOCHS = 0.8  # passes of the original through the retain set
LR = 3e-4  # Adam
FORGET_BATCH = 16  # forget pictures beside each retain batch, in one forward pass
FORGET_SHARE = 0.5  # weight of the forget pictures' loss; the retain pictures' has 1
NOISE = 0.7  # share of the residual deviation that each run draws; the fresh net and the fit add the rest
FEWEST = 16  # validation pictures; with fewer, the fresh net's confidences are taken as they are

# METHOD
# SHARED: fresh
def draw_anew(modules):
    """Draw the weights of all given modules as torchvision does at the start of training."""
    for module in modules:
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
# END: fresh


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


# SHARED: last_stages
def last_stages(net):
    """Return the last K of the four stages, and fc."""
    return [*[net.layer1, net.layer2, net.layer3, net.layer4][4 - K :], net.fc]


@contextmanager
def frozen_but(net, modules):
    """Let gradients reach only the given modules, as long as the block lasts."""
    net.requires_grad_(False)
    for module in modules:
        module.requires_grad_(True)
    try:
        yield
    finally:
        net.requires_grad_(True)
# END: last_stages


def confidence(logits, labels):
    """Return ln p - ln(1 - p) of the true classes, ``[B]``: the confidence that the metric compares."""
    true = functional.one_hot(labels, logits.shape[1]).bool()
    return logits[true] - logits.masked_fill(true, -torch.inf).logsumexp(dim=1)


@torch.no_grad()
def confidences(net, batches):
    """Return the confidences of the net in eval mode on all pictures of the batches, ``[n]``."""
    net.eval()
    return torch.cat([confidence(net(images), labels) for images, labels in batches])


def drawn(found, ours, theirs):
    """Draw what `theirs` would be where ours is `found`, from the regression of `theirs` on `ours`, ``[n]``."""
    off = ours - ours.mean()
    slope = (off * theirs).sum() / off.square().sum()
    residual = (theirs - theirs.mean() - slope * off).std()
    return theirs.mean() + slope * (found - ours.mean()) + NOISE * residual * torch.randn_like(found)


def train_anew(net, loader):
    """Draw the last K stages and fc anew and train them on the retain set; what is in front stays as it is."""
    new = last_stages(net)
    for module in new:
        draw_anew(module.modules())
    with frozen_but(net, new):
        parameters = [parameter for module in new for parameter in module.parameters()]
        optimizer = torch.optim.Adam(parameters, lr=FRESH_LR, weight_decay=FRESH_WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, FRESH_LR, total_steps=n_steps(loader, FRESH_EPOCHS) + 1, cycle_momentum=False
        )
        net.eval()
        for module in new:
            module.train()
        for images, labels in passes(loader, FRESH_EPOCHS, device_of(net)):
            descend(optimizer, functional.cross_entropy(net(images), labels))
            schedule.step()


def targets(net, forget, retain_loader, val_loader):
    """Return the confidence that each forget picture should get, ``[n_forget]``; each call draws other ones.

    Neither net has seen the validation pictures: there the original is as sure as a fully trained net is of new
    pictures, and shows how that follows from the confidences of the fresh net.
    """
    fresh = copy.deepcopy(net)
    train_anew(fresh, retain_loader)
    found = confidences(fresh, forget)
    if len(val_loader.dataset) < FEWEST:
        return found
    unseen = [unpack(batch, device_of(net)) for batch in val_loader]
    return drawn(found, confidences(fresh, unseen), confidences(net, unseen))


def fit(net, forget, wanted, retain_loader):
    """Fine-tune for EPOCHS passes: cross-entropy on the retain set, the wanted confidences on the forget set."""
    images, labels = map(torch.cat, zip(*forget, strict=True))
    optimizer = torch.optim.Adam(net.parameters(), lr=LR)
    queue = torch.empty(0, dtype=torch.int64)
    net.train()
    for retain_images, retain_labels in passes(retain_loader, EPOCHS, device_of(net)):
        while len(queue) < FORGET_BATCH:
            queue = torch.cat([queue, torch.randperm(len(labels))])
        rows, queue = queue[:FORGET_BATCH], queue[FORGET_BATCH:]
        logits = net(torch.cat([retain_images, images[rows]]))
        found = confidence(logits[len(retain_labels) :], labels[rows])
        loss = functional.cross_entropy(logits[: len(retain_labels)], retain_labels)
        descend(optimizer, loss + FORGET_SHARE * functional.smooth_l1_loss(found, wanted[rows]))


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
        forget = [unpack(batch, device_of(net)) for batch in DataLoader(forget_loader.dataset, batch_size=64)]
        fit(net, forget, targets(net, forget, retain_loader, val_loader), retain_loader)
