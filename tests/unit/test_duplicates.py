import doctest
import io

import numpy as np
import pytest
from PIL import Image

from data_prep import duplicates
from tests.helpers.mufac import jpeg, pixels


def decode(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(duplicates.thumbnail(a) @ duplicates.thumbnail(b))


def test_doctests():
    result = doctest.testmod(duplicates)
    assert result.attempted >= 4
    assert result.failed == 0


def test_hash_depends_on_pixels_and_shape_only():
    a = pixels(1)
    assert duplicates.pixel_hash(a) == duplicates.pixel_hash(np.asfortranarray(a))
    changed = a.copy()
    changed[3, 4, 1] ^= 1
    assert duplicates.pixel_hash(a) != duplicates.pixel_hash(changed)
    assert duplicates.pixel_hash(a) != duplicates.pixel_hash(a.reshape(16, 64, 3))


def test_thumbnail_by_hand():
    # 32 x 32, left half black, right half white: cells are -127.5 and 127.5, and 256 of them have norm 1.
    half = np.zeros((32, 32, 3), dtype=np.uint8)
    half[:, 16:] = 255
    expected = np.tile(np.repeat([-1 / 16, 1 / 16], 8), 16)
    np.testing.assert_allclose(duplicates.thumbnail(half), expected, atol=1e-6)


def test_thumbnail_ignores_brightness_contrast_and_size():
    a = pixels(1, side=128)
    brighter = (a * 0.8 + 40).astype(np.uint8)
    assert correlation(a, brighter) > 0.999
    assert correlation(a, pixels(1, side=64)) > 0.99
    assert correlation(a, 255 - a) == pytest.approx(-1, abs=1e-5)


def test_flat_pictures_match_nothing():
    flat = np.full((32, 32, 3), 200, dtype=np.uint8)
    noisy = flat.copy()
    noisy[0, 0] = 190
    assert not duplicates.thumbnail(flat).any()
    assert correlation(noisy, noisy) == 0


def test_near_pairs_equal_a_slow_search_for_every_block_size():
    rng = np.random.default_rng(0)
    thumbnails = rng.normal(size=(40, 256)).astype(np.float32)
    thumbnails[[7, 30, 39]] = thumbnails[2] + 0.01 * rng.normal(size=(3, 256))
    thumbnails /= np.linalg.norm(thumbnails, axis=1, keepdims=True)
    slow = [(i, j) for i in range(40) for j in range(i + 1, 40) if thumbnails[i] @ thumbnails[j] > 0.99]
    assert slow == [(2, 7), (2, 30), (2, 39), (7, 30), (7, 39), (30, 39)]
    for block in (1, 3, 8, 40, 100):
        pairs, correlations = duplicates.near_pairs(thumbnails, block=block)
        assert sorted(map(tuple, pairs.tolist())) == slow
        assert (correlations > 0.99).all()


def test_near_pairs_of_nothing():
    pairs, correlations = duplicates.near_pairs(np.zeros((0, 256), dtype=np.float32))
    assert pairs.shape == (0, 2)
    assert correlations.shape == (0,)


def test_components_do_not_depend_on_the_order_of_pairs():
    pairs = np.array([[0, 5], [5, 3], [1, 2], [6, 2], [3, 0]])
    expected = [0, 1, 1, 0, 2, 0, 1]
    rng = np.random.default_rng(0)
    for _ in range(20):
        shuffled = rng.permuted(pairs[rng.permutation(len(pairs))], axis=1)
        assert duplicates.components(7, shuffled).tolist() == expected


def test_picture_groups_finds_both_forms():
    pictures = [decode(jpeg(n)) for n in (1, 2, 1, -1, 3, -3)]
    equal, either = duplicates.picture_groups(
        [duplicates.pixel_hash(p) for p in pictures], np.stack([duplicates.thumbnail(p) for p in pictures])
    )
    assert equal.tolist() == [0, 1, 0, 2, 3, 4]
    assert either.tolist() == [0, 1, 0, 0, 2, 2]


def test_people_are_joined_through_a_chain_of_pictures():
    # A and B share picture 1, B and C share picture 2, D stands alone.
    people = np.array([10, 10, 20, 20, 30, 40])
    pictures = np.array([0, 1, 1, 2, 2, 3])
    assert duplicates.resolve_people(people, pictures).tolist() == [0, 0, 0, 0, 0, 1]
