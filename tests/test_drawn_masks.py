"""Masks that people drew: polarity, threshold, growth and feathering."""

import numpy as np
import pytest

import loops
import pictures
from pconv_jax.inpainting import drawn_masks, photograph

DTYPES = (np.uint8, np.uint16)


def drawn(pixels, alpha=None, dtype=np.uint8):
    """Returns a photograph of `[H, W, C]` fractions of white."""
    white = np.iinfo(dtype).max

    def scaled(x):
        return np.round(np.asarray(x) * white).astype(dtype)

    return photograph.Photograph(scaled(pixels), None if alpha is None else scaled(alpha))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 3])
def test_polarity_and_threshold(dtype, channels):
    """Values above half of white count as white at every depth, and the two polarities are opposites."""
    grey = np.asarray([[0, 0.2, 0.49], [0.51, 0.9, 1]])
    image = drawn(np.repeat(grey[..., None], channels, -1), dtype=dtype)
    white_hole = drawn_masks.from_image(image, "white_hole")
    assert white_hole.dtype == np.uint8
    np.testing.assert_array_equal(white_hole, [[1, 1, 1], [0, 0, 0]])
    np.testing.assert_array_equal(drawn_masks.from_image(image, "black_hole"), 1 - white_hole)


@pytest.mark.parametrize("dtype", DTYPES)
def test_alpha(dtype):
    """With polarity alpha, pixels of at most half opacity are hole, whatever their colours are."""
    alpha = np.asarray([[0, 0.49, 0.51, 1]])[..., None]
    mask = drawn_masks.from_image(drawn(np.zeros((1, 4, 3)), alpha, dtype), "alpha")
    np.testing.assert_array_equal(mask, [[0, 0, 1, 1]])


def test_a_mask_with_an_opaque_alpha_channel_is_a_mask():
    """An opaque alpha channel, which editors add to every file, does not matter."""
    mask = drawn_masks.from_image(drawn([[[0.0], [1.0]]], [[[1.0], [1.0]]]), "white_hole")
    np.testing.assert_array_equal(mask, [[1, 0]])


@pytest.mark.parametrize(
    ("image", "polarity", "message"),
    [
        (drawn(np.zeros((4, 4, 3))), "alpha", "has no alpha channel: give a mask"),
        (drawn(np.zeros((4, 4, 1)), np.zeros((4, 4, 1))), "white_hole", "transparent pixels, neither white nor black"),
        (drawn(np.broadcast_to([1.0, 0, 0], (4, 4, 3))), "white_hole", "a mask in colour; needs black and white"),
    ],
)
def test_what_is_no_mask(image, polarity, message):
    with pytest.raises(ValueError, match=message):
        drawn_masks.from_image(image, polarity)


def test_grey_share():
    """A photograph is mostly grey, a mask is not, and its soft edge counts little."""
    assert drawn_masks.grey_share(drawn(np.random.default_rng(0).random((50, 50, 3)))) == pytest.approx(0.8, abs=0.05)
    edge = np.zeros((10, 10, 1))
    edge[:, 5:], edge[:, 4] = 1, 0.5
    assert drawn_masks.grey_share(drawn(edge)) == pytest.approx(0.1)


def random_mask(seed, size=(24, 31)):
    """Returns a mask with a few holes."""
    return (np.random.default_rng(seed).random(size) > 0.02).astype(np.uint8)


@pytest.mark.parametrize("distance", [0, 1, 2, 3, 7])
def test_grow_is_by_distance(distance):
    """A pixel becomes hole if a hole lies within the distance, as a loop over all pairs of pixels finds."""
    mask = random_mask(distance)
    holes = np.argwhere(mask == 0)
    expected = np.ones_like(mask)
    for place in np.ndindex(*mask.shape):
        expected[place] = (((holes - place) ** 2).sum(axis=1) > distance**2 + 1e-6).all()
    np.testing.assert_array_equal(drawn_masks.grow(mask, distance), expected)


def test_grow_by_one_is_less_than_a_square():
    """Growing is round, so it covers less than a 3x3 window does."""
    mask = random_mask(5)
    assert (drawn_masks.grow(mask, 1) >= 1 - loops.dilate(1 - mask, (3, 3))).all()


def test_grow_of_no_hole_is_none():
    full = np.ones((5, 6), np.uint8)
    np.testing.assert_array_equal(drawn_masks.grow(full, 3), full)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("grown_by", "distance"), [(1, 1), (4, 4), (4, 2), (4, 0)])
def test_feather_stays_in_the_band(grown_by, distance, channels):
    """Nothing changes outside the grown hole, the drawn hole has the filling, and values in the band lie between."""
    mask = np.ones((30, 40), np.uint8)
    mask[10:20, 12:25] = 0
    grown = drawn_masks.grow(mask, grown_by)
    image, filled = pictures.noise(1, 30, 40, channels), pictures.noise(2, 30, 40, channels)
    filled = np.where(grown[..., None], image, filled)
    result = drawn_masks.feather(image, filled, mask, grown, distance)
    assert result.dtype == image.dtype
    np.testing.assert_array_equal(result[grown == 1], image[grown == 1])
    np.testing.assert_array_equal(result[mask == 0], filled[mask == 0])
    low, high = np.minimum(image, filled), np.maximum(image, filled)
    assert ((result >= low) & (result <= high)).all()
    assert (result != filled).any() == (distance > 0)


def test_feather_by_hand():
    """Over two of three pixels of a band, 0 to 60000 becomes a third, two thirds and all of it."""
    mask = np.asarray([[1, 1, 1, 1, 0, 1, 1, 1, 1]], np.uint8)
    grown = drawn_masks.grow(mask, 3)
    image = np.zeros((1, 9, 1), np.uint16)
    filled = np.where(grown[..., None], image, 60000).astype(np.uint16)
    result = drawn_masks.feather(image, filled, mask, grown, 2)
    np.testing.assert_array_equal(result[0, :, 0], [0, 20000, 40000, 60000, 60000, 60000, 40000, 20000, 0])
