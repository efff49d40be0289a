"""Rapid retraining: train on the retain set with Newton-like steps, each weight's divided by a running estimate of
its own curvature, so that few passes are enough. The back of the net starts anew.

Source: Liu and others, arXiv:2203.07320 (RapidFed in the report's survey); Yao and others, arXiv:2006.00719
(AdaHessian, which its code takes).

Reading: clients and rounds are left out, and the front keeps its weights: the source starts all anew, for which
there is no time. Curvature is Hutchinson's estimate of the Hessian's diagonal, as in the code, from one batch in
EVERY. The paper has squared gradients for it, which CURVATURE = "fisher" takes.

Results: docs/methods/rapid_retrain.md, from results/*/rapid_retrain.json.
"""

import copy
from contextlib import contextmanager
from itertools import islice

import torch
from torch import nn
from torch.nn import functional

# SETTINGS
K = 1  # stages that start anew, from the back, and fc with them; the source: the whole net
CURVATURE = "hessian"  # "fisher": squared gradients
EVERY = 4  # batches to each estimate of the curvature; one of "hessian" takes two more backward passes
EPOCHS = 1.0  # passes through the retain set
LR = 1e-2  # the source's
BETAS = (0.9, 0.999)  # of the running means of gradients and of squared curvatures; the source's
DAMPING = 1e-4  # added to the curvature; AdaHessian's

# METHOD
# SHARED: fresh
def draw_anew(modules):
    """Draw the weights of all given modules as torchvision does at the start of training."""
    for module in modules:
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
# END: fresh


# SHARED: last_stages
def last_stages(net):
    """Return the last K of the four stages, and fc."""
    return [*[net.layer1, net.layer2, net.layer3, net.layer4][4 - K :], net.fc]


@contextmanager
def frozen_but(net, modules):
    """Let gradients reach only the given modules, as long as the block lasts."""
    net.requires_grad_(False)
    for module in modules:
        module.requires_grad_(True)
    try:
        yield
    finally:
        net.requires_grad_(True)
# END: last_stages


# SHARED: passes
def n_steps(loader, epochs):
    """Return the number of batches in `epochs` passes through `loader`, at least one."""
    return max(1, round(epochs * len(loader)))


def passes(loader, epochs, device):
    """Yield pictures and labels of each batch in `epochs` passes; a fraction ends the last pass early.

    A batch of one picture waits for the next one: batch normalisation cannot use it alone.
    """
    left, waiting = n_steps(loader, epochs), []
    while left > 0:
        for batch in islice(loader, left):
            left -= 1
            waiting.append(unpack(batch, device))
            images, labels = map(torch.cat, zip(*waiting, strict=True))
            if len(labels) > 1:
                waiting = []
                yield images, labels
# END: passes


def curvature_of(gradients, parameters, n_pictures):
    """Return how curved the loss of a batch is along each weight, a list of tensors shaped as the parameters.

    A convolution's is averaged over each kernel.
    """
    if CURVATURE == "fisher":
        diagonal = [n_pictures * gradient.detach().square() for gradient in gradients]  # that of single pictures
    else:
        signs = [torch.randint_like(parameter, 2) * 2 - 1 for parameter in parameters]
        products = torch.autograd.grad(gradients, parameters, signs)
        diagonal = [(sign * product).abs() for sign, product in zip(signs, products, strict=True)]
    return [d.mean(dim=(2, 3), keepdim=True).expand_as(d) if d.dim() == 4 else d for d in diagonal]


def update(averages, values, beta):
    """Move running means, which begin at zero, towards new values."""
    for average, value in zip(averages, values, strict=True):
        average.lerp_(value, 1 - beta)


@torch.no_grad()
def step(parameters, means, squares, n_means, n_squares):
    """Take a step of LR mean gradient / (root mean square curvature + DAMPING); `n_*` are updates so far."""
    shares = [1 - beta**n for beta, n in zip(BETAS, (n_means, n_squares), strict=True)]  # of a mean begun at zero
    for parameter, mean, square in zip(parameters, means, squares, strict=True):
        parameter -= LR * mean / shares[0] / ((square / shares[1]).sqrt() + DAMPING)


def train(net, loader):
    """Minimise cross-entropy over EPOCHS passes."""
    parameters = list(net.parameters())
    means, squares = ([torch.zeros_like(parameter) for parameter in parameters] for _ in BETAS)
    net.train()
    for i, (images, labels) in enumerate(passes(loader, EPOCHS, device_of(net))):
        loss, estimate = functional.cross_entropy(net(images), labels), i % EVERY == 0
        gradients = torch.autograd.grad(loss, parameters, create_graph=estimate and CURVATURE == "hessian")
        if estimate:
            update(squares, [size.square() for size in curvature_of(gradients, parameters, len(labels))], BETAS[1])
        update(means, [gradient.detach() for gradient in gradients], BETAS[0])
        step(parameters, means, squares, i + 1, i // EVERY + 1)


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
    with all_or_nothing(net):
        draw_anew(module for back in last_stages(net) for module in back.modules())
        net.to(memory_format=torch.channels_last)  # faster convolutions, the same weights
        train(net, retain_loader)
