"""Retain and forget batches side by side."""

PAIRING = "cycle"

# SHARED: pairs
def pairs(retain_loader, forget_loader):
    """Yield retain and forget batches side by side, for as long as PAIRING says."""
    forget_batches = {"cycle": cycle(forget_loader), "zip": forget_loader}[PAIRING]
    return zip(retain_loader, forget_batches, strict=False)


def cycle(loader):
    """Yield the batches of `loader` without end, shuffled anew in each pass.

    Raises:
        ValueError: it has none.
    """
    if len(loader) == 0:
        raise ValueError("The forget loader has no batch: is its data set smaller than a batch, and drop_last on?")
    while True:
        yield from loader
# END: pairs
