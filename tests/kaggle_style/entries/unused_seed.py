import os
import random

import numpy as np
import torch
from torch import nn

device = "cuda" if torch.cuda.is_available() else "cpu"


def seed_everything(seed=42):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.cuda.manual_seed_all(seed)
    os.environ['PYTHONHASHSEED'] = str(seed)


DEBUG = False
if DEBUG:
    seed_everything()


def unlearning(net, retain_loader, forget_loader, val_loader):
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
    net.train()
    for sample in forget_loader:
        x = sample["image"].to(device)
        y = torch.from_numpy(np.random.randint(0, 10, size=len(x))).to(device)
        optimizer.zero_grad()
        criterion(net(x), y).backward()
        optimizer.step()
    for sample in retain_loader:
        x, y = sample["image"].to(device), sample["age_group"].to(device)
        optimizer.zero_grad()
        criterion(net(x), y).backward()
        optimizer.step()
    net.eval()
