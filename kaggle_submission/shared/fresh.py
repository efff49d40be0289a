"""A net as it is at the start of training."""

from torch import nn


# SHARED: fresh
def draw_anew(modules):
    """Draw the weights of all given modules as torchvision does at the start of training."""
    for module in modules:
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
# END: fresh
