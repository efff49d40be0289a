"""Class weights from the labels of a data set."""

import torch

from kaggle_submission.shared.labels import labels_of
from kaggle_submission.shared.plumbing import device_of


# SHARED: class_weights
def class_weights(net, loader):
    """Return n / (n_classes * n_of_class) of each class, on the net's device; no picture counts as one."""
    n_classes = net.fc.out_features
    counts = torch.bincount(labels_of(loader.dataset), minlength=n_classes).clamp(min=1)
    return (len(loader.dataset) / (n_classes * counts)).to(device_of(net))
# END: class_weights
