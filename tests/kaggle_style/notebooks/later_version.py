# %%
import torch
import torch.nn as nn
try:
    from torchmetrics import Accuracy
except ImportError:
    Accuracy = None
DEVICE = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
# %%
def unlearning(net, retain_loader, forget_loader, val_loader):
    raise NotImplementedError('first try')
# %%
history = []
def unlearning(net, retain_loader, forget_loader, val_loader):
    """The second try."""
    net.to(DEVICE)
    before = [p.clone() for p in net.parameters()]
    for p, q in zip(net.parameters(), before):
        p.data = q + 0.001 * torch.randn_like(q)
    history.append(len(before))
# %%
print(unlearning.__doc__)
plot(history)
# %%
@torch.no_grad()
def accuracy(net, loader):
    return sum((net(b['image'].to(DEVICE)).argmax(1).cpu() == b['age_group']).sum() for b in loader) / len(loader.dataset)
# %%
n_checkpoints = 512 if not DEBUG else 4
for ckpt in range(n_checkpoints):
    unlearning(net, retain_loader, forget_loader, val_loader)
    torch.save(net.state_dict(), f'/kaggle/tmp/unlearned_checkpoint_{ckpt}.pth')
