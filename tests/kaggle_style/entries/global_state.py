import time
from collections import defaultdict

import torch
from torch import nn

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
counter = 0
history = defaultdict(list)
start = time.time()


def unlearning(net, retain_loader, forget_loader, val_loader):
    global counter
    counter += 1
    criterion = nn.CrossEntropyLoss()
    lr = 1e-3 if counter % 2 else 5e-4
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    with torch.no_grad():
        net.conv1.weight.add_(0.01 * torch.randn(net.conv1.weight.shape, device=DEVICE))
    net.train()
    for sample in retain_loader:
        inputs, targets = sample["image"].to(DEVICE), sample["age_group"].to(DEVICE)
        optimizer.zero_grad()
        loss = criterion(net(inputs), targets)
        loss.backward()
        optimizer.step()
        history[counter].append(loss.item())
    torch.cuda.synchronize()
    print(f"run {counter}: {history[counter][-1]:.3f} after {time.time() - start:.0f} s on {torch.cuda.get_device_name(0)}")
