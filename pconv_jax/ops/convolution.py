"""The convolution in a partial convolution, in the precision of each device.

Layout: features `[N, *S, C]`, kernel `[*K, I, O]`.
"""

import functools

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from pconv_jax.ops import windows

SPATIAL_AXES = {1: "W", 2: "HW", 3: "DHW"}  # The number of spatial axes, and their letters.


def convolve(
    x: Float[Array, "n *s c"],
    kernel: Float[Array, "*k i o"],
    window: windows.Window,
    feature_group_count: int = 1,
    precision: lax.PrecisionLike = None,
) -> Float[Array, "n *t o"]:
    """Convolves features of any floating dtype.

    Features of 16 bits are summed in float32 everywhere. A CPU returns these sums as they are. On other devices the
    result is rounded to 16 bits: their units for bfloat16 are used only where both operands and the result are
    bfloat16, and the gradients of a convolution that returns float32 would be computed in float32, many times slower.

    Args:
      x: features.
      kernel: the weights, in the dtype of `x`.
      window: the windows, as `windows.resolve` returns them for `x` and `kernel`.
      feature_group_count: number of groups of a grouped convolution.
      precision: precision of the products, as in `lax.conv_general_dilated`.

    Returns:
      The convolution in float32, or in float64 for float64 features.
    """
    axes = SPATIAL_AXES[x.ndim - 2]
    wide = jnp.promote_types(x.dtype, jnp.float32)
    rounded = functools.partial(
        lax.conv_general_dilated,
        window_strides=window.strides,
        padding=window.padding,
        rhs_dilation=window.dilation,
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
        feature_group_count=feature_group_count,
        precision=precision,
    )
    unrounded = functools.partial(rounded, preferred_element_type=wide)
    if x.dtype == wide:
        return unrounded(x, kernel)
    return lax.platform_dependent(x, kernel, cpu=unrounded, default=lambda *a: rounded(*a).astype(wide))
