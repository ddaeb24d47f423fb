"""Tests of tiles: they cover the image, their weights sum to one, and their results are blended."""

import itertools

import numpy as np
import pytest

from pconv_jax.inpainting import tiles

CASES = [(64, 64, 16), (48, 64, 16), (128, 64, 16), (176, 64, 16), (1024, 64, 16), (112, 64, 32), (80, 64, 4)]


@pytest.mark.parametrize(("length", "tile", "overlap"), CASES)
def test_tiles_cover_and_keep_the_grid(length, tile, overlap):
    """Every pixel lies in a tile, none reaches out, neighbours overlap, and starts stay on the grid of four."""
    starts = tiles.starts(length, tile, overlap)
    assert starts[0] == 0 and all(start % 4 == 0 for start in starts)
    if length <= tile:
        assert starts == [0]
        return
    assert starts[-1] + tile == length
    assert all(0 < b - a <= tile - overlap for a, b in itertools.pairwise(starts))


@pytest.mark.parametrize(("length", "tile", "overlap"), [case for case in CASES if case[0] >= case[1]])
def test_weights(length, tile, overlap):
    """Every pixel counts in some tile. The rim beside another tile does not count, and the image's own border does."""
    total = np.zeros(length)
    for start in tiles.starts(length, tile, overlap):
        weights = tiles.weights(start, length, tile, overlap)
        assert weights.dtype == np.float32 and weights.min() > 0 and weights.max() == 1
        quarter = overlap // 4
        assert (weights[:quarter] < 1e-5).all() == (start > 0)
        assert (weights[tile - quarter :] < 1e-5).all() == (start + tile < length)
        total[start : start + tile] += weights
    assert total.min() > 0.99


def test_two_tiles_share_their_overlap():
    """The ramps of neighbours at the regular distance sum to one, and fall from one tile to the other."""
    left, right = tiles.weights(0, 112, 64, 16), tiles.weights(48, 112, 64, 16)
    np.testing.assert_allclose(left[48:] + right[:16], 1, atol=1e-5)
    assert (np.diff(left[48:]) <= 0).all() and (left[:48] == 1).all()


def computed(values, calls, tile, unseen=()):
    """Returns a `predict` that reads the wanted result, and the list of the places where it was called."""

    def predict(top, left):
        calls.append((top, left))
        window = np.full((*tile, values.shape[-1]), np.nan, np.float32)
        part = values[top : top + tile[0], left : left + tile[1]]
        window[: part.shape[0], : part.shape[1]] = part
        return window, np.full(tile, (top, left) not in unseen)

    return predict


def test_blend_of_what_agrees_is_that():
    """Tiles of one result give that result, cut to the size of the image."""
    values = np.random.default_rng(0).random((90, 125, 3), np.float32)
    calls = []
    output, seen = tiles.blend((96, 128), (64, 64), 16, np.ones((90, 125), bool), computed(values, calls, (64, 64)))
    np.testing.assert_allclose(output, values, atol=1e-6)
    assert seen.all() and calls == [(y, x) for y in (0, 32) for x in (0, 48, 64)]


def test_tiles_without_wanted_pixels_are_skipped():
    """For one wanted pixel in the corner, one tile is computed."""
    wanted = np.zeros((96, 128), bool)
    wanted[2, 3] = True
    values, calls = np.ones((96, 128, 1), np.float32), []
    output, seen = tiles.blend((96, 128), (64, 64), 16, wanted, computed(values, calls, (64, 64)))
    assert calls == [(0, 0)] and output[2, 3, 0] == 1 and seen[2, 3] and not seen[:, 64:].any()


def test_what_a_tile_did_not_see_is_taken_from_another():
    """It is taken even from the rim of another tile; a pixel that no tile saw is 0 and reported."""
    values, calls = np.full((64, 112, 1), 0.5, np.float32), []
    wanted = np.ones((64, 112), bool)
    predict = computed(values, calls, (64, 64), unseen={(0, 48)})
    output, seen = tiles.blend((64, 112), (64, 64), 16, wanted, predict)
    assert seen[:, :64].all() and not seen[:, 64:].any()
    np.testing.assert_allclose(output[:, :64], 0.5, atol=1e-6)
    assert (output[:, 64:] == 0).all()
