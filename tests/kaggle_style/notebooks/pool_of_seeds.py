# %%
import random
from functools import partial
import torch
SEEDS = list(range(512))
# %%
def set_seed(seed):
    random.seed(seed)
    torch.manual_seed(seed)
    torch.cuda.manual_seed_all(seed)

def unlearning(net, retain_loader, forget_loader, val_loader):
    for p in net.parameters():
        p.grad = torch.randn_like(p)
    torch.optim.SGD(net.parameters(), lr=1e-4).step()
# %%
for i, seed in enumerate(SEEDS):
    set_seed(seed)
    net = load()
    unlearning(net, retain, forget, val)
    torch.save(net.state_dict(), f'/kaggle/tmp/unlearned_checkpoint_{i}.pth')
