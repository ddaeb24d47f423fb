"""Winograd's convolution F(4, 3) along rows, for 3x3 kernels of stride 1 (Lavin and Gray 2016, arXiv 1509.09308).

Four neighbouring outputs in a row depend on six inputs per row of the kernel. Six weighted sums of these inputs, each
multiplied by one weighted sum of the kernel's columns, give the four outputs, where the definition multiplies twelve
times: half of the products. The kernel's rows are summed as in the direct convolution. (With tiles of 4 x 4 outputs a
quarter of the products remains, but on a CPU the sums then cost more than that saves.)

In float32 the root mean square error is about 1e-6 of the standard deviation of the result, two to three times that of
the direct convolution. Layout `[N, H, W, C]`.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pconv_jax.ops.cpu import primitives

_OUTPUTS = 4  # Outputs per tile, which are computed from six inputs.

# The transforms of input, kernel and output (B^T, G and A^T in the paper) for the points 0, 1, -1, 2, -2, infinity.
_INPUT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_KERNEL = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_OUTPUT = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv(
    x: Float[Array, "n h w c"], kernel: Float[Array, "3 3 c o"], backend: primitives.Primitives
) -> Float[Array, "n h w o"]:
    """Convolves with padding 1 and stride 1, equal to the direct convolution up to rounding.

    Not differentiable in forward mode (`jvp`). The input's gradient is computed in the same way, the kernel's by XLA.

    Args:
      x: features, float32.
      kernel: the weights, float32.
      backend: the convolution to compute with.

    Returns:
      The convolution, in the dtype of the arguments.
    """
    return _conv(x, kernel, backend)


def _conv(x, kernel, backend, swapped=False):
    """Convolves; if `swapped`, the last axis of the kernel is that of the input channels."""
    n, h, w, _ = x.shape
    tiles = -(-w // _OUTPUTS)
    padded = jnp.pad(x, ((0, 0), (0, 0), (1, tiles * _OUTPUTS + 1 - w), (0, 0)))
    columns = [padded[:, :, j : j + (tiles - 1) * _OUTPUTS + 1 : _OUTPUTS] for j in range(len(_INPUT))]
    kernel_columns = [kernel[:, j : j + 1] for j in range(3)]
    products = [
        backend.conv(_sum(inputs, columns), _sum(weights, kernel_columns), 1, ((1, 1), (0, 0)), swapped=swapped)
        for inputs, weights in zip(_INPUT, _KERNEL, strict=True)
    ]
    y = jnp.stack([_sum(row, products) for row in _OUTPUT], axis=3)
    return y.reshape(n, h, tiles * _OUTPUTS, -1)[:, :, :w]


def _sum(coefficients, arrays):
    """Returns the weighted sum of the arrays, without terms whose coefficient is 0."""
    terms = [factor * array for factor, array in zip(coefficients, arrays, strict=True) if factor]
    return functools.reduce(jnp.add, terms)


def _forward(x, kernel, backend):
    return conv(x, kernel, backend), (x, kernel)


def _backward(backend, saved, dy):
    x, kernel = saved
    dx = _conv(dy, kernel[::-1, ::-1], backend, swapped=True)
    direct = functools.partial(primitives.xla_conv, x, stride=1, padding=((1, 1), (1, 1)))
    (dkernel,) = jax.linear_transpose(direct, kernel)(dy)
    return dx, dkernel


conv.defvjp(_forward, _backward)
