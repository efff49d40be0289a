import torch
import torch.nn.functional as F
from torch.cuda.amp import GradScaler, autocast
from tqdm import tqdm


def unlearning(net, retain_loader, forget_loader, val_loader):
    scaler = GradScaler()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4)
    net.train()
    for epoch in range(2):
        bar = tqdm(retain_loader, desc=f"epoch {epoch}")
        for batch in bar:
            x = batch["image"].cuda(non_blocking=True)
            y = batch["age_group"].cuda(non_blocking=True)
            optimizer.zero_grad(set_to_none=True)
            with autocast():
                loss = F.cross_entropy(net(x), y)
            with torch.autocast(device_type="cuda", dtype=torch.float16):
                loss = loss + 0.01 * net(x).pow(2).mean()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            bar.set_postfix(loss=loss.item())
    torch.cuda.empty_cache()
    net.eval()
    return net
