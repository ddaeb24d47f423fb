"""The windows of a convolution: kernel size, strides, padding and dilation, checked and per spatial axis."""

import operator
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jax import lax

Pads = tuple[tuple[int, int], ...]
Padding = str | Sequence[tuple[int, int]]


class Window(NamedTuple):
    """The windows of a convolution.

    Attributes:
      kernel_size: extent of the kernel per spatial axis.
      strides: strides per spatial axis.
      padding: `(low, high)` per spatial axis.
      dilation: dilation of the kernel per spatial axis.
    """

    kernel_size: tuple[int, ...]
    strides: tuple[int, ...]
    padding: Pads
    dilation: tuple[int, ...]


def half_padding(kernel_size: Sequence[int]) -> Pads:
    """Returns the padding of half a kernel on each side of each axis.

    With an odd kernel the output of stride 1 has the size of the input, and a kernel of stride 2 is centred on every
    other position. This differs from "SAME", which pads less on the low side where the stride is not 1.
    """
    return tuple((size // 2, size // 2) for size in kernel_size)


def resolve(
    spatial: Sequence[int],
    kernel_size: int | Sequence[int],
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    dilation: int | Sequence[int] = 1,
) -> Window:
    """Checks the options of a convolution and writes them out per axis.

    Args:
      spatial: size of the input per spatial axis.
      kernel_size: extent of the kernel, one for all axes or one per axis.
      strides: strides of the window, one for all axes or one per axis.
      padding: "SAME", "VALID", or `(low, high)` per spatial axis.
      dilation: dilation of the kernel (atrous), one for all axes or one per axis.

    Returns:
      The window, with at least one output position.

    Raises:
      ValueError: an option has the wrong type, length or sign, or the window is larger than the padded input.
    """
    rank = len(spatial)
    kernel_size = _per_axis("kernel_size", kernel_size, rank)
    strides, dilation = _per_axis("strides", strides, rank), _per_axis("dilation", dilation, rank)
    extent = tuple((k - 1) * d + 1 for k, d in zip(kernel_size, dilation, strict=True))
    if isinstance(padding, str):
        if padding not in ("SAME", "VALID"):
            raise ValueError(f'padding is "{padding}"; needs "SAME", "VALID", or (low, high) per spatial axis')
        pads = tuple((int(low), int(high)) for low, high in lax.padtype_to_pads(spatial, extent, strides, padding))
    else:
        wanted = f'"SAME", "VALID", or {rank} pairs (low, high) of integers >= 0'
        if not isinstance(padding, Sequence) or not all(isinstance(p, Sequence) and len(p) == 2 for p in padding):
            raise ValueError(f"padding is {padding}; needs {wanted}")
        pads = tuple((low, high) for low, high in (integers("padding", pad, wanted) for pad in padding))
        if len(pads) != rank or any(p < 0 for pad in pads for p in pad):
            raise ValueError(f"padding is {padding}; needs {wanted}")
    for size, needed, (low, high) in zip(spatial, extent, pads, strict=True):
        if low + size + high < needed:
            raise ValueError(f"a window of extent {needed} does not fit {size} positions padded by {(low, high)}")
    return Window(kernel_size, strides, pads, dilation)


def positions_inside(spatial: Sequence[int], window: Window) -> np.ndarray:
    """Returns how many kernel positions of each window lie inside the input.

    Args:
      spatial: size of the input per spatial axis.
      window: the windows, as `resolve` returns them for that size.

    Returns:
      float32 `[*T]`, one count per output position.
    """
    counts = np.ones((), np.float32)
    for size, k, stride, (low, high), dilation in zip(spatial, *window, strict=True):
        starts = np.arange(0, low + size + high - (k - 1) * dilation, stride) - low
        taps = starts[:, None] + np.arange(k) * dilation
        inside = ((taps >= 0) & (taps < size)).sum(axis=1)
        counts = counts[..., None] * inside.astype(np.float32)
    return counts


def integers(name: str, values: Sequence, wanted: str) -> tuple[int, ...]:
    """Returns the values as Python integers; NumPy's integers are accepted.

    Args:
      name: name of the argument, for the message.
      values: the sequence to convert.
      wanted: what the argument needs to be, for the message.

    Raises:
      ValueError: a value is not an integer.
    """
    try:
        return tuple(operator.index(value) for value in values)
    except TypeError:
        raise ValueError(f"{name} is {values}; needs {wanted}") from None


def _per_axis(name, value, rank) -> tuple[int, ...]:
    wanted = f"a positive integer, or one per spatial axis ({rank})"
    values = integers(name, value if isinstance(value, Sequence) else (value,) * rank, wanted)
    if len(values) != rank or any(v < 1 for v in values):
        raise ValueError(f"{name} is {value}; needs {wanted}")
    return values
