"""Partial convolution: a pure function of features, mask, kernel and bias.

Liu et al., "Image Inpainting for Irregular Holes Using Partial Convolutions" (ECCV 2018, arXiv 1804.07723), section
3.1; with `mask=None` and zero padding it is partial convolution based padding (arXiv 1811.11718).

Layout: features `[N, *S, C]`, mask `[N, *S, G]`, kernel `[*K, C / F, O]`, where `*S` are one to three spatial axes,
`G` the number of channel groups that share a mask, and `F` the `feature_group_count`. A mask is exactly 0 or 1, and
1 means valid, as M in the paper. Outside the image counts as hole, so zero padding is padding with holes.
"""

import math
import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Shaped

Padding = str | Sequence[tuple[int, int]]

_SPATIAL_AXES = {1: "W", 2: "HW", 3: "DHW"}


def partial_conv(
    x: Float[ArrayLike, "n *s c"],
    mask: Shaped[ArrayLike, "n *s g"] | None,
    kernel: Float[ArrayLike, "*k i o"],
    bias: Float[ArrayLike, " o"] | None = None,
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    dilation: int | Sequence[int] = 1,
    feature_group_count: int = 1,
    group_sizes: Sequence[int] | None = None,
    precision: lax.PrecisionLike = None,
) -> tuple[Float[Array, "n *t o"], Float[Array, "n *t f"]]:
    """Convolves the valid part of `x`, renormalises by coverage, and propagates the mask (paper, equations 1 and 2).

    `y = W . (x * M) * sum(1) / sum(M) + b` and `m' = 1` where `sum(M) > 0`; both are 0 elsewhere. `sum(1)` is the whole
    window, `prod(K) * C / F`, at the border too. What lies in a hole (NaN and infinity included) changes neither the
    result nor any gradient. Coverage and ratio are computed in float32 (float64 for float64 features), whatever the
    dtype of the features. The mask carries no gradient.

    Args:
      x: features.
      mask: 1 valid, 0 hole, any dtype; `G` is 1 (all channels share it), `C` (one mask per channel),
        `feature_group_count` (one per convolution group), or `len(group_sizes)`. None: everything is valid.
      kernel: the weights, `C / F` inputs and `O` outputs.
      bias: added after the renormalisation, and only where the output is valid. None: no bias.
      strides: of the window, one for all axes or one per axis.
      padding: "SAME", "VALID", or `(low, high)` per spatial axis.
      dilation: of the kernel (atrous), one for all axes or one per axis.
      feature_group_count: number of groups of a grouped convolution.
      group_sizes: channels per mask channel, in order, summing to `C`, e.g. `(64, 3)` for features concatenated from
        64 and 3 channels with different holes.
      precision: passed to `lax.conv_general_dilated`.

    Returns:
      `(y, m')`: `y` in the dtype of `x` with 0 in the remaining holes, and `m'` in float32 with one channel, or
      `feature_group_count` channels for a grouped convolution.

    Raises:
      ValueError: a rank, shape, group size or (outside jit) mask value does not fit; the message names it.
    """
    x, kernel = jnp.asarray(x), jnp.asarray(kernel)
    bias = None if bias is None else jnp.asarray(bias)
    rank = _check_features(x, kernel, bias, feature_group_count)
    window = kernel.shape[:rank]
    strides, dilation = _per_axis("strides", strides, rank), _per_axis("dilation", dilation, rank)
    pads = _explicit_padding(padding, x.shape[1:-1], window, strides, dilation)
    if mask is None:
        if group_sizes is not None:
            raise ValueError(f"group_sizes is {group_sizes} without a mask: leave it out, or pass the mask")
        counts = _full_coverage(x.shape[1:-1], window, strides, pads, dilation)
        in_channels = kernel.shape[-2]
        covered = jnp.broadcast_to(counts * in_channels, (*x.shape[:1], *counts.shape[1:-1], feature_group_count))
    else:
        valid = _valid(mask)
        group_sizes = _check_mask(valid, x, feature_group_count, group_sizes)
        x = jnp.where(_per_channel(valid, group_sizes), x, jnp.zeros((), x.dtype))
        weights = _group_weights(group_sizes, feature_group_count)
        covered = _coverage(valid, weights, window, strides, pads, dilation)
    wide = jnp.promote_types(x.dtype, jnp.float32)
    y = lax.conv_general_dilated(
        x,
        kernel.astype(x.dtype),
        window_strides=strides,
        padding=pads,
        rhs_dilation=dilation,
        dimension_numbers=_dimension_numbers(rank),
        feature_group_count=feature_group_count,
        precision=precision,
        preferred_element_type=wide,
    )
    return renormalise(y, covered, math.prod(kernel.shape[:-1]), bias, x.dtype)


