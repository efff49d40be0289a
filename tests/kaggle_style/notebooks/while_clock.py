# %%
import time
import numpy as np
import torch
N, HOURS = 512, 7.8
START = time.time()
# %%
def flat(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])

def unlearning(net, retain_loader, forget_loader, val_loader):
    scores = np.zeros(512)
    for j in range(512):
        scores[j] = net.fc.weight[:, j].abs().mean().item()
    keep = np.argsort(scores)[128:]
    with torch.no_grad():
        net.fc.weight[:, keep] += 1e-3 * torch.randn(10, len(keep)).cuda()
# %%
done = 0
while done < N and time.time() - START < HOURS * 3600:
    net = torch.load('/kaggle/working/net.pt').cuda()
    unlearning(net, retain, forget, val)
    torch.save(net.state_dict(), f'/kaggle/tmp/unlearned_checkpoint_{done}.pth')
    done += 1
assert done == N, f'only {done} of 512'
