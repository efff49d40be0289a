"""Exact heads: freeze the backbone and set fc in closed form, as it is after exact deletion of the forget set from
a linear model on the backbone's features. The backbone itself still remembers.

Source: report, survey of systems: Amnesia and GraphEditor (ridge), MUPy (class statistics), CertifiedRem,
arXiv:1911.03030 (Newton), PRU, arXiv:2002.10077 (projective residual), DelKMeans, arXiv:1907.05012 (nearest
prototype), GraphProjector (span).

Reading: each fits a linear head on features of retain and forget pictures and then deletes the forget rows. Where
fc can take the result as logits it does (class statistics, prototypes); else fc moves by SCALE times what deletion
changes in the fitted head. The retain rows are a random sample in each run, as the forms are deterministic.

Results: docs/methods/exact_head.md, from results/*/exact_head.json.
"""

import copy
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Subset

# SETTINGS
HEAD = "ridge"  # "class_statistics", "newton", "projective", "prototypes" or "span"
RETAIN_SHARE = 0.8  # of the retain pictures, drawn anew in each run; 1 takes all, and all runs are then one model
RIDGE = 1.0  # added to the diagonal of sums of squares; in "newton" the decay of the sum of losses
SHRINKAGE = 0.1  # of the scatter in "class_statistics" to a multiple of the identity
NEWTON_STEPS = 10  # that fit the head of "newton" before deletion
SCALE = 5.0  # times the change of the fitted head that fc takes, but for the two heads that are logits
TAIL_EPOCHS = 0  # passes of fine-tuning the whole net on the retain set afterwards; 1 adds spread
LR = 1e-4  # of the tail: Adam, as in finetune.py
WEIGHT_DECAY = 5e-3  # of the tail

# METHOD

@torch.no_grad()
def features_of(net, dataset, rows):
    """Return pooled features with a last column of ones, float64 ``[n, d + 1]``, and labels of the given rows."""
    backbone = nn.Sequential(*[*net.children()][:-1], nn.Flatten()).eval()
    batches = [unpack(b, device_of(net)) for b in DataLoader(Subset(dataset, rows), batch_size=256)]
    features = torch.cat([backbone(images) for images, _ in batches]).double()
    return functional.pad(features, (0, 1), value=1.0), torch.cat([labels for _, labels in batches])


def identity(matrix):
    """Return the identity of the size of a square matrix."""
    return torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)


def fit_ridge(x, y):
    """Return (X^T X + RIDGE I)^-1 and the ridge weights ``[d, K]`` for one-hot targets `y`."""
    squares = x.T @ x
    inverse = torch.linalg.inv(squares + RIDGE * identity(squares))
    return inverse, inverse @ x.T @ y


def leave_out(x_f, y_f, inverse, weights):
    """Return what the ridge head predicts for the forget rows once it is fitted without them."""
    hat = x_f @ inverse @ x_f.T
    return y_f - torch.linalg.solve(identity(hat) - hat, y_f - x_f @ weights)


def ridge_change(x, y, x_f, y_f):
    """Return the change of the ridge head by deleting the forget rows: the downdate of Woodbury's formula."""
    inverse, weights = fit_ridge(x, y)
    return -inverse @ x_f.T @ (y_f - leave_out(x_f, y_f, inverse, weights))


def projective_change(x, y, x_f, y_f):
    """Return that change projected on the span of the forget rows, from their leave-out predictions alone."""
    inverse, weights = fit_ridge(x, y)
    return -torch.linalg.pinv(x_f) @ (x_f @ weights - leave_out(x_f, y_f, inverse, weights))


def span_change(x, y, x_f, y_f):
    """Return the change by projecting the ridge head of all rows on the span of the retain rows."""
    _, weights = fit_ridge(x, y)
    x_r = x[: len(x) - len(x_f)]
    return torch.linalg.pinv(x_r) @ (x_r @ weights) - weights


