"""Say what the method does to the net, and why that should make it forget: two sentences.

Source: the paper, write-up or report, with its section; or your own idea.
Results: docs/methods/NAME.md, from results/*/NAME.json.
"""

import copy
from contextlib import contextmanager

import torch
from torch.nn import functional

# SETTINGS
EPOCHS = 1  # passes through the retain set; all of it has to fit into a fifth of the time of retraining
LR = 1e-3  # SGD with momentum 0.9; a setting is one value and a short reason for it

# METHOD


def loss_of(net, images, labels):
    """Return what each step makes smaller: the first thing to change."""
    return functional.cross_entropy(net(images), labels)


def unlearn(net, retain_loader, forget_loader, val_loader):
    """Go through the retain set; the other two loaders give batches of the same form."""
    device = device_of(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=0.9)
    for _ in range(EPOCHS):
        for batch in retain_loader:
            images, labels = unpack(batch, device)
            net.train(len(labels) > 1)  # batch normalisation cannot use a single picture
            descend(optimizer, loss_of(net, images, labels))


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
    """Unlearn in place: see the top of the file. What is returned is ignored."""
    with all_or_nothing(net):
        unlearn(net, retain_loader, forget_loader, val_loader)
