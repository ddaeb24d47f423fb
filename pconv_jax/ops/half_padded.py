"""Partial convolution with half padding, as the U-Net computes it, and its variants in other published networks.

Layout `[N, H, W, C]`, masks `[N, H, W, G]`, 1 = valid.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Shaped

from pconv_jax.ops import partial_conv, windows


class Variant(NamedTuple):
    """The options of a layer in which networks of others differ from the paper's; the defaults are the paper's.

    Attributes:
      circular: the width wraps around, as longitude does, instead of ending in holes; the height ends in holes.
      crop: the decoder crops upsampled features to the size of the skip, which may be odd (`decoder.up_concat`).
      twice: the result is multiplied by sum(1) / sum(M) a second time, after the bias, as in the last layer of
        github.com/tanimutomo/partialconv.
      soft: mask values between 0 and 1 weight the features in the sum and count by their value in sum(M); the new mask
        is 1 where sum(M) > 0, as in github.com/naoto0804/pytorch-inpainting-with-partial-conv.
    """

    circular: bool = False
    crop: bool = False
    twice: bool = False
    soft: bool = False


PAPER = Variant()


def conv(
    x: Float[ArrayLike, "n h w c"],
    mask: Shaped[ArrayLike, "n h w g"],
    kernel: Float[ArrayLike, "k k c o"],
    bias: Float[ArrayLike, " o"] | None = None,
    *,
    strides: int = 1,
    group_sizes: Sequence[int] | None = None,
    variant: Variant = PAPER,
) -> tuple[Float[Array, "n p q o"], Float[Array, "n p q 1"]]:
    """Computes a partial convolution with half padding.

    Args:
      x: features.
      mask: 1 valid, 0 hole, and with `variant.soft` any value between.
      kernel: square kernel.
      bias: one per output channel; None: no bias.
      strides: stride of both axes.
      group_sizes: as in `partial_conv.partial_conv`.
      variant: differences from the paper; `crop` does not matter here.

    Returns:
      `(y, m')` as `partial_conv.partial_conv`.
    """
    rows, columns = windows.half_padding(kernel.shape[:2])
    if variant.circular:
        around = ((0, 0), (0, 0), columns, (0, 0))
        x, mask = (jnp.pad(jnp.asarray(a), around, mode="wrap") for a in (x, mask))
        columns = (0, 0)
    padding = (rows, columns)
    if variant.soft:
        return _soft_conv(x, mask, kernel, bias, strides, padding, group_sizes or (x.shape[-1],))
    y, updated = partial_conv.partial_conv(
        x, mask, kernel, bias, strides=strides, padding=padding, group_sizes=group_sizes
    )
    if variant.twice:
        sums = partial_conv.mask_sum(mask, kernel.shape[:2], strides, padding, group_sizes or (x.shape[-1],))
        y = y * (math.prod(kernel.shape[:-1]) / jnp.maximum(sums, 1)).astype(y.dtype)
    return y, updated


def _soft_conv(x, mask, kernel, bias, strides, padding, group_sizes):
    """Returns the partial convolution with a mask of values between 0 and 1."""
    x, kernel, mask = jnp.asarray(x), jnp.asarray(kernel), jnp.asarray(mask, jnp.float32)
    groups = jnp.split(mask, mask.shape[-1], axis=-1)
    weights = [jnp.repeat(group, size, axis=-1) for group, size in zip(groups, group_sizes, strict=True)]
    weights = jnp.concatenate(weights, axis=-1).astype(x.dtype)
    counts = sum(group * size for group, size in zip(groups, group_sizes, strict=True))

    def convolve(features, weights):
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(features, weights, (strides, strides), padding, dimension_numbers=numbers)

    y = convolve(jnp.where(weights != 0, x * weights, 0), kernel.astype(x.dtype))
    sums = lax.stop_gradient(convolve(counts, jnp.ones((*kernel.shape[:2], 1, 1), jnp.float32)))
    valid = sums > 0
    y = y * (math.prod(kernel.shape[:-1]) / jnp.where(valid, sums, 1)).astype(y.dtype)
    y = y if bias is None else y + jnp.asarray(bias).astype(y.dtype)
    return jnp.where(valid, y, 0), valid.astype(jnp.float32)
