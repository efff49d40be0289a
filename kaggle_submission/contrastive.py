"""Contrastive fine-tuning: flatten the outputs on the forget set, then alternate between making each forget
picture equally similar to all retain pictures and fine-tuning on the retain set.

Source: fanchuan, first in the organisers' final list and "2nd place" in the post's title, Kaggle discussion
458721; report, section 6.1.2.

Reading: the author's code and not the report's formulas. Features are the logits, similarity is their dot
product without normalisation, and of the two contrastive losses only the second was submitted. Its gradient on
a similarity is softmax - 1/n: it evens out similarities and does not push forget pictures away. The net stays
in train mode, also where the retain logits are not differentiated, but for a batch of one picture and what is
paired with it. The author's 8 epochs take more than a fifth of the retraining time here.

Results: docs/methods/contrastive.md, from results/*/contrastive.json.
"""

import copy
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

# SETTINGS
RECIPE = "fanchuan"  # SGD with the rates below; "report": Adam 1e-4, weight decay 5e-3 (section 5.4)
EPOCHS = 2  # pairs of rounds; the author takes 8, the `report` recipe's time limit allows 5, `quick` allows 2
TEMPERATURE = 1.15  # the author's
RETAIN_BATCH = 256  # the author's best; also the number of retain pictures that a forget batch is compared with
FLATTEN_LR = 5e-3  # SGD of the first stage; the rates have no part in "report", the cosine has
FORGET_LR = 3e-4  # SGD of the forget rounds, falling to 1e-6 by cosine over all of them
RETAIN_LR = 1e-3  # SGD of the retain rounds, for a batch of 64; it grows with the batch
RETAIN_WEIGHT_DECAY = 1e-2  # of the retain rounds
CLASS_WEIGHTS = False  # True: retain rounds weighted by n / (n_classes * n_of_class), from the retain labels

# METHOD


def optimizer_for(net, lr, weight_decay=0.0):
    """Return the optimiser of one part of the method, as RECIPE says."""
    return {
        "fanchuan": torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9, weight_decay=weight_decay),
        "report": torch.optim.Adam(net.parameters(), lr=1e-4, weight_decay=5e-3),
    }[RECIPE]


def uniform_loss(logits):
    """Return KL(uniform || softmax(logits)), averaged over the batch."""
    uniform = torch.full_like(logits, 1 / logits.shape[1])
    return functional.kl_div(logits.log_softmax(dim=1), uniform, reduction="batchmean")


def contrastive_loss(forget_logits, retain_logits):
    """Return -mean log softmax over retain pictures of the dot products / TEMPERATURE: all are equal positives."""
    similarities = forget_logits @ retain_logits.T / TEMPERATURE
    return -similarities.log_softmax(dim=1).mean()


def flatten_outputs(net, forget_loader):
    """Pull the outputs on the forget set to uniform, in one pass."""
    optimizer = optimizer_for(net, FLATTEN_LR)
    for batch in forget_loader:
        images, _ = unpack(batch, device_of(net))
        net.train(len(images) > 1)  # batch normalisation cannot use a single picture
        descend(optimizer, uniform_loss(net(images)))


def forget_round(net, forget_loader, contrast_loader, optimizer, schedule):
    """Even out the similarities of each forget batch to one batch of retain pictures, while there are any."""
    device = device_of(net)
    for forget_batch, contrast_batch in zip(forget_loader, contrast_loader, strict=False):
        retain_images, _ = unpack(contrast_batch, device)
        forget_images, _ = unpack(forget_batch, device)
        net.train(min(len(retain_images), len(forget_images)) > 1)  # as above
        with torch.no_grad():
            retain_logits = net(retain_images)
        descend(optimizer, contrastive_loss(net(forget_images), retain_logits))
        schedule.step()


def retain_round(net, retain_loader, optimizer, criterion):
    """Fine-tune in one pass through the retain set."""
    for batch in retain_loader:
        images, labels = unpack(batch, device_of(net))
        net.train(len(labels) > 1)  # batch normalisation cannot use a single picture
        descend(optimizer, criterion(net(images), labels))


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
    criterion = nn.CrossEntropyLoss(weight=weights)
    large_batches = DataLoader(retain_loader.dataset, batch_size=RETAIN_BATCH, shuffle=True)
    with all_or_nothing(net):
        flatten_outputs(net, forget_loader)
        forget_optimizer = optimizer_for(net, FORGET_LR)
        retain_optimizer = optimizer_for(net, RETAIN_LR * RETAIN_BATCH / 64, RETAIN_WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            forget_optimizer, T_max=EPOCHS * min(len(forget_loader), len(large_batches)), eta_min=1e-6
        )
        for _ in range(EPOCHS):
            forget_round(net, forget_loader, large_batches, forget_optimizer, schedule)
            retain_round(net, large_batches, retain_optimizer, criterion)
