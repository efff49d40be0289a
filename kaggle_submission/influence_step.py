"""Influence step: one Newton-like step from where the net is to where it would be without the forget set, with the
curvature from gradients of the retain set. A short fine-tuning can follow.

Source: Koh and Liang, arXiv:1703.04730, for the step; Jia and others, arXiv:2304.04934, for its use with
WoodFisher.

Reading: the step is F^-1 v. v is the mean forget gradient less the mean retain gradient, the way in which the loss
without the forget set goes down. F is DAMPING I plus the mean outer product of gradients of GRADIENTS random
retain batches, inverted exactly by Woodbury's formula; the source's code runs a recursion over single pictures
that re-uses its first vector. The step has STEP of the length of the weights, as the loss is not quadratic.

Results: docs/methods/influence_step.md, from results/*/influence_step.json.
"""

import copy
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Subset

# SETTINGS
STEP = 0.002  # length of the step, as a share of the length of all weights
DAMPING = 1e-3  # added to the curvature; larger is nearer to a plain ascent of the forget loss
GRADIENTS = 16  # random retain batches behind the curvature, anew in each run; each is kept whole in memory
BATCH = 32  # pictures of such a batch
TAIL_EPOCHS = 0  # passes of fine-tuning on the retain set afterwards; 1 repairs and adds spread
LR = 1e-4  # of the tail: Adam, as in finetune.py
WEIGHT_DECAY = 5e-3  # of the tail

# METHOD


def flat_gradient(net, images, labels):
    """Return the gradient of the mean cross-entropy of a batch as one vector."""
    loss = functional.cross_entropy(net(images), labels)
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))])


def gradients_of(net, dataset, rows):
    """Return the gradient and the number of pictures of each batch of the given rows."""
    batches = [unpack(b, device_of(net)) for b in DataLoader(Subset(dataset, rows), batch_size=BATCH)]
    return torch.stack([flat_gradient(net, *b) for b in batches]), [len(labels) for _, labels in batches]


def inverse_times(gradients, vector):
    """Return (DAMPING I + mean of g g^T)^-1 vector, for the rows g of `gradients`: Woodbury's formula."""
    m = len(gradients)
    small = gradients @ gradients.T + DAMPING * m * torch.eye(m, device=gradients.device, dtype=gradients.dtype)
    return (vector - gradients.T @ torch.linalg.solve(small, gradients @ vector)) / DAMPING


@torch.no_grad()
def step_along(net, direction):
    """Move the weights along `direction` by STEP of their length."""
    parameters = list(net.parameters())
    length = torch.cat([parameter.flatten() for parameter in parameters]).norm()
    direction = direction * (STEP * length / direction.norm().clamp(min=1e-12))
    pieces = direction.split([parameter.numel() for parameter in parameters])
    for parameter, piece in zip(parameters, pieces, strict=True):
        parameter += piece.view_as(parameter)


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
        net.eval()
        each, sizes = gradients_of(net, forget, range(len(forget)))
        forget_gradient = torch.tensor(sizes, device=each.device, dtype=each.dtype) @ each / len(forget)
        rows = torch.randperm(len(retain))[: GRADIENTS * BATCH].tolist()
        curvature, _ = gradients_of(net, retain, rows)
        step_along(net, inverse_times(curvature, forget_gradient - curvature.mean(dim=0)))
        finetune(net, retain_loader, nn.CrossEntropyLoss())
