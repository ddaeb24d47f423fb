"""Partial convolution: a pure function of features, mask, kernel and bias.

Liu et al., "Image Inpainting for Irregular Holes Using Partial Convolutions" (ECCV 2018, arXiv 1804.07723), section
3.1; with `mask=None` and zero padding it is partial convolution based padding (arXiv 1811.11718).

Layout: features `[N, *S, C]`, mask `[N, *S, G]`, kernel `[*K, C / F, O]`, where `*S` are one to three spatial axes,
`G` the number of channel groups that share a mask, and `F` the `feature_group_count`. A mask is exactly 0 or 1, and
1 means valid, as M in the paper. Positions outside the image count as holes, so zero padding is padding with holes.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Shaped

from pconv_jax.ops import convolution, windows


def partial_conv(
    x: Float[ArrayLike, "n *s c"],
    mask: Shaped[ArrayLike, "n *s g"] | None,
    kernel: Float[ArrayLike, "*k i o"],
    bias: Float[ArrayLike, " o"] | None = None,
    *,
    strides: int | Sequence[int] = 1,
    padding: windows.Padding = "SAME",
    dilation: int | Sequence[int] = 1,
    feature_group_count: int = 1,
    group_sizes: Sequence[int] | None = None,
    precision: lax.PrecisionLike = None,
) -> tuple[Float[Array, "n *t o"], Float[Array, "n *t f"]]:
    """Convolves the valid features, renormalises by the mask sum and updates the mask (paper, equations 1 and 2).

    `y = W . (x * M) * sum(1) / sum(M) + b` and `m' = 1` where `sum(M) > 0`; both are 0 elsewhere. `sum(1)` is the
    number of values in a whole window, `prod(K) * C / F`, also at the border of the image. Values in holes (NaN and
    infinity included) change neither the result nor any gradient. Mask sum and ratio are float32 for features of 16
    and 32 bits, and float64 for float64 features. Features of 16 bits are rounded once on a CPU, at the end, and on
    other devices also before the renormalisation. The mask has no gradient.

    Args:
      x: features.
      mask: 1 valid, 0 hole, any dtype; `G` is 1 (all channels share it), `C` (one mask per channel),
        `feature_group_count` (one per convolution group), or `len(group_sizes)`. None: everything is valid.
      kernel: weights from `C / F` input to `O` output channels.
      bias: added after the renormalisation, and only where the output is valid. None: no bias.
      strides: strides of the window, one for all axes or one per axis.
      padding: "SAME", "VALID", or `(low, high)` per spatial axis.
      dilation: dilation of the kernel (atrous), one for all axes or one per axis.
      feature_group_count: number of groups of a grouped convolution.
      group_sizes: channels per mask channel, in order, summing to `C`, e.g. `(64, 3)` for features concatenated from
        64 and 3 channels with different holes.
      precision: precision of the products, as in `lax.conv_general_dilated`.

    Returns:
      `(y, m')`: `y` in the dtype of `x` with 0 in the remaining holes, and `m'` in float32 with one channel, or
      `feature_group_count` channels for a grouped convolution.

    Raises:
      ValueError: a rank, shape, group size or (outside jit) mask value does not fit; the message names it.
    """
    x, kernel = jnp.asarray(x), jnp.asarray(kernel)
    bias = None if bias is None else jnp.asarray(bias)
    _check_features(x, kernel, bias, feature_group_count)
    window = windows.resolve(x.shape[1:-1], kernel.shape[:-2], strides, padding, dilation)
    if mask is None:
        if group_sizes is not None:
            raise ValueError(f"group_sizes is {group_sizes} without a mask: leave it out, or pass the mask")
        sums = _full_mask_sum(x, kernel, window, feature_group_count)
    else:
        valid = _valid(mask)
        group_sizes = _check_mask(valid, x, feature_group_count, group_sizes)
        x = jnp.where(_per_channel(valid, group_sizes), x, jnp.zeros((), x.dtype))
        sums = _mask_sum(valid, _group_weights(group_sizes, feature_group_count), window)
    y = convolution.convolve(x, kernel.astype(x.dtype), window, feature_group_count, precision)
    return renormalise(y, sums, math.prod(kernel.shape[:-1]), bias, x.dtype)


def mask_sum(
    mask: Shaped[ArrayLike, "n h w g"],
    kernel_size: Sequence[int],
    strides: int | Sequence[int],
    padding: windows.Padding,
    group_sizes: Sequence[int],
) -> Float[Array, "n p q 1"]:
    """Returns sum(M) per window, the number of valid features in it.

    Args:
      mask: 1 valid, 0 hole.
      kernel_size: extent of the kernel per spatial axis.
      strides: strides of the window, one for all axes or one per axis.
      padding: "SAME", "VALID", or `(low, high)` per spatial axis.
      group_sizes: features per mask channel.

    Returns:
      float32, exact: the sums are integers.

    Raises:
      ValueError: the window does not fit, or (outside jit) a mask value is neither 0 nor 1.
    """
    window = windows.resolve(mask.shape[1:-1], kernel_size, strides, padding)
    return _mask_sum(_valid(mask), _group_weights(group_sizes, 1), window)


def renormalise(
    y: Float[Array, "n *t o"],
    sums: Float[Array, "n *t f"],
    full_sum: int,
    bias: Float[Array, " o"] | None,
    dtype: jnp.dtype,
) -> tuple[Float[Array, "n *t o"], Float[Array, "n *t f"]]:
    """Renormalises a convolution of the valid features, adds the bias and computes the new mask.

    `y * sum(1) / sum(M) + bias` and `m' = 1` where `sum(M) > 0`; both are 0 elsewhere.

    Args:
      y: the convolution of the valid features, float32 or wider.
      sums: sum(M) per window and convolution group (`mask_sum`).
      full_sum: sum(1), the number of weights per output channel.
      bias: added after the renormalisation; None: no bias.
      dtype: dtype of the returned features, to which they are rounded once.

    Returns:
      `(y, m')`: `y` in `dtype`, and `m'` in float32, exactly 0 or 1.
    """
    valid = sums > 0
    # sum(M) is an integer, so max(., 1) changes nothing where the ratio is used: no epsilon and no division by zero.
    ratio = jnp.where(valid, full_sum / jnp.maximum(sums, 1).astype(y.dtype), 0)
    y = y * _per_output(ratio, y.shape[-1])
    if bias is not None:
        y = y + bias.astype(y.dtype)
    y = jnp.where(_per_output(valid, y.shape[-1]), y, 0)
    return y.astype(dtype), valid.astype(jnp.float32)


def propagate_mask(
    mask: Shaped[ArrayLike, "n *s g"],
    kernel_size: Sequence[int],
    *,
    strides: int | Sequence[int] = 1,
    padding: windows.Padding = "SAME",
    dilation: int | Sequence[int] = 1,
) -> Float[Array, "n *t 1"]:
    """Returns the mask that `partial_conv` returns, without features: 1 where a window has any valid position.

    Args:
      mask: 1 valid, 0 hole, with any number of channel groups.
      kernel_size: extent of the kernel per spatial axis.
      strides: strides of the window, one for all axes or one per axis.
      padding: "SAME", "VALID", or `(low, high)` per spatial axis.
      dilation: dilation of the kernel (atrous), one for all axes or one per axis.

    Returns:
      float32, exactly 0 or 1.

    Raises:
      ValueError: a rank, size or (outside jit) mask value does not fit; the message names it.
    """
    valid = _valid(mask)
    if valid.ndim - 2 not in convolution.SPATIAL_AXES:
        raise ValueError(f"mask has shape {valid.shape}; needs [N, *S, G] with one to three spatial axes")
    window = windows.resolve(valid.shape[1:-1], kernel_size, strides, padding, dilation)
    weights = np.ones((1, valid.shape[-1]), np.float32)
    return (_mask_sum(valid, weights, window) > 0).astype(jnp.float32)


def _mask_sum(valid, weights, window):
    """Returns sum(M) per window and convolution group, `[N, *T, F]`.

    `weights [F, G]` are the channels of each convolution group that share each mask channel.
    """
    # If the mask is a constant of the traced function, the compiler would compute its window sums, which takes seconds
    # for a 512 x 512 batch. The barrier leaves them to run time.
    valid = lax.optimization_barrier(valid.astype(jnp.float32))
    groups_out, groups_in = weights.shape
    if groups_out <= groups_in:  # The window sums are computed on whichever side has fewer channels.
        valid = _mix(valid, weights)
    sums = lax.reduce_window(
        valid,
        0.0,
        lax.add,
        window_dimensions=(1, *window.kernel_size, 1),
        window_strides=(1, *window.strides, 1),
        padding=((0, 0), *window.padding, (0, 0)),
        window_dilation=(1, *window.dilation, 1),
    )
    return lax.stop_gradient(_mix(sums, weights) if groups_out > groups_in else sums)


def _full_mask_sum(x, kernel, window, feature_group_count):
    """Returns sum(M) of a mask that is valid everywhere, `[N, *T, F]`; outside the image counts as hole."""
    counts = windows.positions_inside(x.shape[1:-1], window)[None, ..., None]
    return jnp.broadcast_to(counts * kernel.shape[-2], (*x.shape[:1], *counts.shape[1:-1], feature_group_count))


def _mix(valid, weights):
    """Returns `valid @ weights.T` by elementwise sums: a matrix product could run in reduced precision on a GPU."""
    return jnp.stack(
        [sum(float(w) * valid[..., g] for g, w in enumerate(row) if w) for row in weights],
        axis=-1,
    )


def _per_channel(valid, group_sizes):
    """Broadcasts a mask of channel groups to the channels of the features."""
    if valid.shape[-1] == 1 or all(size == 1 for size in group_sizes):
        return valid
    # Not jnp.repeat, which becomes a gather of booleans that onnxruntime cannot compute.
    groups = [jnp.broadcast_to(valid[..., g : g + 1], (*valid.shape[:-1], size)) for g, size in enumerate(group_sizes)]
    return jnp.concatenate(groups, axis=-1)


def _per_output(per_group, out_channels):
    """Broadcasts one value per convolution group to the output channels."""
    groups = per_group.shape[-1]
    return per_group if groups == 1 else jnp.repeat(per_group, out_channels // groups, axis=-1)


def _group_weights(group_sizes, feature_group_count):
    """Returns how many channels of convolution group f share mask channel g, float32 `[F, G]`."""
    ends = np.cumsum(group_sizes)
    starts = ends - np.asarray(group_sizes)
    size = ends[-1] // feature_group_count
    low = np.arange(feature_group_count)[:, None] * size
    return np.clip(np.minimum(ends, low + size) - np.maximum(starts, low), 0, None).astype(np.float32)


def _check_features(x, kernel, bias, feature_group_count):
    """Checks the shapes and dtypes of all arrays but the mask."""
    rank = x.ndim - 2
    if rank not in convolution.SPATIAL_AXES:
        raise ValueError(f"x has shape {x.shape}; needs [N, *S, C] with one to three spatial axes")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"x is {x.dtype}; needs a floating dtype: scale images to [0, 1] first")
    if kernel.ndim != rank + 2:
        raise ValueError(f"kernel has shape {kernel.shape}; needs {rank + 2} axes [*K, C / F, O] for x {x.shape}")
    channels, out_channels = x.shape[-1], kernel.shape[-1]
    if 0 in kernel.shape:
        raise ValueError(f"kernel has shape {kernel.shape}; needs no axis of size 0")
    if not isinstance(feature_group_count, int) or feature_group_count < 1:
        raise ValueError(f"feature_group_count is {feature_group_count}; needs a positive integer")
    if channels % feature_group_count or out_channels % feature_group_count:
        raise ValueError(
            f"feature_group_count is {feature_group_count}; needs a divisor of the {channels} input "
            f"and the {out_channels} output channels"
        )
    if kernel.shape[-2] * feature_group_count != channels:
        raise ValueError(
            f"kernel has {kernel.shape[-2]} input channels; needs {channels // feature_group_count} for x "
            f"{x.shape} and feature_group_count {feature_group_count}"
        )
    if bias is not None and bias.shape != (out_channels,):
        raise ValueError(f"bias has shape {bias.shape}; needs ({out_channels},), one per output channel")


def _valid(mask):
    """Returns the mask as booleans, its values checked where they are known (outside jit)."""
    if not isinstance(mask, jax.core.Tracer):
        values = np.asarray(mask)
        stray = values[(values != 0) & (values != 1)]
        if stray.size:
            raise ValueError(f"mask holds {stray.flat[0]}; needs exactly 0 (hole) or 1 (valid): threshold it")
    return jnp.asarray(mask) != 0


def _check_mask(valid, x, feature_group_count, group_sizes):
    """Checks the mask's shape against the features and returns the channels per mask channel."""
    if valid.ndim != x.ndim or valid.shape[:-1] != x.shape[:-1]:
        raise ValueError(f"mask has shape {valid.shape}; needs {(*x.shape[:-1], 'G')} as x has shape {x.shape}")
    channels, groups = x.shape[-1], valid.shape[-1]
    if group_sizes is None:
        if groups not in (1, channels, feature_group_count):
            raise ValueError(
                f"mask has {groups} channels for {channels} features; needs 1 or {channels}, "
                "or group_sizes with the features per mask channel"
            )
        return (channels // groups,) * groups
    wanted = f"{groups} positive sizes (one per mask channel) that sum to {channels} features"
    if not isinstance(group_sizes, Sequence):
        raise ValueError(f"group_sizes is {group_sizes}; needs {wanted}")
    sizes = windows.integers("group_sizes", group_sizes, wanted)
    if len(sizes) != groups or sum(sizes) != channels or min(sizes) < 1:
        raise ValueError(f"group_sizes is {sizes}; needs {wanted}")
    return sizes
