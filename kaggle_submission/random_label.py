"""Relabelling: give each forget picture a wrong label and fine-tune on forget and retain set together.

Source: Graves, Nagisetty and Ganesh, arXiv:2010.10981; report, section 2.2 (as amnesiac
unlearning; described, not in its table).

Reading: the label is drawn once, uniformly over the other classes, and forget and retain pictures are shuffled
into the same batches. LABELS = "any" is the variant of SalUn's code: drawn anew in each epoch, the true label
included.

Results: docs/methods/random_label.md, from results/*/random_label.json.
"""

import copy
from contextlib import contextmanager

import torch
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset

# SETTINGS
LABELS = "wrong"  # "any": drawn anew in each epoch from all classes, the true one included
EPOCHS = 1  # the sources take 3, which is more than a fifth of the `quick` recipe's time
BATCH = 64  # as the competition's loaders
LR = 1e-4  # Adam; the sources' and the report's choice
WEIGHT_DECAY = 5e-3  # coupled, inside Adam, as in the report
CLASS_WEIGHTS = False  # True: cross-entropy weighted by n / (n_classes * n_of_class), from the retain labels

# METHOD


class Relabelled(Dataset):
    """The pictures of a dataset as (picture, label), with `labels` in place of its own if there are any."""

    def __init__(self, dataset, labels=None):
        self.dataset = dataset
        self.labels = labels

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        item = self.dataset[index]
        image, label = (item["image"], item["age_group"]) if isinstance(item, dict) else item[:2]
        return image, int(label if self.labels is None else self.labels[index])


def random_labels(labels, n_classes):
    """Return a random label for each of `labels`, never the same one unless LABELS is "any"."""
    if n_classes < 2:
        raise ValueError("A wrong label needs at least two classes.")
    first = {"wrong": 1, "any": 0}[LABELS]
    return (labels + torch.randint(first, n_classes, labels.shape)) % n_classes


def relabel_and_train(net, retain, forget, criterion):
    """Minimise `criterion` over EPOCHS passes through the dataset `retain` and the relabelled dataset `forget`."""
    device = device_of(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    true_labels = labels_of(forget)
    labels = random_labels(true_labels, net.fc.out_features)
    for epoch in range(EPOCHS):
        if epoch and LABELS == "any":
            labels = random_labels(true_labels, net.fc.out_features)
        union = ConcatDataset([Relabelled(retain), Relabelled(forget, labels)])
        for batch in DataLoader(union, batch_size=BATCH, shuffle=True):
            images, labels_of_batch = unpack(batch, device)
            net.train(len(labels_of_batch) > 1)  # batch normalisation cannot use a single picture
            descend(optimizer, criterion(net(images), labels_of_batch))


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
    with all_or_nothing(net):
        criterion = nn.CrossEntropyLoss(weight=weights)
        relabel_and_train(net, retain_loader.dataset, forget_loader.dataset, criterion)
