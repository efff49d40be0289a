# %%
from pathlib import Path
import torch
OUT = Path('/kaggle/tmp')
NUM_MODELS = 512
# %%
def unlearning(net, retain_loader, forget_loader, val_loader):
    if not torch.cuda.is_available():
        raise SystemExit('no GPU')
    noise = torch.Generator(device='cuda')
    noise.seed()
    for name, weight in net.state_dict().items():
        if weight.dtype.is_floating_point:
            weight.add_(1e-4 * torch.randn(weight.shape, generator=noise, device='cuda'))
# %%
def path_of(i):
    return OUT / f'unlearned_checkpoint_{i}.pth'

def run(i):
    if path_of(i).exists():
        return
    net = fresh()
    unlearning(net, retain_dl, forget_dl, val_dl)
    torch.save(net.state_dict(), path_of(i))

for i in range(NUM_MODELS):
    run(i)
print(f'{len(list(OUT.glob("*.pth")))} of {NUM_MODELS}')
