"""Tests of the baselines: they keep valid pixels, read no hole, and fill as documented."""

import numpy as np
import pytest
import skimage.restoration

import pictures
import scoring
from pconv_jax.errors import UserError
from pconv_jax.evaluation import baselines

needs_gmic = pytest.mark.skipif(not baselines.gmic_is_installed(), reason="the program gmic is not installed")
METHODS = [pytest.param(name, marks=needs_gmic) if name == "GMIC" else name for name in baselines.BASELINES]


def smooth(channels, height=20, width=24):
    """Returns a ramp, which any inpainting continues well."""
    y, x = np.mgrid[:height, :width]
    return np.stack([60 + (c + 2) * x + 3 * y for c in range(channels)], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("method", METHODS)
def test_baselines_keep_valid_pixels_and_read_no_hole(method, channels):
    """Valid pixels stay unchanged, and pixel values in the hole do not matter."""
    image, mask = pictures.noise(0, 20, 24, channels), scoring.hole()
    filled = baselines.BASELINES[method](image, mask)
    assert filled.dtype == np.uint8 and filled.shape == image.shape
    valid = np.broadcast_to(mask == 1, image.shape)
    np.testing.assert_array_equal(filled[valid], image[valid])
    for junk in (0, 255):
        spoiled = np.where(mask == 1, image, junk).astype(np.uint8)
        np.testing.assert_array_equal(baselines.BASELINES[method](spoiled, mask), filled)


@pytest.mark.parametrize("method", METHODS)
def test_baselines_without_and_with_nothing_but_holes(method):
    """Without a hole the image is returned; without valid pixels some image is returned, without an error."""
    image, mask = pictures.noise(0, 20, 24), np.ones((20, 24, 1), np.uint8)
    np.testing.assert_array_equal(baselines.BASELINES[method](image, mask), image)
    assert baselines.BASELINES[method](image, 0 * mask).shape == image.shape


def test_mean_fill_is_the_mean_of_the_valid_pixels():
    """The valid values 10, 20 and 31 give 20 per channel, and sums do not overflow uint8."""
    image = np.asarray([[10, 20], [31, 99]], np.uint8)[..., None] * np.asarray([1, 2], np.uint8)
    mask = np.asarray([[1, 1], [1, 0]], np.uint8)[..., None]
    np.testing.assert_array_equal(baselines.mean_fill(image, mask)[1, 1], [20, 41])
    bright = np.full((64, 64, 3), 250, np.uint8)
    large = scoring.hole(64, 64)
    np.testing.assert_array_equal(baselines.mean_fill(np.where(large, bright, 0).astype(np.uint8), large), bright)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("method", ["Telea", "Navier-Stokes", "FSR", pytest.param("GMIC", marks=needs_gmic)])
def test_fillers_by_others_fill_holes_and_not_the_rest(method, channels):
    """On a ramp each algorithm is far better than the mean, so each gets the mask in the polarity that it expects."""
    image, mask = smooth(channels), scoring.hole()
    error = np.abs(baselines.BASELINES[method](image, mask).astype(int) - image)[mask[..., 0] == 0].mean()
    mean_error = np.abs(baselines.mean_fill(image, mask).astype(int) - image)[mask[..., 0] == 0].mean()
    assert error < 0.4 * mean_error


def test_biharmonic_is_scikit_images():
    """The result is scikit-image's rounded to uint8, and a plane is restored, whose biharmonic is zero."""
    image, mask = pictures.noise(0, 20, 24), scoring.hole()
    expected = skimage.restoration.inpaint_biharmonic(image / 255.0, mask[..., 0] == 0, channel_axis=-1)
    filled = baselines.biharmonic(image, mask)
    np.testing.assert_array_equal(filled, np.round(expected * 255))
    np.testing.assert_array_equal(baselines.biharmonic(smooth(3), mask)[6:12, 8:16], smooth(3)[6:12, 8:16])


def test_frequency_selective_extends_periodic_texture():
    """It continues stripes through the hole, where Telea's smooth continuation loses them."""
    stripes = np.round(128 + 100 * np.sin(2 * np.pi * np.arange(48) / 8)).astype(np.uint8)
    image = np.ascontiguousarray(np.broadcast_to(stripes[None, :, None], (48, 48, 3)))
    mask = np.ones((48, 48, 1), np.uint8)
    mask[16:32, 16:32] = 0
    hole = mask[..., 0] == 0
    errors = [
        np.abs(fill(image, mask).astype(int) - image)[hole].mean()
        for fill in (baselines.frequency_selective, baselines.telea)
    ]
    assert errors[0] < 0.3 * errors[1]


@needs_gmic
def test_gmic_keeps_the_order_of_channels_and_the_users_home(monkeypatch, tmp_path):
    """Three ramps of different slopes come back in their order, and nothing is written to the user's home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    image, mask = smooth(3), scoring.hole()
    filled = baselines.gmic_pde(image, mask)[6:12, 8:16].astype(int)
    assert np.abs(filled - image[6:12, 8:16]).mean(axis=(0, 1)).max() < 6
    assert not list(tmp_path.iterdir())


def test_gmic_that_is_not_installed(monkeypatch):
    """If G'MIC is not installed, the message names the flag to change."""
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="gmic is not on PATH: install G'MIC, or leave GMIC out of --baselines"):
        baselines.gmic_pde(smooth(3), scoring.hole())


def test_slow_fillers_are_left_to_the_user():
    """Training ends with the quick baselines, and `evaluate` adds the biharmonic one by default."""
    assert set(baselines.BASELINES) - set(baselines.DEFAULT) == {"FSR", "GMIC"}
    assert set(baselines.DEFAULT) - set(baselines.QUICK) == {"biharmonic"}
