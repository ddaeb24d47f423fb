"""Convolution of an upsampled feature map, computed before upsampling: 16 products per position instead of 36.

After nearest upsampling by two, a 3x3 kernel meets only 2x2 different values. Which weights meet the same value depends
on whether the row and the column of the output are even, so a 3x3 kernel becomes four 2x2 kernels, one per sub-pixel
(a polyphase decomposition). Layout `[N, H, W, C]`.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from pconv_jax.ops.cpu import primitives, split_conv


def conv(
    low: Float[Array, "n h w c"], kernel: Float[Array, "3 3 c o"], backend: primitives.Primitives
) -> Float[Array, "n h2 w2 o"]:
    """Convolves `upsample(low)` with `kernel` at stride 1 and padding 1, equal up to rounding.

    Args:
      low: features before upsampling.
      kernel: the weights for the upsampled features.
      backend: the convolution and product to compute with.

    Returns:
      `[N, 2 H, 2 W, O]` in the dtype that `backend` returns.
    """
    (n, h, w, _), outputs = low.shape, kernel.shape[-1]
    # The values at the corners between four positions, the outer rim included: [N, H + 1, W + 1, 4 * O].
    # In bfloat16 the 2x2 kernels, which are sums of weights, are rounded as the weights are.
    kernels = _subpixel_kernels(kernel.astype(jnp.promote_types(kernel.dtype, jnp.float32))).astype(kernel.dtype)
    corners = split_conv.conv(low, kernels, 1, ((1, 1), (1, 1)), backend)

    def subpixel(a, b):  # output pixels (2 i + a, 2 j + b) are corners (i + a, j + b) under kernel (a, b)
        block = (2 * a + b) * outputs
        return corners[:, a : a + h, b : b + w, block : block + outputs]

    rows = [jnp.concatenate([subpixel(a, 0), subpixel(a, 1)], axis=-1) for a in (0, 1)]
    return jnp.stack(rows, axis=2).reshape(n, 2 * h, 2 * w, outputs)


def _subpixel_kernels(kernel):
    """Maps `[3, 3, C, O]` to `[2, 2, C, 4 * O]`, the sub-pixels in the order (0, 0), (0, 1), (1, 0), (1, 1)."""

    def halves(kernel, axis):
        first, middle, last = jnp.split(kernel, 3, axis)
        return [jnp.concatenate(taps, axis) for taps in ((first, middle + last), (first + middle, last))]

    return jnp.concatenate([part for row in halves(kernel, 0) for part in halves(row, 1)], axis=-1)
