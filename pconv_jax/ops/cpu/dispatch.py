"""Chooses how a layer is computed: by the plain operator, or by an implementation that is faster on a CPU.

This is the only module of `ops.cpu` that other packages import. All implementations have the same signature and are
equal up to rounding. The choice is made when a function is traced, by static shape, and when it is compiled, by
platform:

- `impl="auto"`: on a CPU, gradients are made of convolutions and matrix products (`split_conv`). In the decoder, where
  the kernel is 3x3 and the resolution is not low, the convolution of the concatenation becomes a sum of two, without
  the concatenation, and that of the upsampled features is computed before upsampling (`subpixel_conv`).
  Frozen 3x3 kernels in float32 (VGG16's) are applied by Winograd's convolution (`winograd`).
- `impl="onednn"`: as "auto", with convolutions and products by oneDNN where that is possible (`onednn.usable`). It is
  several times as fast in bfloat16, but JAX's compilation cache cannot store such a program.
- `impl="xla"`: `partial_conv` and `decoder.decoder_conv` everywhere, which also support forward-mode differentiation.
"""

import functools
import math

import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Shaped

from pconv_jax.ops import decoder, half_padded, partial_conv, windows
from pconv_jax.ops.cpu import onednn, primitives, split_conv, subpixel_conv, winograd

IMPLS = ("auto", "onednn", "xla")

_WINOGRAD_CHANNELS = 64  # Winograd's convolution is measured to be faster from this many input and output channels on.


def conv(
    x: Float[ArrayLike, "n h w c"],
    mask: Shaped[ArrayLike, "n h w 1"],
    kernel: Float[ArrayLike, "k k c o"],
    bias: Float[ArrayLike, " o"] | None,
    stride: int,
    impl: str,
    variant: half_padded.Variant = half_padded.PAPER,
) -> tuple[Float[Array, "n p q o"], Float[Array, "n p q 1"]]:
    """Computes a partial convolution with half padding.

    Args:
      x: features.
      mask: 1 valid, 0 hole.
      kernel: square kernel.
      bias: one per output channel; None: no bias.
      stride: stride of both axes.
      impl: one of `IMPLS`; "xla" computes all variants but the paper's.
      variant: differences from the paper.

    Returns:
      `(y, m')` as `partial_conv.partial_conv`.
    """
    plain = functools.partial(half_padded.conv, strides=stride, variant=variant)
    if impl == "xla" or variant != half_padded.PAPER:
        return plain(x, mask, kernel, bias)
    fast = functools.partial(_encoder_layer, stride=stride, backend=_backend(impl, x.dtype))
    return lax.platform_dependent(x, mask, kernel, bias, cpu=fast, default=plain)


def ordinary_conv(
    x: Float[ArrayLike, "n h w c"], kernel: Float[ArrayLike, "k k c o"], stride: int, impl: str
) -> Float[Array, "n p q o"]:
    """Computes an ordinary convolution with half padding, without masks.

    Args:
      x: features.
      kernel: square kernel.
      stride: stride of both axes.
      impl: one of `IMPLS`; "auto" and "xla" are both XLA's own convolution.

    Returns:
      The convolution in the dtype of `x`.
    """
    x, kernel = jnp.asarray(x), jnp.asarray(kernel)
    padding = _half_padding(kernel)
    plain = functools.partial(primitives.xla_conv, stride=stride, padding=padding)
    backend = _backend(impl, x.dtype)
    if backend == primitives.XLA:
        return plain(x, kernel)
    fast = functools.partial(split_conv.conv, stride=stride, padding=padding, backend=backend)
    return lax.platform_dependent(x, kernel, cpu=lambda *a: fast(*a).astype(x.dtype), default=plain)


def frozen_conv(
    x: Float[ArrayLike, "n h w c"], kernel: Float[ArrayLike, "3 3 c o"], impl: str
) -> Float[Array, "n h w o"]:
    """Computes an ordinary 3x3 convolution of stride 1 with half padding, whose kernel is not trained.

    In float32 on a CPU, and with enough channels, Winograd's convolution halves the number of products. Its gradient
    with respect to the input is as fast, the one with respect to the kernel is not.

    Args:
      x: features.
      kernel: 3x3 kernel.
      impl: one of `IMPLS`; "xla" is XLA's own convolution.

    Returns:
      The convolution in the dtype of `x`.
    """
    x, kernel = jnp.asarray(x), jnp.asarray(kernel)
    direct = functools.partial(ordinary_conv, stride=1, impl=impl)
    wide = min(kernel.shape[2:]) >= _WINOGRAD_CHANNELS
    if impl == "xla" or not wide or not x.dtype == kernel.dtype == jnp.float32:
        return direct(x, kernel)
    fast = functools.partial(winograd.conv, backend=_backend(impl, x.dtype))
    return lax.platform_dependent(x, kernel, cpu=fast, default=direct)