def coverage(
    mask: Shaped[ArrayLike, "n h w g"], window: Sequence[int], strides: Sequence[int], padding: Padding, group_sizes
) -> Float[Array, "n p q 1"]:
    """sum(M) per window, as `partial_conv` counts it for `group_sizes` channels per mask channel; float32, exact."""
    pads = _explicit_padding(padding, mask.shape[1:-1], window, strides, (1, 1))
    return _coverage(_valid(mask), _group_weights(group_sizes, 1), window, strides, pads, (1, 1))


def renormalise(
    y: Float[Array, "n *t o"],
    covered: Float[Array, "n *t f"],
    full_window: int,
    bias: Float[Array, " o"] | None,
    dtype: jnp.dtype,
) -> tuple[Float[Array, "n *t o"], Float[Array, "n *t f"]]:
    """What follows the convolution: `(y * sum(1) / sum(M) + bias, m')`, both 0 where nothing was seen.

    Args:
      y: the convolution of the valid features, float32 or wider.
      covered: sum(M).
      full_window: sum(1).
      bias: or None.
      dtype: of the result; it is rounded once, here.
    """
    seen = covered > 0
    # Coverage is an integer, so max(., 1) changes nothing where it is used: no epsilon, and no division by zero.
    ratio = jnp.where(seen, full_window / jnp.maximum(covered, 1).astype(y.dtype), 0)
    y = y * _per_output(ratio, y.shape[-1])
    if bias is not None:
        y = y + bias.astype(y.dtype)
    y = jnp.where(_per_output(seen, y.shape[-1]), y, 0)
    return y.astype(dtype), seen.astype(jnp.float32)


def propagate_mask(
    mask: Shaped[ArrayLike, "n *s g"],
    window: Sequence[int],
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    dilation: int | Sequence[int] = 1,
) -> Float[Array, "n *t 1"]:
    """The mask that `partial_conv` returns, without the features: 1 where any valid position lies in the window.

    Args:
      mask: 1 valid, 0 hole, of any number of channel groups.
      window: extent of the kernel per spatial axis.
      strides, padding, dilation: as in `partial_conv`.

    Returns:
      float32, exactly 0 or 1.

    Raises:
      ValueError: a rank, size or (outside jit) mask value does not fit.
    """
    valid = _valid(mask)
    rank = valid.ndim - 2
    if rank not in _SPATIAL_AXES:
        raise ValueError(f"mask has shape {valid.shape}; needs [N, *S, G] with one to three spatial axes")
    window = _per_axis("window", window, rank)
    strides, dilation = _per_axis("strides", strides, rank), _per_axis("dilation", dilation, rank)
    pads = _explicit_padding(padding, valid.shape[1:-1], window, strides, dilation)
    weights = np.ones((1, valid.shape[-1]), np.float32)
    return (_coverage(valid, weights, window, strides, pads, dilation) > 0).astype(jnp.float32)


def _coverage(valid, weights, window, strides, pads, dilation):
    """sum(M) per window and convolution group, `[N, *T, F]`: `weights [F, G]` says how many channels share a mask."""
    # A mask that is a constant of the traced program would have its window sums folded by the compiler, which takes
    # seconds for a 512 x 512 batch; the barrier leaves them to run time.
    valid = lax.optimization_barrier(valid.astype(jnp.float32))
    groups_out, groups_in = weights.shape
    if groups_out <= groups_in:  # sum over the fewer channels
        valid = _mix(valid, weights)
    sums = lax.reduce_window(
        valid,
        0.0,
        lax.add,
        window_dimensions=(1, *window, 1),
        window_strides=(1, *strides, 1),
        padding=((0, 0), *pads, (0, 0)),
        window_dilation=(1, *dilation, 1),
    )
    return lax.stop_gradient(_mix(sums, weights) if groups_out > groups_in else sums)


def _mix(valid, weights):
    """`[..., G] -> [..., F]`. Elementwise sums, exact in float32: a dot could run in reduced precision on a GPU."""
    return jnp.stack(
        [sum(float(w) * valid[..., g] for g, w in enumerate(row) if w) for row in weights],
        axis=-1,
    )


def _full_coverage(spatial, window, strides, pads, dilation):
    """Coverage by an all-valid mask of one channel, `[1, *T, 1]`: the product of what each axis covers."""
    counts = np.ones((1,), np.float32)
    for size, k, stride, (low, high), gap in zip(spatial, window, strides, pads, dilation, strict=True):
        starts = np.arange(0, low + size + high - (k - 1) * gap, stride) - low
        taps = starts[:, None] + np.arange(k) * gap
        inside = ((taps >= 0) & (taps < size)).sum(axis=1)
        counts = counts[..., None] * inside.astype(np.float32)
    return counts[..., None]


