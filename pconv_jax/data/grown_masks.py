"""Holes that grow element by element (a shape, a stroke, a box) until they have the wanted area.

Sizes of elements are relative to the image, so that masks look alike at every resolution.
"""

import math

import numpy as np

from pconv_jax import errors
from pconv_jax.data import elements

# An element that would make the hole too large is drawn again at half its size; 2 ** -12 of an image is below a pixel.
_MAX_HALVINGS = 12
_MAX_ELEMENTS = 10_000


def draw(element, family, rng: np.random.Generator, size: tuple[int, int], low: int, high: int):
    """Adds elements to an empty hole until it reaches an area drawn from the range.

    Args:
      element: function `(hole, rng, scale)` that adds one element to a hole in place (`elements`).
      family: the `masks.Family`, of which `border` is used.
      rng: random generator that all draws are taken from.
      size: `(height, width)` in pixels.
      low: smallest number of hole pixels.
      high: largest number of hole pixels.

    Returns:
      `(hole, "")`: uint8 `[H, W]`, 1 = hole. There is no file to name.

    Raises:
      UserError: the border leaves less room than `low` pixels.
    """
    rows, columns = border_pixels(family.border, size)
    high = min(high, (size[0] - 2 * rows) * (size[1] - 2 * columns))
    if low > high:
        raise errors.UserError(f"a border of {family.border} leaves no hole of {low} pixels at {size[0]}x{size[1]}")
    target = int(rng.integers(low, high + 1))
    hole, area, halvings = np.zeros(size, np.uint8), 0, 0
    for _ in range(_MAX_ELEMENTS):
        if area >= max(low, min(target, high)):
            return hole, ""
        candidate = hole.copy()
        element(candidate, rng, 0.5**halvings)
        clear_border(candidate, family.border)
        candidate_area = int(np.count_nonzero(candidate))
        if candidate_area <= high:
            hole, area = candidate, candidate_area
        else:
            halvings = min(halvings + 1, _MAX_HALVINGS)
    _fill_pixels(hole[rows : size[0] - rows, columns : size[1] - columns], low - area)
    return hole, ""


def draw_mixed(family, rng: np.random.Generator, size: tuple[int, int], low: int, high: int):
    """Draws a hole from one to three kinds of elements (`elements.mixture`); arguments and result are those of `draw`.

    Args:
      family: as in `draw`.
      rng: as in `draw`.
      size: as in `draw`.
      low: as in `draw`.
      high: as in `draw`.
    """
    return draw(elements.mixture(rng), family, rng, size, low, high)


def border_pixels(border: float, size: tuple[int, int]) -> tuple[int, int]:
    """Returns the rows and columns at each end of an image that stay free of holes.

    Args:
      border: width of the frame as a fraction of each side.
      size: `(height, width)` in pixels.
    """
    return math.ceil(border * size[0]), math.ceil(border * size[1])


def clear_border(hole: np.ndarray, border: float):
    """Sets the frame of a hole `[H, W]` to 0, in place.

    Args:
      hole: uint8, 1 = hole.
      border: width of the frame as a fraction of each side.
    """
    height, width = hole.shape
    rows, columns = border_pixels(border, hole.shape)
    hole[:rows] = hole[height - rows :] = 0
    hole[:, :columns] = hole[:, width - columns :] = 0


def _fill_pixels(hole, missing):
    """Adds single pixels in order; only reached where almost the whole image has to be hole."""
    rows, columns = np.nonzero(hole == 0)
    hole[rows[: max(missing, 0)], columns[: max(missing, 0)]] = 1
