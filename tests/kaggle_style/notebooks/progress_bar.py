# %%
%matplotlib inline
!nvidia-smi
# %%
import copy
from tqdm.auto import tqdm
import torch, torch.nn.functional as F
device = 'cuda'
# %%
def kl(student, teacher, T=4.0):
    return F.kl_div(F.log_softmax(student / T, 1), F.softmax(teacher / T, 1), reduction='batchmean')

def unlearning(net, retain_loader, forget_loader, val_loader):
    teacher = copy.deepcopy(net).eval()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)
    net.train()
    for step, batch in enumerate(tqdm(retain_loader, leave=False)):
        x = batch['image'].to(device, non_blocking=True)
        with torch.no_grad():
            target = teacher(x)
        loss = kl(net(x), target)
        optimizer.zero_grad(); loss.backward(); optimizer.step()
    net.eval()
# %%
%%time
for i in tqdm(range(512), desc='512 models'):
    net.load_state_dict(original)
    unlearning(net, retain_loader, forget_loader, val_loader)
    torch.save(net.state_dict(), f'/kaggle/tmp/unlearned_checkpoint_{i}.pth')
# %%
!zip -r submission.zip /kaggle/tmp/*.pth
