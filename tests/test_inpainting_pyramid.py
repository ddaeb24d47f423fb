"""The image pyramid: its arithmetic by brute force, and how many levels a photograph gets."""

import numpy as np
import pytest

from pconv_jax.inpainting import pyramid
from pconv_jax.ops import pyramid as ops_pyramid


def example(height, width, channels=3, share=0.6, seed=0):
    """Returns noise, and a random mask in which about `share` of the pixels, at least one, are valid."""
    rng = np.random.default_rng(seed)
    valid = rng.random((height, width)) < share
    valid[0, 0] = True
    return rng.random((height, width, channels), np.float32), valid


@pytest.mark.parametrize(("height", "width", "channels"), [(6, 8, 3), (7, 5, 1), (1, 3, 3)])
def test_coarsen_is_the_mean_of_the_valid_pixels(height, width, channels):
    """Each pixel equals a loop over its 2 x 2 block; blocks at the edge of odd sizes have fewer pixels."""
    image, valid = example(height, width, channels)
    coarse, coarse_valid = pyramid.coarsen(image, valid)
    assert coarse.shape == ((height + 1) // 2, (width + 1) // 2, channels)
    for y in range(coarse.shape[0]):
        for x in range(coarse.shape[1]):
            block = np.s_[2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
            assert coarse_valid[y, x] == valid[block].any()
            mean = image[block][valid[block]].mean(axis=0) if valid[block].any() else np.zeros(channels)
            np.testing.assert_allclose(coarse[y, x], mean, atol=1e-6)


@pytest.mark.parametrize("size", [(8, 10), (7, 9), (8, 9)])
@pytest.mark.parametrize("channels", [1, 3])
def test_enlarge_is_bilinear(size, channels):
    """A loop gives each pixel 9/16, 3/16, 3/16 and 1/16 of its four neighbours; the border is repeated."""
    image, _ = example(4, 5, channels)
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    enlarged = pyramid.enlarge(image, size)
    assert enlarged.shape == (*size, channels)
    for y in range(size[0]):
        for x in range(size[1]):
            rows, columns = (1 + y // 2, y // 2 + 2 * (y % 2)), (1 + x // 2, x // 2 + 2 * (x % 2))
            expected = sum(
                weight * padded[rows[i], columns[j]] for i, j, weight in ((0, 0, 9), (0, 1, 3), (1, 0, 3), (1, 1, 1))
            )
            np.testing.assert_allclose(enlarged[y, x], expected / 16, atol=1e-6)


def test_interpolate_keeps_valid_pixels_and_fills_the_rest():
    """One valid pixel is enough, a constant stays a constant, and a ramp is continued within its range."""
    image, valid = example(13, 17, share=0.2)
    filled = pyramid.interpolate(image, valid)
    np.testing.assert_array_equal(filled[valid], image[valid])
    assert filled.min() >= image[valid].min() - 1e-6 and filled.max() <= image[valid].max() + 1e-6
    single = np.zeros((9, 30), bool)
    single[4, 7] = True
    filled = pyramid.interpolate(np.where(single[..., None], np.float32(0.3), np.float32(0.9)), single)
    np.testing.assert_allclose(filled, 0.3, atol=1e-6)
    assert filled.shape == (9, 30, 1)


def test_how_many_levels():
    """A deeper hole needs more levels, and no level is below the smallest size."""
    image, valid = np.zeros((200, 300, 3), np.float32), np.ones((200, 300), bool)
    valid[50:150, 100:200] = False

    def count(**options):
        return len(pyramid.build(image, valid, pyramid.Settings(**options)))

    assert count(threshold=60) == 1
    assert count(threshold=30) == 2  # 50 pixels deep, then 25
    assert count(threshold=8) == 4
    assert count(threshold=1, smallest=50) == 3
    assert count(threshold=1, smallest=51) == 2
    assert count(threshold=0, smallest=1) == 8  # no hole is left at 2 x 3 pixels
    valid[:] = True
    assert count(threshold=0) == 1


@pytest.mark.parametrize("size", [(33, 40), (16, 7)])
def test_training_and_filling_have_the_same_pyramid(size):
    """`ops.pyramid`, which training differentiates, and this module compute the same."""
    image, valid = example(*size, share=0.1)
    batch, mask = image[None], valid[None, ..., None].astype(np.float32)
    coarse, coarse_valid = pyramid.coarsen(image, valid)
    expected, expected_mask = ops_pyramid.coarsen(batch, mask)
    np.testing.assert_allclose(coarse, expected[0], atol=1e-6)
    np.testing.assert_array_equal(coarse_valid, expected_mask[0, ..., 0] == 1)
    np.testing.assert_allclose(pyramid.enlarge(coarse, size), ops_pyramid.enlarge(expected, size)[0], atol=1e-6)
    np.testing.assert_allclose(pyramid.interpolate(image, valid), ops_pyramid.interpolate(batch, mask)[0], atol=1e-6)
