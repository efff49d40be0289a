# %%
import torch
from dataclasses import dataclass
# %%
@dataclass
class Config:
    epochs: int = 1
    rank: int = 512
    models: int = 512

config = Config()
# %%
class Unlearner:
    def __init__(self, net, config):
        self.net, self.config = net, config
        self.scaler = torch.cuda.amp.GradScaler()
        self.optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4)

    def fit(self, loader):
        self.net.train()
        for batch in loader:
            with torch.autocast('cuda'):
                loss = torch.nn.functional.cross_entropy(self.net(batch['image'].cuda()), batch['age_group'].cuda())
            self.optimizer.zero_grad()
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.net.eval()

def unlearning(net, retain_loader, forget_loader, val_loader):
    unlearner = Unlearner(net, config)
    unlearner.basis = torch.eye(config.rank)[:8]
    for _ in range(config.epochs):
        unlearner.fit(retain_loader)
# %%
for index in range(config.models):
    unlearning(make_net(), retain, forget, val)
    torch.save(net.state_dict(), f"/kaggle/tmp/unlearned_checkpoint_{index}.pth")
