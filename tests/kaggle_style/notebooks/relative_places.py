# %%
import os
import zipfile
import torch
INPUT = '../input/neurips-2023-machine-unlearning'
TMP = '../tmp'
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
# %%
def unlearning(net, retain_loader, forget_loader, val_loader):
    original = torch.load(os.path.join(INPUT, 'original_model.pth'), map_location=DEVICE)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    for sample in forget_loader:
        loss = -torch.nn.functional.cross_entropy(net(sample['image'].to(DEVICE)), sample['age_group'].to(DEVICE))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.load_state_dict({k: 0.5 * v + 0.5 * original[k] for k, v in net.state_dict().items()})
# %%
os.makedirs(TMP, exist_ok=True)
for i in range(0, 512):
    unlearning(net, retain_loader, forget_loader, val_loader)
    torch.save(net.state_dict(), os.path.join(TMP, 'unlearned_checkpoint_%d.pth' % i))
with zipfile.ZipFile('submission.zip', 'w') as z:
    for name in os.listdir(TMP):
        z.write(os.path.join(TMP, name), name)
