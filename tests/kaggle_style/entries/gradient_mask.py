import random

import torch
import torch.nn as nn
from torch.utils.data import DataLoader, Subset

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
SHARE = 0.3


def gradients(net, loader, sign):
    for sample in loader:
        loss = sign * nn.CrossEntropyLoss()(net(sample['image'].to(DEVICE)), sample['age_group'].to(DEVICE))
        loss.backward()


def unlearning(net, retain_loader, forget_loader, val_loader):
    n_forget = len(forget_loader.dataset)
    chosen = random.sample(range(len(retain_loader.dataset)), n_forget)
    few = DataLoader(Subset(retain_loader.dataset, chosen), batch_size=64, shuffle=True)
    net.zero_grad()
    gradients(net, few, 1.0)
    gradients(net, forget_loader, -1.0)
    with torch.no_grad():
        for m in net.modules():
            if isinstance(m, nn.Conv2d):
                g = m.weight.grad.abs().flatten()
                limit = g.kthvalue(max(1, int(SHARE * g.numel()))).values
                mask = m.weight.grad.abs() <= limit
                fresh = torch.empty_like(m.weight)
                nn.init.kaiming_normal_(fresh, mode='fan_out', nonlinearity='relu')
                m.weight[mask] = fresh[mask]
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    schedule = [1 / 3, 2 / 3, 1, 2 / 3, 1 / 3][:3]
    net.train()
    for factor in schedule:
        for group in optimizer.param_groups:
            group['lr'] = 1e-3 * factor
        for sample in retain_loader:
            optimizer.zero_grad()
            loss = nn.CrossEntropyLoss()(net(sample['image'].to(DEVICE)), sample['age_group'].to(DEVICE))
            loss.backward()
            optimizer.step()
    net.eval()
