"""The two operations that all faster layers for CPUs are made of, and XLA's implementation of both."""

from collections.abc import Callable
from typing import NamedTuple

from jax import lax
from jaxtyping import Array, Float

Pads = tuple[tuple[int, int], tuple[int, int]]


class Primitives(NamedTuple):
    """A convolution and a matrix product of one library.

    Attributes:
      conv: called as `xla_conv`.
      product: called as `xla_product`.
    """

    conv: Callable
    product: Callable


def xla_conv(
    x: Float[Array, "n h w a"], kernel: Float[Array, "k l b c"], stride: int, padding: Pads, *, swapped: bool = False
) -> Float[Array, "n p q o"]:
    """Cross-correlates `x` with `kernel`.

    Args:
      x: features.
      kernel: `[K, L, C, O]` or, if `swapped`, `[K, L, O, C]`.
      stride: stride of both axes.
      padding: `((top, bottom), (left, right))`.
      swapped: the kernel's last axis holds the input channels.

    Returns:
      The convolution, in the dtype of the arguments.
    """
    layouts = ("NHWC", "HWOI" if swapped else "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=layouts)


def xla_product(
    a: Float[Array, "a b"], b: Float[Array, "c d"], *, transpose_a: bool = False, transpose_b: bool = False
) -> Float[Array, "m n"]:
    """Computes `a @ b`.

    Args:
      a: the left matrix.
      b: the right matrix.
      transpose_a: multiply by the transpose of `a`.
      transpose_b: multiply by the transpose of `b`.

    Returns:
      The product, in the dtype of the arguments.
    """
    return lax.dot_general(a, b, (((0,) if transpose_a else (1,), (1,) if transpose_b else (0,)), ((), ())))


XLA = Primitives(xla_conv, xla_product)
