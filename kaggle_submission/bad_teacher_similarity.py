"""Two teachers near the forget set: the student copies the original model on retain pictures that resemble the
forget set, and on the forget set a teacher whose last layers were trained on the retain set alone. Batches
alternate: one destroys, three rebuild.

Source: report, section 6.1.1, after the 12th team of the public leaderboard, whose write-up is not available.

Reading: what resembles is decided by cosine in the original's pooled features, NEIGHBOURS for each forget
picture. The bad teacher shares the original's first stages, which are run once, and trains a newly drawn last
stage and fc: the post's fresh net takes several epochs, and its entry ran out of time. Those first stages have
seen the forget set; SHARED = 0 has not.

Results: docs/methods/bad_teacher_similarity.md, from results/*/bad_teacher_similarity.json.
"""

import copy
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Subset

# SETTINGS
NEIGHBOURS = 5  # retain pictures that each forget picture chooses
ALPHA = 0.7  # share of the sample drawn from the chosen ones, in proportion to how often they were chosen
RETAIN_SCALE = 3  # retain pictures for each forget picture; more make larger retain batches, not more of them
REBUILD = 3  # retain batches after each forget batch
EPOCHS = 5  # passes through this small sample (report, section 5.4)
TEACHER_EPOCHS = 3  # passes of the bad teacher through the retain set; part of the time that is measured
TEACHER_LR = 1e-3  # Adam; newly drawn layers, so larger than LR
SHARED = 7  # modules that the bad teacher shares: conv1 to layer3; 0 is a fresh net, too slow for `quick`
BATCH = 64  # as the competition's loaders
LR = 1e-4  # Adam; the report's choice
WEIGHT_DECAY = 5e-3  # coupled, inside Adam, as in the report
CLASS_WEIGHTS = False  # True: weigh the bad teacher's loss by n / (n_classes * n_of_class), from the retain labels

# METHOD


def split(net):
    """Return the first SHARED modules of the net and, as a second net, the rest with fc last."""
    modules = list(net.children())
    front, back = modules[:SHARED], modules[SHARED:-1]
    return nn.Sequential(*front), nn.Sequential(*back, nn.Flatten(), modules[-1])


@torch.no_grad()
def front_outputs(front, dataset, device):
    """Return what the front of the net makes of every picture, and all labels, in the dataset's order."""
    front.eval()
    pairs = [unpack(batch, device) for batch in DataLoader(dataset, batch_size=256)]
    return torch.cat([front(images) for images, _ in pairs]), torch.cat([labels for _, labels in pairs])


def even_batches(rows, parts=None):
    """Split `rows` into parts of nearly equal size: as many as given, or with at most BATCH in each."""
    return rows.tensor_split(parts or -(-len(rows) // BATCH))


def train_teacher(back, maps, labels, criterion):
    """Train newly drawn layers of the shape of `back` on the retain set; return them in eval mode."""
    teacher = copy.deepcopy(back)
    for module in teacher.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    optimizer = torch.optim.Adam(teacher.parameters(), lr=TEACHER_LR)
    for _ in range(TEACHER_EPOCHS):
        for rows in even_batches(torch.randperm(len(maps))):
            teacher.train(len(rows) > 1)  # batch normalisation cannot use a single picture
            descend(optimizer, criterion(teacher(maps[rows]), labels[rows]))
    return teacher.eval()


def times_chosen(forget_features, retain_features):
    """Count how many forget pictures have each retain picture among their NEIGHBOURS, ``[n_retain]``."""
    similarity = functional.normalize(forget_features) @ functional.normalize(retain_features).T
    nearest = similarity.topk(min(NEIGHBOURS, len(retain_features))).indices
    return torch.bincount(nearest.flatten(), minlength=len(retain_features))


def draw_sample(chosen, n):
    """Draw `n` retain rows: a share ALPHA in proportion to `chosen`, the others uniformly from the rest."""
    n = min(n, len(chosen))
    n_similar = min(round(ALPHA * n), int((chosen > 0).sum()))
    similar = torch.multinomial(chosen.float(), n_similar) if n_similar else chosen[:0]
    left = torch.ones(len(chosen), device=chosen.device)
    left[similar] = 0
    others = left.nonzero().flatten()
    others = others[torch.randperm(len(others), device=chosen.device)[: n - n_similar]]
    return torch.cat([similar, others])


def divergence(teacher, student):
    """Return KL(teacher || student) of each picture, ``[B]``, from logits."""
    p, q = teacher.log_softmax(dim=1), student.log_softmax(dim=1)
    return (p.exp() * (p - q)).sum(dim=1)


def teach(net, forget_images, bad, retain_images, good, weights):
    """Alternate: a forget batch towards the bad teacher, REBUILD weighted retain batches to the good one."""
    optimizer = torch.optim.Adam(net.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    for _ in range(EPOCHS):
        forget_batches = even_batches(torch.randperm(len(forget_images)))
        retain_batches = even_batches(torch.randperm(len(retain_images)), REBUILD * len(forget_batches))
        for i, rows in enumerate(forget_batches):
            net.train(len(rows) > 1)  # as above
            descend(optimizer, divergence(bad[rows], net(forget_images[rows])).mean())
            for rows in retain_batches[REBUILD * i : REBUILD * (i + 1)]:
                net.train(len(rows) > 1)
                loss = weights[rows] * divergence(good[rows], net(retain_images[rows]))
                descend(optimizer, loss.mean())


# SHARED: gather
def gather(dataset, rows, device):
    """Return the pictures in the given rows of a dataset, ``[n, 3, H, W]`` on `device`."""
    batches = DataLoader(Subset(dataset, rows), batch_size=BATCH)
    return torch.cat([unpack(batch, device)[0] for batch in batches])
# END: gather

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
# SHARED: labels
def labels_of(dataset):
    """Return all labels of a map-style dataset, int64 ``[n]``."""
    items = (dataset[index] for index in range(len(dataset)))
    return torch.tensor([int(item["age_group"] if isinstance(item, dict) else item[1]) for item in items])
# END: labels
# SHARED: class_weights
def class_weights(net, loader):
    """Return n / (n_classes * n_of_class) of each class, on the net's device; no picture counts as one."""
    n_classes = net.fc.out_features
    counts = torch.bincount(labels_of(loader.dataset), minlength=n_classes).clamp(min=1)
    return (len(loader.dataset) / (n_classes * counts)).to(device_of(net))
# END: class_weights


def unlearning(net, retain_loader, forget_loader, val_loader):
    """Unlearn in place: see the top of the file."""
    net.to(memory_format=torch.channels_last)  # faster convolutions, the same weights
    device = device_of(net)
    retain, forget = retain_loader.dataset, forget_loader.dataset
    criterion = nn.CrossEntropyLoss(weight=class_weights(net, retain_loader) if CLASS_WEIGHTS else None)
    with all_or_nothing(net):
        front, back = split(net)
        retain_maps, retain_labels = front_outputs(front, retain, device)
        forget_maps, _ = front_outputs(front, forget, device)
        with torch.no_grad():
            features = back.eval()[:-1](retain_maps)
            chosen = times_chosen(back[:-1](forget_maps), features)
            sample = draw_sample(chosen, RETAIN_SCALE * len(forget))
            good = back[-1](features[sample])
        teacher = train_teacher(back, retain_maps, retain_labels, criterion)
        with torch.no_grad():
            bad = teacher(forget_maps)
        weights = chosen[sample].clamp(min=1).float()
        teach(
            net,
            gather(forget, range(len(forget)), device),
            bad,
            gather(retain, sample.tolist(), device),
            good,
            weights / weights.mean(),
        )