def _per_channel(valid, group_sizes):
    """Broadcasts a mask of groups to the channels of the features."""
    if valid.shape[-1] == 1 or all(size == 1 for size in group_sizes):
        return valid
    return jnp.repeat(valid, np.asarray(group_sizes), axis=-1, total_repeat_length=sum(group_sizes))


def _per_output(per_group, out_channels):
    """Broadcasts one value per convolution group to the output channels."""
    groups = per_group.shape[-1]
    return per_group if groups == 1 else jnp.repeat(per_group, out_channels // groups, axis=-1)


def _group_weights(group_sizes, feature_group_count):
    """How many channels of convolution group f belong to mask group g: float32 `[F, G]`."""
    ends = np.cumsum(group_sizes)
    starts = ends - np.asarray(group_sizes)
    size = ends[-1] // feature_group_count
    low = np.arange(feature_group_count)[:, None] * size
    return np.clip(np.minimum(ends, low + size) - np.maximum(starts, low), 0, None).astype(np.float32)


def _dimension_numbers(rank):
    axes = _SPATIAL_AXES[rank]
    return (f"N{axes}C", f"{axes}IO", f"N{axes}C")


def _integers(name, values, wanted):
    """A tuple of ints, NumPy's too, or a ValueError."""
    try:
        return tuple(operator.index(value) for value in values)
    except TypeError:
        raise ValueError(f"{name} is {values}; needs {wanted}") from None


def _per_axis(name, value, rank) -> tuple[int, ...]:
    wanted = f"a positive integer, or one per spatial axis ({rank})"
    values = _integers(name, value if isinstance(value, Sequence) else (value,) * rank, wanted)
    if len(values) != rank or any(v < 1 for v in values):
        raise ValueError(f"{name} is {value}; needs {wanted}")
    return values


def _explicit_padding(padding, spatial, window, strides, dilation):
    """`((low, high), ...)` per spatial axis, checked to leave at least one output."""
    reach = tuple((k - 1) * d + 1 for k, d in zip(window, dilation, strict=True))
    if isinstance(padding, str):
        if padding not in ("SAME", "VALID"):
            raise ValueError(f'padding is "{padding}"; needs "SAME", "VALID", or (low, high) per spatial axis')
        pads = tuple(tuple(int(p) for p in pad) for pad in lax.padtype_to_pads(spatial, reach, strides, padding))
    else:
        wanted = f'"SAME", "VALID", or {len(spatial)} pairs (low, high) of integers >= 0'
        if not isinstance(padding, Sequence) or not all(isinstance(p, Sequence) and len(p) == 2 for p in padding):
            raise ValueError(f"padding is {padding}; needs {wanted}")
        pads = tuple(_integers("padding", pad, wanted) for pad in padding)
        if len(pads) != len(spatial) or any(p < 0 for pad in pads for p in pad):
            raise ValueError(f"padding is {padding}; needs {wanted}")
    for size, r, (low, high) in zip(spatial, reach, pads, strict=True):
        if low + size + high < r:
            raise ValueError(f"a window that reaches {r} does not fit {size} positions padded by {(low, high)}")
    return pads


def _check_features(x, kernel, bias, feature_group_count):
    """Checks all but the mask; returns the number of spatial axes."""
    rank = x.ndim - 2
    if rank not in _SPATIAL_AXES:
        raise ValueError(f"x has shape {x.shape}; needs [N, *S, C] with one to three spatial axes")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"x is {x.dtype}; needs a floating dtype: scale images to [0, 1] first")
    if kernel.ndim != rank + 2:
        raise ValueError(f"kernel has shape {kernel.shape}; needs {rank + 2} axes [*K, C / F, O] for x {x.shape}")
    channels, out_channels = x.shape[-1], kernel.shape[-1]
    if 0 in kernel.shape:
        raise ValueError(f"kernel has shape {kernel.shape}; needs at least one of each")
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
    return rank


def _valid(mask):
    """The mask as booleans; where its values can be seen (outside jit) they are checked."""
    if not isinstance(mask, jax.core.Tracer):
        values = np.asarray(mask)
        stray = values[(values != 0) & (values != 1)]
        if stray.size:
            raise ValueError(f"mask holds {stray.flat[0]}; needs exactly 0 (hole) or 1 (valid): threshold it")
    return jnp.asarray(mask) != 0


def _check_mask(valid, x, feature_group_count, group_sizes):
    """Checks the mask's shape against the features; returns channels per mask channel."""
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
    sizes = _integers("group_sizes", group_sizes, wanted)
    if len(sizes) != groups or sum(sizes) != channels or min(sizes) < 1:
        raise ValueError(f"group_sizes is {sizes}; needs {wanted}")
    return sizes
