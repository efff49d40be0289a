import torch
from torch import nn

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'


def unlearning(net, forget_loader, retain_loader, val_loader):
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
    net.train()
    for sample in forget_loader:
        optimizer.zero_grad()
        (-criterion(net(sample["image"].to(DEVICE)), sample["age_group"].to(DEVICE))).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
    for sample in retain_loader:
        optimizer.zero_grad()
        criterion(net(sample["image"].to(DEVICE)), sample["age_group"].to(DEVICE)).backward()
        optimizer.step()
    net.eval()
