"""L-CODEC: choose the few channels on whose activations the forget loss depends most, one given the others, and
take one Newton step and some noise in their weights alone.

Source: Mehta, Pal, Singh and Ravi, arXiv:2204.07655; Azadkia and Chatterjee, arXiv:1910.12327, for the
coefficient of dependence and for FOCI, the selection.

Reading: the source chooses anew for each picture, from a thousand noisy copies of it. Here GROUP pictures are
chosen for together, from COPIES noisy copies, among the SCREEN channels with the largest coefficients of their
own. The curvature is the mean outer product of retain gradients in the chosen weights, plus DAMPING; the source
keeps gradients from training, and its code takes the difference of a gradient to itself, which is zero. The full
step is short in a net that memorises, so it has STEP of the length of the chosen weights.

Results: docs/methods/l_codec.md, from results/*/l_codec.json.
"""

import copy
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Subset

# SETTINGS
CHANNELS = 10  # chosen at most for a group
GROUP = 64  # forget pictures for which channels are chosen together
COPIES = 256  # noisy copies behind a choice; the source takes 1000 of each picture
PIXEL_NOISE = 25.5  # standard deviation of that noise: the source's 0.1 of the range of pixels
SCREEN = 50  # channels that FOCI chooses among
RETAIN_SAMPLE = 512  # random retain pictures behind the curvature, anew for each group
DAMPING = 0.01  # added to the curvature; the source's
STEP = 0.5  # length of the step, as a share of that of the chosen weights
NOISE = 0.02  # standard deviation of the noise, as a share of that of the chosen weights
BATCH = 64  # pictures at a time
TAIL_EPOCHS = 0  # passes of fine-tuning on the retain set afterwards; 1 repairs and adds spread
LR = 1e-4  # of the tail: Adam, as in finetune.py
WEIGHT_DECAY = 5e-3  # of the tail

# METHOD
def gains(ranks, distances, candidates):
    """Return the sum of min(R_i, R of i's nearest) for each candidate column, added to the squared distances."""
    nearest = [(distances + (x[:, None] - x).square()).argmin(dim=1) for x in candidates.T]
    return torch.stack([torch.minimum(ranks, ranks[rows]).sum() for rows in nearest])


def foci(losses, activations):
    """Return the columns of `activations` ``[n, units]`` that FOCI chooses for `losses` ``[n]``, best first."""
    ranks = (losses[:, None] >= losses).sum(dim=1).to(activations.dtype)
    units = (activations - activations.mean(dim=0)) / activations.std(dim=0).clamp(min=1e-12)
    distances = units.new_zeros(len(units), len(units)).fill_diagonal_(torch.inf)
    left = gains(ranks, distances, units).topk(min(SCREEN, units.shape[1])).indices.tolist()
    known, chosen = ranks.square().mean(), []  # without any column: the sum of R_i^2 / n
    while left and len(chosen) < CHANNELS:
        found = gains(ranks, distances, units[:, left])
        if found.max() <= known:  # the coefficient is this gain, over a part that is the same for all
            break
        known = found.max()
        chosen.append(left.pop(found.argmax()))
        distances = distances + (units[:, chosen[-1:]] - units[:, chosen[-1]]).square()
    return chosen


def watched(net, layers, images):
    """Return the logits of a batch, and a dict with input and output of each of the given layers."""
    seen = {}

    def keep(layer, inputs, output):
        seen[layer] = inputs[0], output

    hooks = [layer.register_forward_hook(keep) for layer in layers]
    try:
        return net(images), seen
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def losses_and_activations(net, layers, dataset, rows):
    """Return loss ``[n]`` and mean activations ``[n, units]`` in all layers of a noisy copy of each given row."""
    losses, activations = [], []
    for batch in DataLoader(Subset(dataset, rows), batch_size=BATCH):
        images, labels = unpack(batch, device_of(net))
        logits, seen = watched(net, layers, images + PIXEL_NOISE * torch.randn_like(images))
        losses.append(functional.cross_entropy(logits, labels, reduction="none"))
        means = [seen[layer][1].reshape(len(images), len(layer.weight), -1).mean(dim=2) for layer in layers]
        activations.append(torch.cat(means, dim=1))
    return torch.cat(losses), torch.cat(activations)


def channels_of(layers, units):
    """Return the channels of each layer that has any of the given units, which are counted through all layers."""
    places, chosen = [(layer, channel) for layer in layers for channel in range(len(layer.weight))], {}
    for layer, channel in map(places.__getitem__, units):
        chosen.setdefault(layer, []).append(channel)
    return chosen


