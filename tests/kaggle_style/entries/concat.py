import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import ConcatDataset, DataLoader, Dataset

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
BATCH_SIZE = 256
if DEVICE != 'cuda':
    raise SystemExit('no GPU')


class Marked(Dataset):
    def __init__(self, ds, is_forget):
        self.ds, self.is_forget = ds, is_forget

    def __len__(self):
        return len(self.ds)

    def __getitem__(self, i):
        item = self.ds[i]
        return item['image'], item['age_group'], self.is_forget


def unlearning(net, retain_loader, forget_loader, val_loader):
    both = ConcatDataset([Marked(forget_loader.dataset, 1), Marked(retain_loader.dataset, 0)])
    loader = DataLoader(both, batch_size=BATCH_SIZE, shuffle=True, drop_last=True, pin_memory=True)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.002, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=len(loader) * 3)
    net.train()
    for epoch in range(3):
        for x, y, marked in loader:
            x, y, marked = x.to(DEVICE), y.to(DEVICE), marked.to(DEVICE).bool()
            target = F.one_hot(y, num_classes=10).float()
            target[marked] = 0.1
            loss = -(target * F.log_softmax(net(x), dim=1)).sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
    net.eval()
