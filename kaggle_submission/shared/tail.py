"""A short fine-tuning on the retain set after a method that trains nothing, or little."""

import torch

from kaggle_submission.shared.plumbing import descend, device_of, unpack

TAIL_EPOCHS = 1
LR = 1e-4
WEIGHT_DECAY = 5e-3

# SHARED: tail
def finetune(net, loader, criterion):
    """Minimise `criterion` over TAIL_EPOCHS passes through `loader`."""
    device = device_of(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    for _ in range(TAIL_EPOCHS):
        for batch in loader:
            images, labels = unpack(batch, device)
            net.train(len(labels) > 1)  # batch normalisation cannot use a single picture
            descend(optimizer, criterion(net(images), labels))
# END: tail
