"""Two teachers: the student copies the original model on a random part of the retain set, and an untrained
model on the forget set.

Source: Chundawat and others, arXiv:2205.08096; report, section 4.3, equations 3 to 5; "naive teachers" in its
table.

Reading: KL(teacher || student), averaged over the batch; 3 n_f retain pictures, drawn anew in each run,
shuffled together with the forget set. The untrained teacher normalises by the statistics of each batch: in eval
mode a fresh net turns raw pictures (0 to 255) into saturated outputs and not into the near-uniform ones that
are meant. Teachers do not change, so their logits are computed once.

Results: docs/methods/bad_teacher.md, from results/*/bad_teacher.json.
"""

import copy
from contextlib import contextmanager

import torch
from torch.utils.data import DataLoader, Subset

# SETTINGS
RETAIN_SCALE = 3  # retain pictures for each forget picture (report, Table 1)
DIRECTION = "teacher"  # KL(teacher || student), equations 3 and 4; "student": KL(student || teacher)
EPOCHS = 5  # passes through this small sample (report, section 5.4)
BATCH = 64  # as the competition's loaders
LR = 1e-4  # Adam; the paper's and the report's choice
WEIGHT_DECAY = 5e-3  # coupled, inside Adam, as in the report

# METHOD


def fresh_copy(net):
    """Return a net of the same shape with newly drawn weights."""
    fresh = copy.deepcopy(net)
    for module in fresh.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return fresh


# SHARED: gather
def gather(dataset, rows, device):
    """Return the pictures in the given rows of a dataset, ``[n, 3, H, W]`` on `device`."""
    batches = DataLoader(Subset(dataset, rows), batch_size=BATCH)
    return torch.cat([unpack(batch, device)[0] for batch in batches])
# END: gather


def even_batches(rows):
    """Split `rows` into parts of nearly equal size, at most BATCH: no batch of one for batch normalisation."""
    return rows.tensor_split(-(-len(rows) // BATCH))


@torch.no_grad()
def logits_of(net, images):
    """Return the logits of a net in the mode that it is in, ``[n, n_classes]``."""
    return torch.cat([net(images[rows]) for rows in even_batches(torch.arange(len(images)))])


def divergence(teacher, student):
    """Return KL(teacher || student) of each picture, ``[B]``, from logits: equations 3 and 4."""
    p, q = teacher.log_softmax(dim=1), student.log_softmax(dim=1)
    p, q = {"teacher": (p, q), "student": (q, p)}[DIRECTION]
    return (p.exp() * (p - q)).sum(dim=1)


def unlearning_loss(student, competent, incompetent, forget):
    """Return the batch mean of equation 5; `forget` is l_u, 1 for forget pictures and 0 for retain pictures."""
    return ((1 - forget) * divergence(competent, student) + forget * divergence(incompetent, student)).mean()


def teach(net, images, competent, incompetent, forget):
    """Minimise equation 5 over EPOCHS passes through the pictures; teachers are given by their logits."""
    optimizer = torch.optim.Adam(net.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    net.train()
    for _ in range(EPOCHS):
        for rows in even_batches(torch.randperm(len(images))):
            loss = unlearning_loss(net(images[rows]), competent[rows], incompetent[rows], forget[rows])
            descend(optimizer, loss)


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
    device = device_of(net)
    n_forget, n_retain = len(forget_loader.dataset), len(retain_loader.dataset)
    sample = torch.randperm(n_retain)[: RETAIN_SCALE * n_forget].tolist()
    with all_or_nothing(net):
        forget_images = gather(forget_loader.dataset, range(n_forget), device)
        images = torch.cat([forget_images, gather(retain_loader.dataset, sample, device)])
        forget = (torch.arange(len(images), device=device) < n_forget).float()
        competent = logits_of(net.eval(), images)
        incompetent = logits_of(fresh_copy(net).train(), images)
        teach(net, images, competent, incompetent, forget)
