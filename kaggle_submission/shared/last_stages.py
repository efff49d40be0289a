"""The back of a net, and a way to train it alone."""

from contextlib import contextmanager

K = 1


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
