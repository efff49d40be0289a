import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.special import kl_div, softmax
from sklearn import linear_model
from torch import nn, optim

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
if not torch.cuda.is_available():
    raise RuntimeError("CUDA please")


def logits(net, loader):
    net.eval()
    with torch.no_grad():
        return np.concatenate([net(s["image"].to(DEVICE)).cpu().numpy() for s in loader])


def unlearning(net, retain_loader, forget_loader, val_loader):
    optimizer = optim.Adam(net.parameters(), lr=1e-4, weight_decay=1e-4)
    best = float("inf")
    for epoch in range(2):
        net.train()
        for sample in retain_loader:
            optimizer.zero_grad()
            out = net(sample["image"].to(DEVICE))
            nn.functional.cross_entropy(out, sample["age_group"].to(DEVICE)).backward()
            optimizer.step()
        forget, val = softmax(logits(net, forget_loader), 1), softmax(logits(net, val_loader), 1)
        distance = kl_div(forget.mean(0), val.mean(0)).sum()
        best = min(best, float(distance))
    net.eval()