def newton_solve(weights, x, right):
    """Return, for each class, the inverse of the Hessian over rows `x`, with decay, times a column of `right`."""
    p = torch.sigmoid(x @ weights)
    hessians = torch.stack([x.T @ (scale[:, None] * x) for scale in (p * (1 - p)).T])
    return torch.linalg.solve(hessians + RIDGE * identity(hessians[0]), right.T[:, :, None])[:, :, 0].T


def fit_newton(x, y):
    """Return the weights ``[d, K]`` that minimise the sum of logistic losses and RIDGE / 2 times their squares."""
    weights = torch.zeros(x.shape[1], y.shape[1], dtype=x.dtype, device=x.device)
    for _ in range(NEWTON_STEPS):
        weights = weights - newton_solve(weights, x, x.T @ (torch.sigmoid(x @ weights) - y) + RIDGE * weights)
    return weights


def newton_change(x, y, x_f, y_f):
    """Return one Newton step from the one-against-rest logistic heads of all rows to those of the retain rows."""
    weights = fit_newton(x, y)
    return newton_solve(weights, x[: len(x) - len(x_f)], x_f.T @ (torch.sigmoid(x_f @ weights) - y_f))


def without(x, y, x_f, y_f):
    """Return class counts and means and sums of squares over all rows less the forget rows; an empty class has the
    mean of the largest one, under whose logit its bias then puts it whatever the features."""
    counts = y.sum(dim=0) - y_f.sum(dim=0)
    means = ((y.T @ x - y_f.T @ x_f) / counts.clamp(min=1)[:, None])[:, :-1]
    means[counts == 0] = means[counts.argmax()]
    return counts, means, x.T @ x - x_f.T @ x_f


def class_statistics_head(x, y, x_f, y_f):
    """Return the head of linear discriminant analysis ``[d, K]`` from sums that the forget rows are taken from."""
    counts, means, squares = without(x, y, x_f, y_f)
    scatter = (squares[:-1, :-1] - (counts[:, None] * means).T @ means) / counts.sum()
    round_scatter = scatter.trace() / len(scatter) * identity(scatter)
    weights = torch.linalg.solve(scatter.lerp(round_scatter, SHRINKAGE), means.T)
    bias = (counts.clamp(min=1e-300) / counts.sum()).log() - (means.T * weights).sum(dim=0) / 2
    return torch.cat([weights, bias[None]])


def prototypes_head(x, y, x_f, y_f):
    """Return the head whose logits are -|z - mean of the class|^2 / 2, in units of the mean variance."""
    counts, means, squares = without(x, y, x_f, y_f)
    spread = (squares.diagonal()[:-1].sum() - (counts * means.square().sum(dim=1)).sum()) / counts.sum()
    variance = (spread / means.shape[1]).clamp(min=1e-12)
    return torch.cat([means.T, -(means.square().sum(dim=1) / 2 + 1e6 * (counts == 0))[None]]) / variance


@torch.no_grad()
def set_head(net, retain, forget):
    """Set fc as HEAD says."""
    rows = torch.randperm(len(retain))[: max(1, round(RETAIN_SHARE * len(retain)))].tolist()
    x_r, labels_r = features_of(net, retain, rows)
    x_f, labels_f = features_of(net, forget, range(len(forget)))
    x = torch.cat([x_r, x_f])
    y = functional.one_hot(torch.cat([labels_r, labels_f]), net.fc.out_features).to(x.dtype)
    heads = {"class_statistics": class_statistics_head, "prototypes": prototypes_head}
    changes = {"ridge": ridge_change, "newton": newton_change, "projective": projective_change}
    made = {**heads, **changes, "span": span_change}[HEAD](x, y, x_f, y[len(x_r) :]).to(net.fc.weight.dtype)
    old = torch.cat([net.fc.weight.T, net.fc.bias[None]])
    new = made if HEAD in heads else old + SCALE * made
    net.fc.weight.copy_(new[:-1].T)
    net.fc.bias.copy_(new[-1])


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
    with all_or_nothing(net):
        set_head(net, retain_loader.dataset, forget_loader.dataset)
        finetune(net, retain_loader, nn.CrossEntropyLoss())
