"""Decode pictures that others made: bounded in size, and each fault a sentence."""

from __future__ import annotations

import io
import warnings

from PIL import Image

LARGEST_SIDE = 1024  # pixels; the pictures of the competition have 32, those of MUFAC 128
MOST_BYTES = 4 << 20  # of a picture's file


def decode(
    data: bytes,
    form: str,
    what: str,
    repair: str,
    *,
    smallest: int = 8,
    largest: int = LARGEST_SIDE,
    square: bool = True,
) -> Image.Image:
    """Decode one picture to RGB.

    Args:
        form: "JPEG" or "PNG", as Pillow calls them; no other decoder sees the bytes.
        what: names the picture in an error.
        repair: the sentence that follows an error.
        smallest, largest: sides that are accepted, pixels.
        square: refuse a picture whose sides differ.

    Raises:
        ValueError: the picture is damaged, of another format or of another size.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's doubts about a file that the checks below settle
            if form == "PNG":
                Image.open(io.BytesIO(data), formats=(form,)).verify()  # its checksums, which decoding skips
            picture = Image.open(io.BytesIO(data), formats=(form,))
            width, height = picture.size
            fits = smallest <= min(width, height) and max(width, height) <= largest
            if fits and (width == height or not square):
                return picture.convert("RGB")
    except Exception as error:  # Pillow raises whatever the damaged bytes lead to
        raise ValueError(f"{what} is not a whole {form} picture ({error}). {repair}") from error
    shape = "a square of" if square else "sides of"
    raise ValueError(f"{what} has {width} x {height} pixels, expected {shape} {smallest} to {largest}. {repair}")
