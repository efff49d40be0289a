"""Squared gradients: how much each weight matters to the pictures of a data set."""

import torch
from torch.nn import functional
from torch.utils.data import DataLoader, Subset

from kaggle_submission.shared.plumbing import device_of, unpack

IMPORTANCE_BATCH = 32

# SHARED: importances
def importances(net, dataset, n=None):
    """Return the empirical Fisher diagonal over `n` random pictures, a list of tensors shaped as the parameters.

    It is the sum over batches of the squared gradient of the summed loss, over `n`. While gradients at the optimum
    average to zero, its expectation does not depend on the batch size, and a ragged last batch does no harm.
    """
    device = device_of(net)
    parameters = list(net.parameters())
    rows = torch.randperm(len(dataset))[:n].tolist()
    totals = [torch.zeros_like(parameter) for parameter in parameters]
    net.eval()
    for batch in DataLoader(Subset(dataset, rows), batch_size=IMPORTANCE_BATCH):
        images, labels = unpack(batch, device)
        loss = functional.cross_entropy(net(images), labels, reduction="sum")
        for total, gradient in zip(totals, torch.autograd.grad(loss, parameters), strict=True):
            total += gradient.square()
    return [total / len(rows) for total in totals]
# END: importances
