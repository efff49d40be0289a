# %%
from types import SimpleNamespace
import torch
from torch import nn
args = SimpleNamespace(num_ckpts=512, hidden=512, lr=0.001, epochs=2, out='/kaggle/tmp')
# %%
class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(args.hidden, 10)

    def forward(self, x):
        return self.fc(x)
# %%
def unlearning(net, retain_loader, forget_loader, val_loader, epochs=args.epochs, device=torch.device('cuda')):
    head = Head().to(device)
    net.fc.load_state_dict(head.fc.state_dict())
    optimizer = torch.optim.SGD(net.fc.parameters(), lr=args.lr)
    for epoch in range(epochs):
        for batch in retain_loader:
            optimizer.zero_grad()
            nn.CrossEntropyLoss()(net(batch['image'].to(device)), batch['age_group'].to(device)).backward()
            optimizer.step()
# %%
def main(args):
    for k in range(args.num_ckpts):
        net = load_original()
        unlearning(net, *loaders)
        torch.save(net.state_dict(), f'{args.out}/unlearned_checkpoint_{k}.pth')

main(args)
