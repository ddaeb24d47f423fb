"""Image metrics, one value per image. Images `[N, H, W, C]`, float in [0, `max_value`], 255 by default.

The definitions are those of the inpainting papers and equal scikit-image's (tests/test_metrics.py).
"""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Shaped

MAX_PSNR = 100.0  # dB, also the value of equal images

Images = Float[ArrayLike, "n h w c"]


def l1_percent(image: Images, target: Images, *, max_value: float = 255.0) -> Float[Array, " n"]:
    """Returns the mean absolute difference in percent of `max_value`.

    Args:
      image: the image to measure.
      target: the reference.
      max_value: largest possible value.
    """
    return 100.0 / max_value * jnp.mean(jnp.abs(image - target), axis=(1, 2, 3))


def psnr(image: Images, target: Images, *, max_value: float = 255.0) -> Float[Array, " n"]:
    """Returns `10 log10(max_value^2 / MSE)` in dB over all channels, as `skimage.metrics.peak_signal_noise_ratio`.

    Values are limited to `MAX_PSNR`, so that one perfectly filled image does not make the mean of a table infinite.

    Args:
      image: the image to measure.
      target: the reference.
      max_value: largest possible value.
    """
    return _decibels(jnp.mean(jnp.square(image - target), axis=(1, 2, 3)), max_value)


def hole_psnr(
    image: Images, target: Images, mask: Shaped[ArrayLike, "n h w 1"], *, max_value: float = 255.0
) -> Float[Array, " n"]:
    """Returns the PSNR over the pixels of the hole, in dB.

    Args:
      image: the image to measure.
      target: the reference.
      mask: 1 valid, 0 hole.
      max_value: largest possible value.

    Returns:
      At most `MAX_PSNR`, which is also the value of an image without a hole.
    """
    hole = jnp.asarray(mask) == 0
    count = jnp.maximum(jnp.sum(hole, axis=(1, 2, 3)), 1) * image.shape[-1]
    mse = jnp.sum(jnp.where(hole, jnp.square(image - target), 0), axis=(1, 2, 3)) / count
    return _decibels(mse, max_value)


def ssim(image: Images, target: Images, *, max_value: float = 255.0) -> Float[Array, " n"]:
    """Returns the structural similarity (Wang et al. 2004) with an 11x11 Gaussian window of sigma 1.5.

    It equals `skimage.metrics.structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False)`
    with K1 0.01 and K2 0.03: the mean over channels and over the windows that lie inside the image.

    Args:
      image: the image to measure.
      target: the reference.
      max_value: largest possible value.

    Raises:
      ValueError: the images are smaller than 11x11.
    """
    if min(image.shape[1:3]) < 11:
        raise ValueError(f"images are {image.shape[1]}x{image.shape[2]}; SSIM needs at least 11x11")
    mean_x, mean_y = _gaussian(image), _gaussian(target)
    var_x = _gaussian(image * image) - mean_x**2
    var_y = _gaussian(target * target) - mean_y**2
    covariance = _gaussian(image * target) - mean_x * mean_y
    c1, c2 = (0.01 * max_value) ** 2, (0.03 * max_value) ** 2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity /= (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    return jnp.mean(similarity, axis=(1, 2, 3))


def _decibels(mse, max_value):
    return jnp.minimum(10.0 * jnp.log10(max_value**2 / jnp.maximum(mse, 1e-12)), MAX_PSNR)


def _gaussian(x):
    """Filters with a separable 11x11 Gaussian of sigma 1.5, at the positions where the window fits."""
    taps = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    taps = jnp.asarray(taps / taps.sum(), x.dtype)
    for axis in (1, 2):
        size = x.shape[axis] - 10
        x = sum(taps[i] * lax.slice_in_dim(x, i, i + size, axis=axis) for i in range(11))
    return x
