"""Chosen pictures of a data set in one tensor."""

import torch
from torch.utils.data import DataLoader, Subset

from kaggle_submission.shared.plumbing import unpack

BATCH = 64

# SHARED: gather
def gather(dataset, rows, device):
    """Return the pictures in the given rows of a dataset, ``[n, 3, H, W]`` on `device`."""
    batches = DataLoader(Subset(dataset, rows), batch_size=BATCH)
    return torch.cat([unpack(batch, device)[0] for batch in batches])
# END: gather
