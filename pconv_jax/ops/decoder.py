"""A decoder layer as one pure function: upsample, concatenate the skip, partial convolution.

Layout `[N, H, W, C]`, masks `[N, H, W, 1]`, 1 = valid. Upsampled features and skip keep their own masks: their holes
differ, so the concatenation has two channel groups (Liu et al. 2018, section 3.2).
"""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Shaped

from pconv_jax.ops import half_padded


def upsample(x: Shaped[ArrayLike, "n h w c"]) -> Shaped[Array, "n h2 w2 c"]:
    """Upsamples by two, nearest neighbour; by broadcast and reshape, whose gradient is a sum and not a scatter."""
    n, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None, :], (n, h, 2, w, 2, c)).reshape(n, 2 * h, 2 * w, c)


def up_concat(
    low: Shaped[ArrayLike, "n h w c"], skip: Shaped[ArrayLike, "n h2 w2 d"], *, crop: bool = False
) -> Shaped[Array, "n h2 w2 e"]:
    """Returns `concat(upsample(low), skip)` over channels.

    Args:
      low: features or masks at half the resolution of `skip`.
      skip: features or masks of the encoder.
      crop: also accept a `skip` of one row or column less than twice the size, from which an encoder of stride 2 makes
        a `low` of the same size. Nearest-neighbour upsampling to the size of `skip` is upsampling by two, cropped.

    Returns:
      `[N, 2 H, 2 W, C + D]`, or with `crop` the size of `skip`.

    Raises:
      ValueError: `skip` is not twice the size of `low`.
    """
    rows, columns = skip.shape[1:3]
    if crop and (-(-rows // 2), -(-columns // 2)) == tuple(low.shape[1:3]):
        return jnp.concatenate([upsample(low)[:, :rows, :columns], skip], axis=-1)
    if skip.shape[1:3] != (2 * low.shape[1], 2 * low.shape[2]):
        raise ValueError(f"skip is {skip.shape[1:3]}; needs twice the size of low, which is {low.shape[1:3]}")
    return jnp.concatenate([upsample(low), skip], axis=-1)


def decoder_conv(
    low: Float[ArrayLike, "n h w c"],
    low_mask: Shaped[ArrayLike, "n h w 1"],
    skip: Float[ArrayLike, "n h2 w2 d"],
    skip_mask: Shaped[ArrayLike, "n h2 w2 1"],
    kernel: Float[ArrayLike, "k k e o"],
    bias: Float[ArrayLike, " o"] | None = None,
    *,
    variant: half_padded.Variant = half_padded.PAPER,
) -> tuple[Float[Array, "n h2 w2 o"], Float[Array, "n h2 w2 1"]]:
    """Computes a partial convolution of the upsampled `low` and the `skip`, each with its own holes.

    The stride is 1, and the padding half a kernel.

    Args:
      low: features at half the resolution of `skip`.
      low_mask: mask of `low`, 1 valid, 0 hole.
      skip: features of the encoder.
      skip_mask: mask of `skip`.
      kernel: square kernel, its inputs in the order `low`, `skip`.
      bias: one per output channel; None: no bias.
      variant: differences from the paper.

    Returns:
      `(y, m')` at the size of `skip`, as `partial_conv.partial_conv`.

    Raises:
      ValueError: `skip` is not twice the size of `low`, or the kernel does not fit.
    """
    return half_padded.conv(
        up_concat(low, skip, crop=variant.crop),
        up_concat(low_mask, skip_mask, crop=variant.crop),
        kernel,
        bias,
        group_sizes=(low.shape[-1], skip.shape[-1]),
        variant=variant,
    )
