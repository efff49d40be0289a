"""SalUn, saliency unlearning: only the weights to which the forget loss is most sensitive move; they learn random
labels for the forget set and the true ones for the retain set.

Source: Fan and others, arXiv:2310.12508.

Reading: the saliency is the gradient summed over forget batches in eval mode, ranked over all weights. In a pass
the forget set comes first and the retain set after it, as in the source for CIFAR-10. Weights outside the mask are
put back after each step, for momentum and decay would move them.

Results: docs/methods/salun.md, from results/*/salun.json.
"""

import copy
from contextlib import contextmanager
from itertools import islice

import torch
from torch.nn import functional

# SETTINGS
SALIENT = 0.5  # share of the weights that may move; the source's
EPOCHS = 1.9  # passes through both sets; the source takes 10
LR = 1.3e-2  # SGD with momentum 0.9; the source's
WEIGHT_DECAY = 5e-4  # the source's

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


def salient(net, loader):
    """Return masks of the SALIENT share of weights with the largest summed forget gradients."""
    parameters = list(net.parameters())
    totals = [torch.zeros_like(parameter) for parameter in parameters]
    net.eval()
    for batch in loader:
        images, labels = unpack(batch, device_of(net))
        loss = functional.cross_entropy(net(images), labels)
        for total, gradient in zip(totals, torch.autograd.grad(loss, parameters), strict=True):
            total += gradient
    sizes = torch.cat([total.abs().flatten() for total in totals])
    ranks = torch.empty_like(sizes, dtype=torch.bool).fill_(False)
    ranks[sizes.topk(int(SALIENT * len(sizes))).indices] = True
    pieces = ranks.split([total.numel() for total in totals])
    return [piece.view_as(total) for piece, total in zip(pieces, totals, strict=True)]


def masked_step(net, optimizer, loss, masks, start):
    """Take one step down `loss` and put the weights outside the masks back to their start."""
    descend(optimizer, loss)
    with torch.no_grad():
        for parameter, mask, before in zip(net.parameters(), masks, start, strict=True):
            parameter.copy_(torch.where(mask, parameter, before))


def relabel_and_train(net, retain_loader, forget_loader, masks):
    """Learn random labels for the forget set, drawn anew in each pass, and then those of the retain set."""
    device, n_classes = device_of(net), net.fc.out_features
    start = [parameter.detach().clone() for parameter in net.parameters()]
    optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=0.9, weight_decay=WEIGHT_DECAY)
    left = EPOCHS
    net.train()
    while left > 0:
        for images, labels in passes(forget_loader, 1, device):
            drawn = torch.randint_like(labels, n_classes)
            masked_step(net, optimizer, functional.cross_entropy(net(images), drawn), masks, start)
        for images, labels in passes(retain_loader, min(1, left), device):
            masked_step(net, optimizer, functional.cross_entropy(net(images), labels), masks, start)
        left -= 1


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
        relabel_and_train(net, retain_loader, forget_loader, salient(net, forget_loader))
