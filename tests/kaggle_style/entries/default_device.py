import torch
from torch import nn, optim


def accuracy(net, loader, device="cuda"):
    correct, total = 0, 0
    net.eval()
    with torch.no_grad():
        for sample in loader:
            x, y = sample["image"].to(device), sample["age_group"].to(device)
            correct += (net(x).argmax(1) == y).sum().item()
            total += len(y)
    return correct / total


def train_epoch(net, loader, optimizer, criterion, device="cuda"):
    net.train()
    for sample in loader:
        x, y = sample["image"].to(device), sample["age_group"].to(device)
        optimizer.zero_grad()
        criterion(net(x), y).backward()
        optimizer.step()


def unlearning(net, retain_loader, forget_loader, val_loader):
    net.cuda()
    optimizer = optim.SGD(net.parameters(), lr=5e-4, momentum=0.9)
    criterion = nn.CrossEntropyLoss().cuda()
    for epoch in range(2):
        train_epoch(net, retain_loader, optimizer, criterion)
        print(f"epoch {epoch}: forget accuracy {accuracy(net, forget_loader):.3f}")
    net.eval()
