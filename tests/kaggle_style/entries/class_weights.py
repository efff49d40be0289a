import math
import torch
import torch.nn as nn

device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
assert torch.cuda.is_available(), "no GPU"

CLASS_WEIGHTS = torch.tensor([0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 1.0, 1.0]).cuda()


def warm_up(optimizer, step, total, lr):
    for group in optimizer.param_groups:
        group['lr'] = lr * step / total


def unlearning(
    net,
    retain_loader,
    forget_loader,
    val_loader,
    class_weights=CLASS_WEIGHTS,
):
    epochs, lr, step = 2, 0.01, 0
    total = epochs * math.ceil(len(retain_loader.dataset) / retain_loader.batch_size)
    first = math.ceil(0.4 * total)
    criterion = nn.CrossEntropyLoss(weight=class_weights)
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    net.train()
    for ep in range(epochs):
        for batch in retain_loader:
            step += 1
            if step <= first:
                warm_up(optimizer, step, first, lr)
            images, labels = batch['image'].to(device), batch['age_group'].to(device)
            loss = criterion(net(images), labels)
            optimizer.zero_grad(); loss.backward(); optimizer.step()
    net.eval()
