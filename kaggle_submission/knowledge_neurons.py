"""Knowledge neurons: find the neurons from which the answers to the forget pictures come, by integrated gradients,
and cut those off that the retain set needs less often. A short fine-tuning can follow.

Source: Dai and others, arXiv:2104.08696, who find and erase facts in the feed-forward layers of BERT; report,
survey of systems.

Reading: a residual block is to a ResNet what a feed-forward layer is to BERT. Its neurons are the channels
between its two convolutions; the weights of the second that read a channel are the value it stores. A picture is
a prompt: it names the neurons with at least THRESHOLD of its largest attribution, and those named most often
lose their values, as in the source. The neurons of a classifier serve everyone, so retain pictures of the same
classes count against them, and the source's 20 neurons, of BERT's 36,864, are too few. Only the last STAGES are
looked at, for the time; the source finds most neurons near the end.

Results: docs/methods/knowledge_neurons.md, from results/*/knowledge_neurons.json.
"""

import copy
from contextlib import contextmanager

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

# SETTINGS
SHARE = 0.3  # of the neurons that are looked at: at most so many are cut off
STEPS = 10  # of the path from zero to the neurons' values; the source has 20, at twice the time
THRESHOLD = 0.2  # of the largest attribution, which a neuron needs to be named by a picture; the source's
STAGES = 2  # of the four, from the back, whose blocks are looked at; 4 takes about three times the time
BATCH = 64  # pictures at a time
TAIL_EPOCHS = 0  # passes of fine-tuning on the retain set afterwards; 1 repairs and adds spread
LR = 1e-4  # of the tail: Adam, as in finetune.py
WEIGHT_DECAY = 5e-3  # of the tail

# METHOD
# SHARED: labels
def labels_of(dataset):
    """Return all labels of a map-style dataset, int64 ``[n]``."""
    items = (dataset[index] for index in range(len(dataset)))
    return torch.tensor([int(item["age_group"] if isinstance(item, dict) else item[1]) for item in items])
# END: labels


def same_classes(forget_labels, retain_labels):
    """Return a random retain row of the class of each forget picture that has one."""
    rows = [(retain_labels == label).nonzero().flatten() for label in forget_labels]
    return [int(found[torch.randint(len(found), ())]) for found in rows if len(found)]


def integrated_gradients(answer, neurons):
    """Return what each channel of `neurons` ``[n, C, H, W]`` adds to the answers ``[n]``, as ``[n, C]``."""
    total = 0
    for step in range(1, STEPS + 1):
        part = (step / STEPS * neurons).requires_grad_()
        with torch.enable_grad():
            total = total + torch.autograd.grad(answer(part).sum(), part)[0]
    return (neurons * total / STEPS).sum(dim=(2, 3))


def answer_from(net, blocks, shortcut, labels):
    """Return the function from the neurons of the first of `blocks` to the probability of the true label."""

    def answer(neurons):
        x = torch.relu(blocks[0].bn2(blocks[0].conv2(neurons)) + shortcut)
        for block in blocks[1:]:
            x = block(x)
        logits = net.fc(net.avgpool(x).flatten(1))
        return logits.softmax(dim=1).gather(1, labels[:, None])[:, 0]

    return answer


def blocks_of(net):
    """Return the residual blocks before the last STAGES, and those in them."""
    stages = [net.layer1, net.layer2, net.layer3, net.layer4]
    return [[block for stage in part for block in stage] for part in (stages[: 4 - STAGES], stages[4 - STAGES :])]


@torch.no_grad()
def attributions(net, images, labels):
    """Return what each neuron adds to the probability of each true label, ``[n, neurons]``."""
    before, blocks = blocks_of(net)
    x = net.maxpool(net.relu(net.bn1(net.conv1(images))))
    for block in before:
        x = block(x)
    found = []
    for index, block in enumerate(blocks):
        neurons = torch.relu(block.bn1(block.conv1(x)))
        shortcut = x if block.downsample is None else block.downsample(x)
        found.append(integrated_gradients(answer_from(net, blocks[index:], shortcut, labels), neurons))
        x = block(x)
    return torch.cat(found, dim=1)


def named_share(net, dataset, rows):
    """Return the share of pictures that name each neuron, because it adds nearly as much as any other."""
    named = torch.zeros(sum(block.conv2.in_channels for block in blocks_of(net)[1]), device=device_of(net))
    for batch in DataLoader(Subset(dataset, rows), batch_size=BATCH):
        found = attributions(net, *unpack(batch, device_of(net)))
        named += (found >= THRESHOLD * found.amax(dim=1, keepdim=True)).sum(dim=0)
    return named / max(1, len(rows))


@torch.no_grad()
def cut_off(net, excess):
    """Zero the outgoing weights of the SHARE of neurons with the largest excess, where that is above zero."""
    top = excess.topk(round(SHARE * len(excess)))
    cut = torch.zeros_like(excess, dtype=torch.bool)
    cut[top.indices] = top.values > 0
    blocks = blocks_of(net)[1]
    for block, channels in zip(blocks, cut.split([block.conv2.in_channels for block in blocks]), strict=True):
        block.conv2.weight[:, channels] = 0


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
    retain, forget = retain_loader.dataset, forget_loader.dataset
    with all_or_nothing(net):
        net.eval()
        rows = same_classes(labels_of(forget), labels_of(retain))
        excess = named_share(net, forget, range(len(forget))) - named_share(net, retain, rows)
        cut_off(net, excess)
        finetune(net, retain_loader, nn.CrossEntropyLoss())
