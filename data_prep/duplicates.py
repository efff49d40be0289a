"""Find repeated pictures and the people they join: pure functions on arrays.

A picture is repeated in two forms: *equal* (the same decoded pixels) and *near* (re-encoded or brightened).
Near copies are found on thumbnails: 16 x 16 grey levels with the mean removed and norm 1, so that their dot
product is a correlation, blind to brightness and contrast.
"""

from __future__ import annotations

import hashlib

import numpy as np
from PIL import Image

THUMBNAIL_SIDE = 16
NEAR_THRESHOLD = 0.99  # in MUFAC, copies correlate above 0.999 and different pictures below 0.98
_LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def pixel_hash(pixels: np.ndarray) -> str:
    """Return a hash of a decoded picture, uint8 ``[H, W, 3]``: equal for equal pixels and shape."""
    return hashlib.sha256(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """Return the thumbnail of a decoded picture, uint8 ``[H, W, 3]``, as float32 ``[256]`` of norm 1.

    A picture whose thumbnail varies by less than one grey level has nothing to compare: it gives zeros,
    which correlate with nothing.
    """
    grey = Image.fromarray(pixels.astype(np.float32) @ _LUMINANCE)
    small = np.asarray(grey.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX)).ravel()
    small = small - small.mean()
    norm = np.linalg.norm(small)
    return small / norm if norm > THUMBNAIL_SIDE else np.zeros_like(small)


def near_pairs(
    thumbnails: np.ndarray, threshold: float = NEAR_THRESHOLD, block: int = 1024
) -> tuple[np.ndarray, np.ndarray]:
    """Find all pairs of thumbnails, float32 ``[n, 256]``, that correlate above `threshold`.

    Returns:
        pairs int64 ``[n_pairs, 2]`` with ``i < j``, and their correlations float32 ``[n_pairs]``.

    >>> pairs, _ = near_pairs(np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]], dtype=np.float32), 0.7)
    >>> pairs.tolist()
    [[1, 2]]
    """
    pairs, correlations = [np.zeros((0, 2), dtype=np.int64)], [np.zeros(0, dtype=np.float32)]
    for start in range(0, len(thumbnails), block):
        correlation = thumbnails[start : start + block] @ thumbnails[start:].T
        i, j = np.nonzero(np.triu(correlation > threshold, k=1))
        pairs.append(np.stack([i, j], axis=1) + start)
        correlations.append(correlation[i, j])
    return np.concatenate(pairs), np.concatenate(correlations)


def components(n: int, pairs: np.ndarray) -> np.ndarray:
    """Label the connected components of `n` nodes joined by `pairs`, int ``[n_pairs, 2]``.

    Returns:
        int64 ``[n]``, components numbered from 0 in the order of their first node.

    >>> components(5, np.array([[3, 1], [4, 3]])).tolist()
    [0, 1, 2, 1, 1]
    """
    from scipy.sparse import coo_array  # imported where it is used: the other commands do without
    from scipy.sparse.csgraph import connected_components

    first, second = np.asarray(pairs, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(first), dtype=np.int8), (first, second)), shape=(n, n))
    return number(connected_components(graph, directed=False)[1])


def number(keys: list | np.ndarray) -> np.ndarray:
    """Number keys from 0 in the order of their first appearance, int64 ``[n]``.

    >>> number(["b", "a", "b"]).tolist()
    [0, 1, 0]
    """
    seen: dict = {}
    return np.array([seen.setdefault(key, len(seen)) for key in keys], dtype=np.int64)


def picture_groups(hashes: list[str], thumbnails: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Group `n` pictures that are the same.

    Args:
        hashes: ``[n]`` from `pixel_hash`.
        thumbnails: float32 ``[n, 256]`` from `thumbnail`.

    Returns:
        two groupings, int64 ``[n]`` each: by equal pixels, and by either form.
    """
    equal = number(hashes)
    _, first = np.unique(equal, return_index=True)
    pairs, _ = near_pairs(thumbnails[first])
    return equal, components(len(first), pairs)[equal]


def resolve_people(people: np.ndarray, pictures: np.ndarray) -> np.ndarray:
    """Join people who share a picture.

    Args:
        people: int ``[n]``, the person that each row names.
        pictures: int ``[n]``, the picture group of each row.

    Returns:
        int64 ``[n]``: the resolved person of each row, numbered in the order of first appearance.

    >>> resolve_people(np.array([0, 0, 1, 2, 2]), np.array([0, 1, 2, 1, 3])).tolist()
    [0, 0, 1, 0, 0]
    """
    people = number(people)
    _, first = np.unique(pictures, return_index=True)
    owner = people[first][np.unique(pictures, return_inverse=True)[1]]
    joined = components(int(people.max(initial=-1)) + 1, np.stack([owner, people], axis=1))
    return number(joined[people])
