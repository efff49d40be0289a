"""K-priors, knowledge-adaptation priors: stay near the original, in its answers on a memory of pictures and in its
weights, while the forget set's labels are taken out of the loss.

Source: Khan and Swaroop, arXiv:2106.08769.

Reading: the memory is the forget set and the retain pictures that the original is least sure of, as many of each
class. Steps take batches of it, where the source takes all of a small one; the net is in eval mode, in which the
answers were given. For a linear model and a memory of all pictures the minimum is the retrained model.

Results: docs/methods/k_priors.md, from results/*/k_priors.json.
"""

import copy
from contextlib import contextmanager
from itertools import islice

import torch
from torch.nn import functional
from torch.utils.data import DataLoader, Subset, TensorDataset

# SETTINGS
MEMORY = 0.2  # share of the retain pictures in the memory; the source takes 2 % to all
PRIOR = 5e-4  # half of it times the squared distance to the start is in the loss; the weight decay of `quick`
EPOCHS = 1.1  # retain pictures that all steps take, in sizes of the retain set; the source takes far more
BATCH = 64  # retain pictures of a step
FORGET_BATCH = 16  # forget pictures of a step
LR = 1e-3  # Adam; the source's 5e-3, made for a small net, is ruinous here

# METHOD


@torch.no_grad()
def answers_of(net, dataset):
    """Return the probabilities that the net gives to each picture, ``[n, K]``, and the labels."""
    batches = [unpack(batch, device_of(net)) for batch in DataLoader(dataset, batch_size=256)]
    answers = torch.cat([net(images).softmax(dim=1) for images, _ in batches])
    return answers, torch.cat([labels for _, labels in batches])


def least_sure(answers, labels):
    """Return the rows with the largest sums of p (1 - p): of each class as many, MEMORY of all."""
    doubt, classes = (answers * (1 - answers)).sum(dim=1), labels.unique()
    n_each = max(1, round(MEMORY * len(labels) / len(classes)))
    of_class = [(labels == label).nonzero()[:, 0] for label in classes]
    return torch.cat([rows[doubt[rows].topk(min(n_each, len(rows))).indices] for rows in of_class])


def remembered(dataset, rows, answers, labels):
    """Return the pictures in the given rows with answers and labels, as a data set."""
    batches = DataLoader(Subset(dataset, rows.tolist()), batch_size=256)
    images = torch.cat([unpack(batch, answers.device)[0] for batch in batches])
    return TensorDataset(images, answers[rows], labels[rows])


def endless(dataset, size):
    """Yield batches of a data set, shuffled anew in each pass, without end."""
    while True:
        yield from DataLoader(dataset, batch_size=size, shuffle=True)


def adapted_loss(retain, forget, labels, shares, distance):
    """Return the loss of a training picture without the labels of the forget pictures.

    Args:
        retain: logits and answers of retain pictures; `forget` likewise, with their `labels`.
        shares: of the memory's retain pictures and of the forget pictures in the training set.
        distance: squared, of the weights to their start.
    """
    of_retain, of_forget = functional.cross_entropy(*retain), functional.cross_entropy(*forget)
    taken_out = functional.cross_entropy(forget[0], labels)
    return shares[0] * of_retain + shares[1] * (of_forget - taken_out) + PRIOR / 2 * distance


def adapt(net, retain, forget):
    """Minimise the loss over batches of the memory."""
    known, forgotten = answers_of(net, retain), answers_of(net, forget)
    memory = remembered(retain, least_sure(*known), *known)
    leaving = remembered(forget, torch.arange(len(forget)), *forgotten)
    shares = [len(part) / (len(retain) + len(forget)) for part in (memory, leaving)]
    start = [parameter.detach().clone() for parameter in net.parameters()]
    optimizer = torch.optim.Adam(net.parameters(), lr=LR)
    n_steps = max(1, round(EPOCHS * len(retain) / BATCH))
    for stay, leave in islice(zip(endless(memory, BATCH), endless(leaving, FORGET_BATCH), strict=True), n_steps):
        logits = net(torch.cat([stay[0], leave[0]]))
        distance = sum((now - old).square().sum() for now, old in zip(net.parameters(), start, strict=True))
        n = len(stay[0])
        loss = adapted_loss((logits[:n], stay[1]), (logits[n:], leave[1]), leave[2], shares, distance)
        descend(optimizer, loss)


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
        net.eval()
        adapt(net, retain_loader.dataset, forget_loader.dataset)
