"""Labels of a whole data set, and class weights from them."""

import torch

from kaggle_submission.shared.plumbing import device_of


# SHARED: class_weights
def labels_of(dataset):
    """Return all labels of a map-style dataset, int64 ``[n]``."""
    items = (dataset[index] for index in range(len(dataset)))
    return torch.tensor([int(item["age_group"] if isinstance(item, dict) else item[1]) for item in items])


def class_weights(net, loader):
    """Return n / (n_classes * n_of_class) of each class, on the net's device; no picture counts as one."""
    n_classes = net.fc.out_features
    counts = torch.bincount(labels_of(loader.dataset), minlength=n_classes).clamp(min=1)
    return (len(loader.dataset) / (n_classes * counts)).to(device_of(net))
# END: class_weights
