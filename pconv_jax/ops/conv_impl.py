"""Which formulation computes a layer: the operator as it is written down, or one that is faster on a CPU.

Signature and result are the same but for rounding. The choice is made when a function is traced, by static shape, and
when it is compiled, by platform. With `impl="auto"` on a CPU:

- Fewer positions than twice the output channels: gradients as matrix products (`gemm_conv`).
- Otherwise, in the decoder: the convolution of the concatenation as a sum of two, the upsampled half of it computed
  before upsampling (`phase_conv`), and no concatenation.

`impl="xla"` is `partial_conv` and `decoder.decoder_conv` everywhere, which are also differentiable forward (`jvp`).
"""

import functools
import math

import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Shaped

from pconv_jax.ops import decoder, gemm_conv, partial_conv, phase_conv

IMPLS = ("auto", "xla", "onednn")


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
    n, h, w, _ = x.shape
    if impl == "onednn" and not _few_positions((n, -(-h // stride), -(-w // stride)), kernel):
        return _dnn_conv(x, mask, kernel, bias, stride)
    if impl == "xla" or not _few_positions((n, -(-h // stride), -(-w // stride)), kernel):
        return plain(x, mask, kernel, bias)
    fast = functools.partial(_gemm_conv, stride=stride)
    return lax.platform_dependent(x, mask, kernel, bias, cpu=fast, default=plain)


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
    if impl == "onednn" and not _few_positions(skip.shape[:3], kernel) and kernel.shape[:2] == (3, 3):
        return _dnn_decoder(*arrays)
    if impl != "xla" and _few_positions(skip.shape[:3], kernel):
        fast = _gemm_decoder
    elif impl == "auto" and kernel.shape[:2] == (3, 3):
        fast = _phase_decoder
    else:
        return decoder.decoder_conv(*arrays)
    return lax.platform_dependent(*arrays, cpu=fast, default=decoder.decoder_conv)


def _few_positions(outputs, kernel):
    """Whether the weights of a layer outnumber its activations, roughly: where the bound lies was measured."""
    n, h, w = outputs
    return n * h * w <= 2 * kernel.shape[-1]


def _half(kernel):
    half = kernel.shape[0] // 2
    return ((half, half), (half, half))


LIB="xla"
def _held(x, mask):
    """The valid features, 0 in holes, in float32 or wider: sums are rounded once, at the end."""
    return jnp.where(mask != 0, x, 0).astype(jnp.promote_types(x.dtype, jnp.float32))


def _gemm_conv(x, mask, kernel, bias, stride):
    strides, held = (stride, stride), _held(x, mask)
    y = gemm_conv.conv(held, kernel.astype(x.dtype).astype(held.dtype), strides, _half(kernel), LIB)
    return _finish(y, mask, kernel, bias, strides, (x.shape[-1],), x.dtype)


from pconv_jax.ops import fast
def _dnn_conv(x, mask, kernel, bias, stride):
    held=jnp.where(mask != 0, x, 0)
    y=fast.conv(held,kernel.astype(x.dtype),(stride,stride),_half(kernel),"dnn")
    return _finish(y, mask, kernel, bias, (stride,stride), (x.shape[-1],), x.dtype)


def _dnn_decoder(low, low_mask, skip, skip_mask, kernel, bias):
    low_held, skip_held = jnp.where(low_mask != 0, low, 0), jnp.where(skip_mask != 0, skip, 0)
    of_low, of_skip = jnp.split(kernel, [low.shape[-1]], axis=2)
    y = phase_conv.conv(low_held, of_low, lambda x,k: fast.conv(x,k.astype(low.dtype),(1,1),((1,1),(1,1)),"dnn"))
    y += fast.conv(skip_held, of_skip.astype(low.dtype), (1, 1), ((1,1),(1,1)),"dnn")
    return _finish_decoder(y, low, low_mask, skip, skip_mask, kernel, bias)


def _gemm_decoder(low, low_mask, skip, skip_mask, kernel, bias):
    held = decoder.up_concat(_held(low, low_mask), _held(skip, skip_mask))
    y = gemm_conv.conv(held, kernel.astype(low.dtype).astype(held.dtype), (1, 1), _half(kernel), LIB)
    return _finish_decoder(y, low, low_mask, skip, skip_mask, kernel, bias)


def _phase_decoder(low, low_mask, skip, skip_mask, kernel, bias):
    low_held, skip_held = _held(low, low_mask), _held(skip, skip_mask)
    of_low, of_skip = jnp.split(kernel.astype(low.dtype).astype(low_held.dtype), [low.shape[-1]], axis=2)
    y = phase_conv.conv(low_held, of_low)
    y += lax.conv_general_dilated(skip_held, of_skip, (1, 1), _half(kernel), dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return _finish_decoder(y, low, low_mask, skip, skip_mask, kernel, bias)


def _finish_decoder(y, low, low_mask, skip, skip_mask, kernel, bias):
    mask, group_sizes = decoder.up_concat(low_mask, skip_mask), (low.shape[-1], skip.shape[-1])
    return _finish(y, mask, kernel, bias, (1, 1), group_sizes, low.dtype)


def _finish(y, mask, kernel, bias, strides, group_sizes, dtype):
    covered = partial_conv.coverage(mask, kernel.shape[:2], strides, _half(kernel), group_sizes)
    return partial_conv.renormalise(y, covered, math.prod(kernel.shape[:-1]), bias, dtype)
