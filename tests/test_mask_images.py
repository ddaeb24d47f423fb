"""Tests that training and filling read mask images by the same rule."""

import cv2
import numpy as np
import pytest

import bad_files
from pconv_jax import errors
from pconv_jax.data import mask_folder
from pconv_jax.inpainting import drawn_masks, photograph
from pconv_jax.reading import images, mask_images

HOLE = images.decode(bad_files.encoded("mask.png")).pixels[..., 0] > 0


def mask(array, alpha=None):
    """Returns the hole of an array as a mask image with a white hole."""
    array = array if array.ndim == 3 else array[..., None]
    return mask_images.hole(images.Image(array, alpha), "white_hole")


@pytest.mark.parametrize("name", ["mask.png", "f09_mask_0_1.png", "f02_mask_white_is_zero16.tif"])
@pytest.mark.parametrize("polarity", mask_images.POLARITIES)
def test_training_and_filling_read_the_same_mask(name, polarity):
    """Masks of 0 and 255, of 0 and 1, and of 16 bits with white as zero show the same hole to both."""
    path = str(bad_files.DIRECTORY / name)
    hole = HOLE if polarity == "white_hole" else ~HOLE
    np.testing.assert_array_equal(mask_folder.read_hole(path, polarity), hole)
    drawn = photograph.read(path, 10**6)
    np.testing.assert_array_equal(drawn_masks.from_image(drawn, polarity), 1 - hole)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("value", [1, 2, 100, 255])
def test_two_values_are_black_and_white(dtype, value):
    """A mask of 0 and one other value is taken as the mask it is, however dark the value."""
    np.testing.assert_array_equal(mask(HOLE * dtype(value)), HOLE)
    np.testing.assert_array_equal(mask(np.stack([HOLE * dtype(value)] * 3, axis=-1)), HOLE)


def test_many_dark_values_are_an_error():
    """Where nothing is white, the error says what the brightest value is and what is needed."""
    dark = HOLE * np.uint8(2)
    dark[0, :2] = 0, 1
    with pytest.raises(errors.UserError, match="whose brightest value is 2 of 255, so that nothing is white: save it"):
        mask(dark)
    with pytest.raises(errors.UserError, match="whose brightest value is 127 of 255"):
        mask(np.full((9, 9), 127, np.uint8))
    assert not mask(np.zeros((9, 9), np.uint8)).any()  # No hole is no error here: a folder has such masks.


def test_colour_is_judged_over_the_visible_pixels():
    """A small red stroke on black is coloured, though it covers less than a percent of the image."""
    red = np.zeros((200, 200, 3), np.uint8)
    red[90:96, 90:110, 0] = 255
    with pytest.raises(errors.UserError, match="is a mask in colour"):
        mask(red)
    path_of_white = red.max(axis=-1, keepdims=True).repeat(3, axis=-1)
    assert mask(path_of_white).sum() == 120


def test_a_coloured_jpeg_of_black_and_white_is_a_mask():
    """The colours that JPEG makes along edges are no colour."""
    drawn = np.zeros((90, 120, 3), np.uint8)
    cv2.circle(drawn, (50, 40), 20, (255, 255, 255), -1)
    encoded = cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, 60])[1].tobytes()
    hole = mask_images.hole(images.decode(encoded), "white_hole")
    assert np.count_nonzero(hole != (drawn[..., 0] > 127)) < 20


def test_transparency_of_a_mask():
    """A few pixels of little transparency do not matter; a mask with transparent pixels is an error."""
    drawn, alpha = HOLE * np.uint8(255), np.full((*HOLE.shape, 1), 255, np.uint8)
    alpha[3, 4] = 254
    np.testing.assert_array_equal(mask(drawn, alpha), HOLE)
    alpha[5, 6] = 0
    with pytest.raises(errors.UserError, match="is a mask with transparent pixels"):
        mask(drawn, alpha)


def test_grey_share_of_a_dark_mask():
    """A mask of 0 and 1 has no grey."""
    assert mask_images.grey_share(images.Image(HOLE[..., None].astype(np.uint8))) == 0
    assert mask_images.grey_share(images.Image(np.full((9, 9, 3), 100, np.uint8))) in (0.0, 1.0)
