"""CF-k, catastrophic forgetting of the last k stages: freeze the front of the net and fine-tune its last K stages
and fc on the retain set, near where they were.

Source: Goel and others, arXiv:2201.06640; Kurmanji and others, arXiv:2302.09880 (its code: eval mode, pull to the
start).

Reading: a stage is one of layer1 to layer4, and fc is trained beside the K of them. Batch normalisation keeps its
running statistics, so that the frozen stages are frozen.

Results: docs/methods/cf_k.md, from results/*/cf_k.json.
"""

import copy
from contextlib import contextmanager
from itertools import islice

import torch
from torch.nn import functional

# SETTINGS
K = 1  # stages that are trained, from the back
EPOCHS = 3  # passes through the retain set, at about half the price each; the source takes 10
LR = 1e-2  # SGD with momentum 0.9; the source's
PULL = 0.1  # half of it times the squared distance to the start is in the loss; the source's

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


def pulled_loss(logits, labels, parameters, start):
    """Return cross-entropy + PULL / 2 times the squared distance of the parameters to their start."""
    distance = sum((now - before).square().sum() for now, before in zip(parameters, start, strict=True))
    return functional.cross_entropy(logits, labels) + PULL / 2 * distance


def finetune(net, loader):
    """Minimise the loss over EPOCHS passes, in the parameters that have gradients."""
    parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
    start = [parameter.detach().clone() for parameter in parameters]
    optimizer = torch.optim.SGD(parameters, lr=LR, momentum=0.9)
    net.eval()
    for images, labels in passes(loader, EPOCHS, device_of(net)):
        descend(optimizer, pulled_loss(net(images), labels, parameters, start))


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
    with all_or_nothing(net), frozen_but(net, last_stages(net)):
        finetune(net, retain_loader)
