"""Which formulation computes a layer: the operator as it is written down, or one that is faster on a CPU.

Signature and result are the same but for rounding. The choice is made when a function is traced, by static shape, and
when it is compiled, by platform. On a CPU, with `impl="auto"`:

- Gradients are made of convolutions and matrix products (`split_conv`).
- In the decoder, where the window is 3 x 3 and positions are not few: the convolution of the concatenation as a sum of
  two, the upsampled half of it computed before upsampling (`phase_conv`), and no concatenation.

`impl="onednn"` is the same, its convolutions and products computed by oneDNN where that is possible (`onednn.usable`):
several times as fast in bfloat16, but such a program cannot be kept for the next start.

`impl="xla"` is `partial_conv` and `decoder.decoder_conv` everywhere, which are also differentiable forward (`jvp`).
"""

import functools
import math

import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Shaped

from pconv_jax.ops import decoder, partial_conv
from pconv_jax.ops.cpu import onednn, phase_conv, split_conv

IMPLS = ("auto", "onednn", "xla")


def conv(
    x: Float[ArrayLike, "n h w c"],
    mask: Shaped[ArrayLike, "n h w 1"],
    kernel: Float[ArrayLike, "k k c o"],
    bias: Float[ArrayLike, " o"] | None,
    stride: int,
    impl: str,
) -> tuple[Float[Array, "n p q o"], Float[Array, "n p q 1"]]:
    """Partial convolution with half padding.

    Returns:
      `(y, m')` as `partial_conv.partial_conv`.
    """
    plain = functools.partial(partial_conv.partial_conv, strides=stride, padding=_half(kernel))
    if impl == "xla":
        return plain(x, mask, kernel, bias)
    fast = functools.partial(_split_conv, stride=stride, library=_library(impl, x.dtype))
    return lax.platform_dependent(x, mask, kernel, bias, cpu=fast, default=plain)


def ordinary_conv(
    x: Float[ArrayLike, "n h w c"], kernel: Float[ArrayLike, "k k c o"], stride: int, impl: str
) -> Float[Array, "n p q o"]:
    """Convolution with half padding and without masks; "auto" and "xla" are XLA's own.

    Returns:
      y in the type of `x`.
    """
    padding = _half(kernel)
    plain = functools.partial(split_conv.xla_conv, stride=stride, padding=padding)
    if _library(impl, x.dtype) == "xla":
        return plain(x, kernel)
    fast = functools.partial(split_conv.conv, stride=stride, padding=padding, library="onednn")
    return lax.platform_dependent(x, kernel, cpu=lambda *a: fast(*a).astype(x.dtype), default=plain)


def decoder_conv(
    low: Float[ArrayLike, "n h w c"],
    low_mask: Shaped[ArrayLike, "n h w 1"],
    skip: Float[ArrayLike, "n h2 w2 d"],
    skip_mask: Shaped[ArrayLike, "n h2 w2 1"],
    kernel: Float[ArrayLike, "k k e o"],
    bias: Float[ArrayLike, " o"] | None,
    impl: str,
) -> tuple[Float[Array, "n h2 w2 o"], Float[Array, "n h2 w2 1"]]:
    """Partial convolution of the upsampled `low` and the `skip`.

    Returns:
      `(y, m')` as `decoder.decoder_conv`.
    """
    arrays = (low, low_mask, skip, skip_mask, kernel, bias)
    if impl == "xla":
        return decoder.decoder_conv(*arrays)
    phases = kernel.shape[:2] == (3, 3) and not split_conv.few_positions((*skip.shape[:3], kernel.shape[-1]))
    fast = functools.partial(_phase_decoder if phases else _split_decoder, library=_library(impl, low.dtype))
    return lax.platform_dependent(*arrays, cpu=fast, default=decoder.decoder_conv)


def _library(impl, dtype):
    return "onednn" if impl == "onednn" and onednn.usable(dtype) else "xla"


def _half(kernel):
    half = kernel.shape[0] // 2
    return ((half, half), (half, half))


def _held(x, mask, library):
    """The valid features, 0 in holes; for XLA in float32 or wider: sums are rounded once, at the end."""
    held = jnp.where(mask != 0, x, 0)
    return held if library == "onednn" else held.astype(jnp.promote_types(x.dtype, jnp.float32))


def _kernel(kernel, dtype, held):
    """Rounded to the type of the features, in that of what is summed."""
    return jnp.asarray(kernel, dtype).astype(held)


def _split_conv(x, mask, kernel, bias, stride, library):
    held = _held(x, mask, library)
    of_held = _kernel(kernel, x.dtype, held.dtype)
    y = split_conv.conv(held, of_held, stride, _half(kernel), library)
    return _finish(y, mask, kernel, bias, (stride, stride), (x.shape[-1],), x.dtype)


def _split_decoder(low, low_mask, skip, skip_mask, kernel, bias, library):
    held = decoder.up_concat(_held(low, low_mask, library), _held(skip, skip_mask, library))
    y = split_conv.conv(held, _kernel(kernel, low.dtype, held.dtype), 1, _half(kernel), library)
    return _finish_decoder(y, low, low_mask, skip, skip_mask, kernel, bias)


def _phase_decoder(low, low_mask, skip, skip_mask, kernel, bias, library):
    low_held, skip_held = _held(low, low_mask, library), _held(skip, skip_mask, library)
    of_low, of_skip = jnp.split(_kernel(kernel, low.dtype, low_held.dtype), [low.shape[-1]], axis=2)
    y = phase_conv.conv(low_held, of_low, library)
    y += split_conv.conv(skip_held, of_skip, 1, _half(kernel), library)
    return _finish_decoder(y, low, low_mask, skip, skip_mask, kernel, bias)


def _finish_decoder(y, low, low_mask, skip, skip_mask, kernel, bias):
    mask, group_sizes = decoder.up_concat(low_mask, skip_mask), (low.shape[-1], skip.shape[-1])
    return _finish(y, mask, kernel, bias, (1, 1), group_sizes, low.dtype)


def _finish(y, mask, kernel, bias, strides, group_sizes, dtype):
    covered = partial_conv.coverage(mask, kernel.shape[:2], strides, _half(kernel), group_sizes)
    return partial_conv.renormalise(y, covered, math.prod(kernel.shape[:-1]), bias, dtype)
