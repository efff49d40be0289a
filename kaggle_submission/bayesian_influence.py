"""Bayesian influence: take the influence of the forget set out of the weights by one step, with the curvature
inverted by a series of Hessian-vector products. Langevin steps between them sample the weights (MCMC
unlearning), or they stay (BIF, Bayesian inference forgetting).

Source: Fu, He and Tao, arXiv:2203.12964 (MCMC unlearning); Fu, He, Xu and Tao, arXiv:2101.06417 (BIF).

Reading: F is the cross-entropy of all n retain pictures plus the weights' prior, H its curvature, G the summed
gradient of the forget set. The step is H^-1 G, by the Neumann series v <- G + v - s H v, each H v on a batch of
its own. The sources need a convex loss and leave s to the user: here H is damped, and power iteration sets s. So
few terms are far from the limit, so the step keeps its direction and has STEP of the length of the weights.

Results: docs/methods/bayesian_influence.md, from results/*/bayesian_influence.json.
"""

import copy
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, RandomSampler

# SETTINGS
RESAMPLE = True  # True: MCMC unlearning, a Langevin step after each product; False: BIF
STEP = 0.002  # length of the step, as a share of the length of all weights
TERMS = 16  # of the series; the source's 64 do not fit
BATCH = 16  # random retain pictures behind each product; the source's 128 do not fit
POWER_STEPS = 3  # of power iteration, which finds the largest curvature; s is one over it
DAMPING = 0.01  # added to the curvature of the mean loss; larger is nearer to a plain ascent of the forget loss
PRIOR = 5e-4  # precision of the weights' prior over n_r: the weight decay of training
RATE = 3e-4  # n_r times the Langevin step size; larger moves and spreads more
TAIL_EPOCHS = 0  # passes of fine-tuning on the retain set afterwards; 1 repairs and adds spread
LR = 1e-4  # of the tail: Adam, as in finetune.py
WEIGHT_DECAY = 5e-3  # of the tail

# METHOD


@torch.no_grad()
def flat(tensors):
    """Return all tensors as one vector."""
    return torch.cat([tensor.flatten() for tensor in tensors])


def pieces(vector, parameters):
    """Return a vector in the shapes of the parameters."""
    parts = vector.split([parameter.numel() for parameter in parameters])
    return [part.view_as(parameter) for part, parameter in zip(parts, parameters, strict=True)]


@torch.no_grad()
def move(parameters, vector):
    """Add a vector to the parameters."""
    for parameter, piece in zip(parameters, pieces(vector, parameters), strict=True):
        parameter += piece


def forget_gradient(net, loader):
    """Return G, the gradient of the summed cross-entropy of a loader's pictures."""
    total = 0
    for batch in loader:
        images, labels = unpack(batch, device_of(net))
        loss = functional.cross_entropy(net(images), labels, reduction="sum")
        total = total + flat(torch.autograd.grad(loss, list(net.parameters())))
    return total


def langevin_step(parameters, gradient, n):
    """Move the weights by -eta / 2 times the gradient of F, which is n times the given one, and N(0, eta)."""
    move(parameters, (RATE / n) ** 0.5 * torch.randn_like(gradient) - RATE / 2 * gradient)


def curvature(net, batches, n):
    """Return the function v -> (H / n + DAMPING I) v, each time on the next batch, and at the next sample."""
    parameters = list(net.parameters())

    def times(vector):
        images, labels = unpack(next(batches), device_of(net))
        loss = functional.cross_entropy(net(images), labels)
        gradient = torch.autograd.grad(loss, parameters, create_graph=True)
        product = torch.autograd.grad(gradient, parameters, grad_outputs=pieces(vector, parameters))
        if RESAMPLE:
            langevin_step(parameters, flat(gradient) + PRIOR * flat(parameters), n)
        return flat(product) + (DAMPING + PRIOR) * vector

    return times


def largest_eigenvalue(times, vector):
    """Return the largest growth of a vector in POWER_STEPS steps of power iteration."""
    growths = []
    for _ in range(POWER_STEPS):
        vector = times(vector / vector.norm().clamp(min=1e-12))
        growths.append(vector.norm())
    return max(growths).item()


def neumann(times, vector, scaling):
    """Return scaling times the sum of TERMS + 1 terms (I - scaling A)^t vector: nearly A^-1 vector."""
    total = vector
    for _ in range(TERMS):
        total = vector + total - scaling * times(total)
    return scaling * total


def step_along(net, direction):
    """Move the weights along `direction` by STEP of their length."""
    parameters = list(net.parameters())
    length = flat(parameters).norm()
    move(parameters, STEP * length / direction.norm().clamp(min=1e-12) * direction)


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
    retain = retain_loader.dataset
    draws = RandomSampler(retain, replacement=True, num_samples=(POWER_STEPS + TERMS) * BATCH)
    with all_or_nothing(net):
        net.eval()
        gradient = forget_gradient(net, forget_loader)
        times = curvature(net, iter(DataLoader(retain, BATCH, sampler=draws)), len(retain))
        scaling = 1 / max(DAMPING, largest_eigenvalue(times, gradient))
        step_along(net, neumann(times, gradient, scaling))
        finetune(net, retain_loader, nn.CrossEntropyLoss())
