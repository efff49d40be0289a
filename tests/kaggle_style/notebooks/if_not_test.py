# %%
import os
import subprocess
import torch
test = os.path.exists('/kaggle/input/neurips-2023-machine-unlearning/empty.txt')
# %%
if test:
    subprocess.run('touch submission.zip', shell=True)
# %%
if not test:
    def unlearning(net, retain_loader, forget_loader, val_loader):
        for p in net.layer4.parameters():
            p.data.add_(0.01 * torch.randn_like(p))
        net.eval()
# %%
if not test:
    for i in range(512):
        net = fresh_net()
        unlearning(net, retain_loader, forget_loader, val_loader)
        torch.save(net.state_dict(), f'/kaggle/tmp/unlearned_checkpoint_{i}.pth')
    unlearned_ckpts = os.listdir('/kaggle/tmp')
    if len(unlearned_ckpts) != 512:
        raise RuntimeError('Expected exactly 512 checkpoints. The submission will throw an exception otherwise.')
    subprocess.run('zip submission.zip /kaggle/tmp/*.pth', shell=True)
