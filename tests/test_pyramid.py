"""Tests of the image pyramid against slow loops, and of coarse-to-fine filling with any network."""

import itertools

import jax
import numpy as np
import pytest

import loops
from pconv_jax.ops import pyramid

SIZES = [(8, 8), (7, 10), (1, 5), (16, 3), (1, 1)]


def example(size, seed=0, valid=0.4):
    rng = np.random.default_rng(seed)
    image = rng.uniform(size=(2, *size, 3)).astype(np.float32)
    mask = (rng.uniform(size=(2, *size, 1)) < valid).astype(np.float32)
    mask[:, 0, 0] = 1
    return image, mask


@pytest.mark.parametrize("size", SIZES)
def test_coarsen_equals_the_loop(size):
    """A pixel is the mean of its block's valid pixels, or hole if there is none; odd sizes are rounded up."""
    image, mask = example(size)
    coarse, coarse_mask = pyramid.coarsen(np.where(mask != 0, image, np.nan), mask)
    expected, expected_mask = loops.coarsen(image, mask)
    np.testing.assert_allclose(coarse, expected, rtol=1e-6)
    np.testing.assert_array_equal(coarse_mask, expected_mask)


@pytest.mark.parametrize("size", SIZES)
def test_enlarge_equals_the_loop(size):
    """Enlarging is bilinear, also to one row or column less than twice the size."""
    image, _ = example(size)
    expected = loops.enlarge(image)
    height, width = expected.shape[1:3]
    np.testing.assert_allclose(pyramid.enlarge(image, (height, width)), expected, rtol=1e-5, atol=1e-6)
    cut = pyramid.enlarge(image, (height - 1, width - 1))
    np.testing.assert_allclose(cut, expected[:, :-1, :-1], rtol=1e-5, atol=1e-6)


def test_enlarge_keeps_a_ramp():
    """Away from the border, a plane has half the slope when it is enlarged."""
    ramp = np.arange(8, dtype=np.float32).reshape(1, 8, 1, 1) * np.ones((1, 1, 8, 1), np.float32)
    np.testing.assert_allclose(pyramid.enlarge(ramp, (16, 16))[0, 1:-1, 3, 0], np.arange(14) / 2 + 0.25, rtol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_interpolate_fills_everything_between_the_valid_pixels(size):
    """Valid pixels stay, holes lie in the range of the valid ones, and a constant image comes back."""
    image, mask = example(size, valid=0.1)
    filled = np.asarray(pyramid.interpolate(np.where(mask != 0, image, np.nan), mask))
    np.testing.assert_array_equal(np.where(mask != 0, filled, 0), np.where(mask != 0, image, 0))
    for n in range(2):
        seen = image[n][mask[n, ..., 0] != 0]
        assert (filled[n] >= seen.min(axis=0) - 1e-6).all() and (filled[n] <= seen.max(axis=0) + 1e-6).all()
    np.testing.assert_allclose(pyramid.interpolate(np.full_like(image, 0.3), mask), 0.3, rtol=1e-6)


def test_interpolate_without_a_valid_pixel_is_zero():
    image, mask = example((4, 4))
    np.testing.assert_array_equal(pyramid.interpolate(image, 0 * mask), 0)


def test_coarse_to_fine_guides_each_level_by_the_one_below():
    """Each level gets the enlarged composite of the coarser level as the guess, with the right sizes and masks."""
    image, mask = example((12, 8), valid=0.05)
    seen = []

    def network(level_image, level_mask, guess):
        seen.append((np.asarray(level_image), np.asarray(level_mask), np.asarray(guess)))
        return guess + 1

    outputs = pyramid.coarse_to_fine(network, image, mask, 3)
    assert [output.shape[1:3] for output in outputs] == [(12, 8), (6, 4), (3, 2)]
    assert [level[0].shape[1:3] for level in seen] == [(3, 2), (6, 4), (12, 8)]
    np.testing.assert_array_equal(seen[0][2], pyramid.interpolate(*seen[0][:2]))
    for coarse, fine in itertools.pairwise(seen):
        np.testing.assert_allclose(coarse[0], loops.coarsen(fine[0], fine[1])[0], rtol=1e-6)
        composite = np.where(coarse[1] != 0, coarse[0], coarse[2] + 1)
        np.testing.assert_allclose(fine[2], loops.enlarge(composite), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(outputs[0], seen[-1][2] + 1)


def test_levels_are_trained_one_by_one():
    """No gradient flows from a level to the coarser one, so the loss of each level trains its own output."""
    image, mask = example((8, 8), valid=0.05)

    def finest(scales):
        calls = iter(scales)
        return pyramid.coarse_to_fine(lambda image, mask, guess: next(calls) * guess, image, mask, 2)[0].sum()

    coarse, fine = jax.grad(finest)(np.ones(2, np.float32))
    assert coarse == 0 and fine != 0


def test_more_levels_than_the_size_has_are_harmless():
    """A level of one pixel may have a coarser level, which also has one pixel."""
    image, mask = example((4, 4), valid=0.05)
    outputs = pyramid.coarse_to_fine(lambda image, mask, guess: guess, image, mask, 5)
    assert [output.shape[1:3] for output in outputs] == [(4, 4), (2, 2), (1, 1), (1, 1), (1, 1)]
