"""Tests that the metrics equal scikit-image's."""

import numpy as np
import pytest
import skimage.metrics

from pconv_jax.ops import metrics


@pytest.fixture(params=[(40, 33, 3), (11, 64, 1)])
def pair(request):
    """Returns a smooth image and a noisy one, whole numbers in [0, 255]."""
    rng = np.random.default_rng(0)
    target = np.cumsum(rng.normal(0, 8, (2, *request.param)), axis=2) + 128
    image = target + rng.normal(0, 15, target.shape)
    return [np.clip(np.round(x), 0, 255).astype(np.float32) for x in (image, target)]


def test_psnr(pair):
    image, target = pair
    expected = [skimage.metrics.peak_signal_noise_ratio(t, i, data_range=255) for i, t in zip(*pair, strict=True)]
    np.testing.assert_allclose(metrics.psnr(image, target), expected, rtol=1e-5)
    np.testing.assert_allclose(metrics.psnr(image / 255, target / 255, max_value=1.0), expected, rtol=1e-5)


def test_psnr_of_equal_images_is_capped(pair):
    """The PSNR of equal images is finite, so that one perfect image does not make a mean infinite."""
    assert metrics.psnr(pair[0], pair[0]).tolist() == [metrics.MAX_PSNR] * 2


def test_hole_psnr(pair):
    """The PSNR of the hole ignores the pixels outside, and is the maximum if there is no hole."""
    image, target = pair
    mask = (np.random.default_rng(1).random((*image.shape[:3], 1)) > 0.3).astype(np.uint8)
    holes = [m[..., 0] == 0 for m in mask]
    expected = [
        skimage.metrics.peak_signal_noise_ratio(t[h], i[h], data_range=255)
        for i, t, h in zip(image, target, holes, strict=True)
    ]
    np.testing.assert_allclose(metrics.hole_psnr(image, target, mask), expected, rtol=1e-5)
    spoiled = np.where(mask, image + 50, image)
    np.testing.assert_array_equal(metrics.hole_psnr(spoiled, target, mask), metrics.hole_psnr(image, target, mask))
    assert metrics.hole_psnr(image, target, np.ones_like(mask)).tolist() == [metrics.MAX_PSNR] * 2


def test_ssim(pair):
    """The window is an 11x11 Gaussian over all channels, not EdgeConnect's 51x51 over grey images."""
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    expected = [
        skimage.metrics.structural_similarity(i.astype(np.float64), t.astype(np.float64), channel_axis=-1, **options)
        for i, t in zip(*pair, strict=True)
    ]
    np.testing.assert_allclose(metrics.ssim(*pair), expected, atol=2e-5)
    np.testing.assert_allclose(metrics.ssim(pair[0], pair[0]), 1.0, atol=1e-5)


def test_ssim_needs_room_for_its_window():
    small = np.zeros((1, 10, 20, 3), np.float32)
    with pytest.raises(ValueError, match="images are 10x20; SSIM needs at least 11x11"):
        metrics.ssim(small, small)


def test_l1_percent_by_hand():
    """Half of the elements are wrong by 51 of 255, which is 10 %."""
    target = np.zeros((1, 2, 2, 1), np.float32)
    image = np.array([51, 0, 51, 0], np.float32).reshape(1, 2, 2, 1)
    assert float(metrics.l1_percent(image, target)[0]) == pytest.approx(10.0)
