"""Operations on images and their masks, pixel by pixel. Images `[N, H, W, C]`, masks `[N, H, W, 1]`, 1 = valid."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Shaped


def composite(
    image: Float[ArrayLike, "n h w c"], prediction: Float[ArrayLike, "n h w c"], mask: Shaped[ArrayLike, "n h w 1"]
) -> Float[Array, "n h w c"]:
    """Returns `I_comp = M * I_gt + (1 - M) * I_out` (paper, section 3.3).

    Pixels are selected and not multiplied, so valid pixels are unchanged to the bit.

    Args:
      image: I_gt, whose valid pixels are kept.
      prediction: I_out, which fills the holes.
      mask: M, 1 valid, 0 hole.

    Returns:
      The composite, in the common dtype of both images.
    """
    return jnp.where(jnp.asarray(mask) != 0, image, prediction)


def valid_mean(image: Float[ArrayLike, "n h w c"], mask: Shaped[ArrayLike, "n h w 1"]) -> Float[Array, "n 1 1 c"]:
    """Returns the mean of the valid pixels per image and channel.

    Args:
      image: values in holes do not matter, NaN included.
      mask: 1 valid, 0 hole.

    Returns:
      float32; 0 for an image without valid pixels.
    """
    valid = jnp.asarray(mask) != 0
    total = jnp.sum(jnp.where(valid, jnp.asarray(image, jnp.float32), 0), axis=(1, 2), keepdims=True)
    return total / jnp.maximum(jnp.sum(valid, axis=(1, 2), keepdims=True), 1).astype(jnp.float32)


def standardise(
    image: Float[ArrayLike, "n h w c"], mean: Sequence[float], std: Sequence[float]
) -> Float[ArrayLike, "n h w c"]:
    """Returns `(image - mean) / std`, or the image itself where `std` is empty.

    Args:
      image: the image.
      mean: mean per channel.
      std: standard deviation per channel, or an empty sequence.
    """
    if not std:
        return image
    return (image - jnp.asarray(mean, image.dtype)) / jnp.asarray(std, image.dtype)


def scale_back(x: Float[Array, "n h w c"], mean: Sequence[float], std: Sequence[float]) -> Float[Array, "n h w c"]:
    """Reverses `standardise`.

    Args:
      x: standardised image.
      mean: mean per channel.
      std: standard deviation per channel, or an empty sequence.
    """
    return x * jnp.asarray(std, x.dtype) + jnp.asarray(mean, x.dtype) if std else x
