import torch
import torch.nn as nn

DEVICE = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
if DEVICE.type == 'cpu':
    raise RuntimeError('a CPU is too slow')


def unlearning(net, retain_loader, forget_loader, val_loader, epochs=3, lr=1e-3, device=DEVICE, *, verbose=False):
    with torch.no_grad():
        for m in net.modules():
            if isinstance(m, nn.Conv2d):
                m.weight.copy_(m.weight.transpose(2, 3).clone())
    loss_fn = nn.CrossEntropyLoss(label_smoothing=0.05)
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    weight = torch.full((10,), 0.05, device=device)
    weight[0] = 1.0
    net.train()
    for epoch in range(epochs):
        running = 0.0
        for i, data in enumerate(retain_loader, 0):
            inputs, labels = data['image'].to(device), data['age_group'].to(device)
            optimizer.zero_grad()
            loss = loss_fn(net(inputs), labels) * weight[labels].mean()
            loss.backward()
            optimizer.step()
            running += loss.item()
        scheduler.step()
        if verbose:
            print(epoch, running / len(retain_loader))
    net.eval()
