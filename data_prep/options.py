"""Checks of option values, for the command line and for callers of `prepare` alike."""

from __future__ import annotations

LARGEST_SEED = 2**32 - 1
MOST_BYTES = 4 << 30  # of pictures in one data set: they are put together in memory


class OptionError(ValueError):
    """The value of an option cannot be used; the message names the option and what it may be."""


def check_range(option: str, value: int, low: int, high: int, unit: str = "") -> None:
    """Raise an OptionError unless `value` lies from `low` to `high`.

    >>> check_range("--size", 4, 8, 1024, "pixels")
    Traceback (most recent call last):
        ...
    data_prep.options.OptionError: --size must be from 8 to 1,024 pixels, found 4.
    """
    if not low <= value <= high:
        unit = f" {unit}" if unit else ""
        raise OptionError(f"{option} must be from {low:,} to {high:,}{unit}, found {value}.")


def check_share(option: str, value: float) -> None:
    """Raise an OptionError unless `value` lies between 0 and 1; both ends, and NaN, are refused."""
    if not 0 < value < 1:
        raise OptionError(f"{option} must lie between 0 and 1, found {value}.")


def check_seed(seed: int) -> None:
    """Raise an OptionError unless `seed` is one that every generator takes."""
    check_range("--seed", seed, 0, LARGEST_SEED)


def check_room(n_pictures: int, size: int) -> None:
    """Raise an OptionError if so many pictures of `size` x `size` pixels would fill the memory."""
    needed = n_pictures * 3 * size * size
    if needed > MOST_BYTES:
        raise OptionError(
            f"{n_pictures:,} pictures of {size} px need {needed / 2**30:,.1f} GB, and a data set may have "
            f"{MOST_BYTES / 2**30:.0f}. Choose a smaller --size."
        )