def decoder_conv(
    low: Float[ArrayLike, "n h w c"],
    low_mask: Shaped[ArrayLike, "n h w 1"],
    skip: Float[ArrayLike, "n h2 w2 d"],
    skip_mask: Shaped[ArrayLike, "n h2 w2 1"],
    kernel: Float[ArrayLike, "k k e o"],
    bias: Float[ArrayLike, " o"] | None,
    impl: str,
    variant: half_padded.Variant = half_padded.PAPER,
) -> tuple[Float[Array, "n h2 w2 o"], Float[Array, "n h2 w2 1"]]:
    """Computes a partial convolution of the upsampled `low` concatenated with `skip`.

    Args:
      low: features at half the resolution of `skip`.
      low_mask: mask of `low`, 1 valid, 0 hole.
      skip: features of the encoder.
      skip_mask: mask of `skip`.
      kernel: square kernel, its inputs in the order `low`, `skip`.
      bias: one per output channel; None: no bias.
      impl: one of `IMPLS`; "xla" computes all variants but the paper's.
      variant: differences from the paper.

    Returns:
      `(y, m')` as `decoder.decoder_conv`.
    """
    arrays = (low, low_mask, skip, skip_mask, kernel, bias)
    if impl == "xla" or variant != half_padded.PAPER:
        return decoder.decoder_conv(*arrays, variant=variant)
    subpixel = kernel.shape[:2] == (3, 3) and not split_conv.low_resolution((*skip.shape[:3], kernel.shape[-1]))
    layer = _subpixel_decoder_layer if subpixel else _decoder_layer
    fast = functools.partial(layer, backend=_backend(impl, low.dtype))
    return lax.platform_dependent(*arrays, cpu=fast, default=decoder.decoder_conv)


def onednn_usable(dtype: DTypeLike) -> bool:
    """Returns whether `impl="onednn"` computes by oneDNN in `dtype` here; elsewhere it computes as "auto"."""
    return onednn.usable(dtype)


def _backend(impl, dtype):
    return onednn.PRIMITIVES if impl == "onednn" and onednn.usable(dtype) else primitives.XLA


def _half_padding(kernel):
    return windows.half_padding(kernel.shape[:2])


def _select_valid(x, mask, backend):
    """Returns `x` with 0 in holes; for XLA in float32 or wider, so that its sums are rounded once, at the end."""
    x_valid = jnp.where(mask != 0, x, 0)
    return x_valid.astype(jnp.promote_types(x.dtype, jnp.float32)) if backend == primitives.XLA else x_valid


def _rounded(kernel, dtype, compute_dtype):
    """Returns the kernel rounded to the dtype of the features, in the dtype of the computation."""
    return jnp.asarray(kernel, dtype).astype(compute_dtype)


def _encoder_layer(x, mask, kernel, bias, stride, backend):
    x_valid = _select_valid(x, mask, backend)
    weights = _rounded(kernel, x.dtype, x_valid.dtype)
    y = split_conv.conv(x_valid, weights, stride, _half_padding(kernel), backend)
    return _finish(y, mask, kernel, bias, (stride, stride), (x.shape[-1],), x.dtype)


def _decoder_layer(low, low_mask, skip, skip_mask, kernel, bias, backend):
    x_valid = decoder.up_concat(_select_valid(low, low_mask, backend), _select_valid(skip, skip_mask, backend))
    weights = _rounded(kernel, low.dtype, x_valid.dtype)
    y = split_conv.conv(x_valid, weights, 1, _half_padding(kernel), backend)
    return _finish_decoder(y, low, low_mask, skip, skip_mask, kernel, bias)


def _subpixel_decoder_layer(low, low_mask, skip, skip_mask, kernel, bias, backend):
    low_valid, skip_valid = _select_valid(low, low_mask, backend), _select_valid(skip, skip_mask, backend)
    weights = _rounded(kernel, low.dtype, low_valid.dtype)
    low_weights, skip_weights = jnp.split(weights, [low.shape[-1]], axis=2)
    y = subpixel_conv.conv(low_valid, low_weights, backend)
    y += split_conv.conv(skip_valid, skip_weights, 1, _half_padding(kernel), backend)
    return _finish_decoder(y, low, low_mask, skip, skip_mask, kernel, bias)


def _finish_decoder(y, low, low_mask, skip, skip_mask, kernel, bias):
    mask, group_sizes = decoder.up_concat(low_mask, skip_mask), (low.shape[-1], skip.shape[-1])
    return _finish(y, mask, kernel, bias, (1, 1), group_sizes, low.dtype)


def _finish(y, mask, kernel, bias, strides, group_sizes, dtype):
    sums = partial_conv.mask_sum(mask, kernel.shape[:2], strides, _half_padding(kernel), group_sizes)
    return partial_conv.renormalise(y, sums, math.prod(kernel.shape[:-1]), bias, dtype)
