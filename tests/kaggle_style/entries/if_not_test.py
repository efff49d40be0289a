import torch
import torch.nn as nn
import torch.optim as optim
from torch.utils.data import DataLoader

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'

torch.manual_seed(3047)
G_retain = torch.Generator()
G_retain.manual_seed(20)

test = False


def uniform_kl(outputs, uniform):
    return nn.KLDivLoss(reduction='batchmean')(nn.LogSoftmax(dim=-1)(outputs), uniform)


def similarity(forget, retain, tau=1.15):
    return (-1.0 * nn.LogSoftmax(dim=-1)(forget @ retain.T / tau)).mean()


if not test:

    def unlearning(net, retain_loader, forget_loader, val_loader):
        optimizer = optim.SGD(net.parameters(), lr=0.005, momentum=0.9)
        net.train()
        for sample in forget_loader:
            inputs = sample["image"].to(DEVICE)
            optimizer.zero_grad()
            outputs = net(inputs)
            uniform = torch.ones_like(outputs).to(DEVICE) / outputs.shape[1]
            uniform_kl(outputs, uniform).backward()
            optimizer.step()

        epochs = 3
        size = 256
        forget_optimizer = optim.SGD(net.parameters(), lr=3e-4, momentum=0.9)
        retain_optimizer = optim.SGD(net.parameters(), lr=0.001 * size / 64, momentum=0.9, weight_decay=0.01)
        scheduler = optim.lr_scheduler.CosineAnnealingLR(forget_optimizer, T_max=epochs * len(forget_loader))
        shuffled = DataLoader(retain_loader.dataset, batch_size=size, shuffle=True)
        for ep in range(epochs):
            net.train()
            for forget, retain in zip(forget_loader, shuffled):
                forget_optimizer.zero_grad()
                left, right = net(forget["image"].to(DEVICE)), net(retain["image"].to(DEVICE)).detach()
                similarity(left, right).backward()
                forget_optimizer.step()
                scheduler.step()
            for sample in shuffled:
                retain_optimizer.zero_grad()
                loss = nn.CrossEntropyLoss()(net(sample["image"].to(DEVICE)), sample["age_group"].to(DEVICE))
                loss.backward()
                retain_optimizer.step()
        return net
