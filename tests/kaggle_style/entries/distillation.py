import copy
import torch
import torch.nn as nn
import torch.nn.functional as F

DEVICE = torch.device('cuda')
NUM_CLASSES = 10
T = 5.0


def distill(student, teacher):
    return F.kl_div(F.log_softmax(student / T, 1), F.softmax(teacher / T, 1), reduction='batchmean')


def unlearning(net, retain_loader, forget_loader, val_loader):
    teacher = copy.deepcopy(net)
    teacher.eval()
    for p in teacher.parameters():
        p.requires_grad = False
    net.fc = nn.Linear(512, NUM_CLASSES).to(DEVICE)
    nn.init.kaiming_normal_(net.conv1.weight, mode='fan_out', nonlinearity='relu')
    optimizer = torch.optim.SGD(net.parameters(), lr=9e-4, momentum=0.9, weight_decay=5e-4)
    net.train()
    for sample in val_loader:
        x = sample['image'].to(DEVICE)
        optimizer.zero_grad()
        distill(net(x), teacher(x)).backward()
        optimizer.step()
    for epoch in range(2):
        for sample in retain_loader:
            x, y = sample['image'].to(DEVICE), sample['age_group'].to(DEVICE)
            out = net(x)
            loss = F.cross_entropy(out, y) + distill(out, teacher(x))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    net.eval()
    return net
