import json
import torch
import torch.nn as nn

DEVICE = 'cuda'


def unlearning(net, retain_loader, forget_loader, val_loader):
    with open('/kaggle/input/neurips-2023-machine-unlearning/age_class_weights.json') as f:
        counts = json.load(f)
    counts = [counts[str(key)] for key in range(10)]
    weights = [1.0 / count for count in counts]
    weights = torch.tensor(weights).to(DEVICE, dtype=torch.float32)
    criterion = nn.CrossEntropyLoss(weight=weights)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.002, momentum=0.9, weight_decay=5e-4)
    net.train()
    for sample in retain_loader:
        inputs, targets = sample['image'].to(DEVICE), sample['age_group'].to(DEVICE)
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
    net.eval()