def sample_gradients(net, chosen, dataset, rows):
    """Return the gradient of each row's loss in the weights of the chosen channels, ``[n, weights]``."""
    found = []
    for batch in DataLoader(Subset(dataset, rows), batch_size=BATCH):
        images, labels = unpack(batch, device_of(net))
        logits, seen = watched(net, chosen, images)
        loss = functional.cross_entropy(logits, labels, reduction="sum")
        slopes, parts = torch.autograd.grad(loss, [seen[layer][1] for layer in chosen]), []
        for (layer, channels), slope in zip(chosen.items(), slopes, strict=True):
            x = seen[layer][0].detach()
            if isinstance(layer, nn.Conv2d):
                x = functional.unfold(x, layer.kernel_size, padding=layer.padding, stride=layer.stride)
            slope = slope[:, channels].reshape(len(x), len(channels), -1)
            parts.append((slope @ x.reshape(*x.shape[:2], -1).mT).flatten(1))
        found.append(torch.cat(parts, dim=1))
    return torch.cat(found)


def newton_step(gradients, vector):
    """Return (DAMPING I + mean of g g^T)^-1 vector, for the rows g of `gradients`: Woodbury's formula."""
    m = len(gradients)
    small = gradients @ gradients.T + DAMPING * m * torch.eye(m, device=gradients.device, dtype=gradients.dtype)
    return (vector - gradients.T @ torch.linalg.solve(small, gradients @ vector)) / DAMPING


@torch.no_grad()
def move(chosen, direction):
    """Move the weights of the chosen channels along `direction` by STEP of their length, and add noise."""
    weights = [layer.weight[channels] for layer, channels in chosen.items()]
    length = torch.cat([each.flatten() for each in weights]).norm()
    steps = (STEP * length / direction.norm().clamp(min=1e-12) * direction).split([w.numel() for w in weights])
    for (layer, channels), w, step in zip(chosen.items(), weights, steps, strict=True):
        layer.weight[channels] = w + step.view_as(w) + NOISE * w.std() * torch.randn_like(w)


def forget_group(net, rows, forget, retain):
    """Choose channels for the given forget rows and step away from the rows in their weights."""
    layers = [module for module in net.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    chosen = channels_of(layers, foci(*losses_and_activations(net, layers, forget, (rows * COPIES)[:COPIES])))
    if chosen:
        sample = torch.randperm(len(retain))[:RETAIN_SAMPLE].tolist()
        gradient = sample_gradients(net, chosen, forget, rows).mean(dim=0)
        move(chosen, newton_step(sample_gradients(net, chosen, retain, sample), gradient))


# SHARED: tail
def finetune(net, loader, criterion):
    """Minimise `criterion` over TAIL_EPOCHS passes through `loader`."""
    device = device_of(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    for _ in range(TAIL_EPOCHS):
        for batch in loader:
            images, labels = unpack(batch, device)
            net.train(len(labels) > 1)  # batch normalisation cannot use a single picture
            descend(optimizer, criterion(net(images), labels))
# END: tail


# PLUMBING
# SHARED: plumbing
@contextmanager
def all_or_nothing(net):
    """Give the net its old weights back if the block fails; leave it in eval mode either way."""
    before = copy.deepcopy(net.state_dict())
    try:
        yield
        if not all(tensor.isfinite().all() for tensor in net.state_dict().values()):
            raise RuntimeError("Unlearning left weights that are not finite. Lower the learning rate.")
    except Exception:
        net.load_state_dict(before)
        raise
    finally:
        net.eval()


def descend(optimizer, loss):
    """Take one step down `loss`.

    Raises:
        RuntimeError: the loss has exploded.
    """
    if not loss.abs() < 1e6:
        raise RuntimeError(f"The loss has exploded (it is {loss.item():.3g}). Lower the learning rate.")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def device_of(net):
    """Return the device that the net lies on."""
    return next(net.parameters()).device


def unpack(batch, device):
    """Return pictures and labels of a batch, which is a dict as on Kaggle or a tuple, on `device`."""
    if isinstance(batch, dict):
        images, labels = batch["image"], batch["age_group"]
    else:
        images, labels = batch[0], batch[1]
    return images.to(device), labels.to(device)
# END: plumbing


def unlearning(net, retain_loader, forget_loader, val_loader):
    """Unlearn in place: see the top of the file."""
    net.to(memory_format=torch.channels_last)  # faster convolutions, the same weights
    forget, retain = forget_loader.dataset, retain_loader.dataset
    with all_or_nothing(net):
        net.eval()
        for rows in torch.randperm(len(forget)).split(GROUP):
            forget_group(net, rows.tolist(), forget, retain)
        finetune(net, retain_loader, nn.CrossEntropyLoss())
