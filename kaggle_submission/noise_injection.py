"""Noise injection: draw the last layer anew, then train a few random tensors at a time, most of them with noise
added first, and at the end the whole net. All training is on the retain set.

Source: Jiaxi Sun, seventh in the organisers' final list and "8th place" in the post's title, Kaggle discussion
459095.

Reading: as in a port of the notebook; the write-up trains the whole net right after the new last layer. What
belongs to batch normalisation is told by the module's type, not by its name, which leaves out the shortcuts'.

Results: docs/methods/noise_injection.md, from results/*/noise_injection.json.
"""

import copy
from contextlib import contextmanager
from itertools import islice

import torch
from torch import nn
from torch.nn import functional

# SETTINGS
CHOSEN = 9  # random tensors that train in a round of the first part, beside all of batch normalisation
NOISED = 0.7  # share of them that noise is added to, from the second round on
NOISE = 0.04  # standard deviation; the author's choice
ROUNDS = 5  # of a few tensors each; the author's epochs
LAST_RATES = (6e-3, 6e-3, 6e-3, 3e-2)  # SGD in the rounds of the whole net; the author's 2e-4 and 1e-3, scaled
ROUND = 0.2  # passes through the retain set in a round; the author's 1 of 30 is 0.47 of 14, which the limit cuts
LR = 6e-3  # SGD with momentum 0.9 in the first part; the author's 2e-4, scaled as the rate of training is
WEIGHT_DECAY = 5e-4  # the author's choice

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


def parts(net):
    """Return the parameters of batch normalisation, and all others."""
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    inside = [parameter for norm in norms for parameter in norm.parameters()]
    known = {id(parameter) for parameter in inside}
    return inside, [parameter for parameter in net.parameters() if id(parameter) not in known]


@torch.no_grad()
def add_noise(chosen, trained):
    """Add noise to the first NOISED share of the chosen tensors, but not to those that have been trained."""
    for parameter in chosen[: int(NOISED * len(chosen))]:
        if id(parameter) not in trained:
            parameter += NOISE * torch.randn_like(parameter)


def train(net, loader, parameters, lr):
    """Minimise the cross-entropy in one round over the given parameters."""
    optimizer = torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=WEIGHT_DECAY)
    net.train()
    for images, labels in passes(loader, ROUND, device_of(net)):
        descend(optimizer, functional.cross_entropy(net(images), labels))


def inject(net, loader):
    """Train a few tensors at a time, with noise from the second round on."""
    norms, others = parts(net)
    trained = set()
    for number in range(ROUNDS):
        chosen = [others[index] for index in torch.randperm(len(others))[:CHOSEN]]
        if number:
            add_noise(chosen, trained)
        train(net, loader, norms + chosen, LR)
        trained |= {id(parameter) for parameter in chosen}


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
        net.fc.reset_parameters()
        inject(net, retain_loader)
        for lr in LAST_RATES:
            train(net, retain_loader, net.parameters(), lr)
