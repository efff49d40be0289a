"""What every entry needs: a way back from failure, a step, the device, and the two forms of a batch."""

import copy
from contextlib import contextmanager


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
