"""Masks as the Keras notebook draws them, to repeat its evaluation: lines, circles and ellipses of sizes in pixels."""

import cv2
import numpy as np

from pconv_jax import errors
from pconv_jax.data import grown_masks

_TRIES = 1000


def draw(family, rng: np.random.Generator, size: tuple[int, int], low: int, high: int):
    """Draws 1 to 15 each of lines, circles and ellipses; draws again until the hole has a wanted area.

    Lines are 4 to 0.02 (height + width) pixels thick, ellipses 20 to 0.02 (height + width), and circles have radii of
    30 to 50 pixels.

    Args:
      family: the `masks.Family`, of which `border` is used.
      rng: random generator that all draws are taken from.
      size: `(height, width)` in pixels.
      low: smallest number of hole pixels.
      high: largest number of hole pixels.

    Returns:
      `(hole, "")`: uint8 `[H, W]`, 1 = hole. There is no file to name.

    Raises:
      UserError: no mask of 1000 has such an area.
    """
    for _ in range(_TRIES):
        hole = _draw(rng, *size)
        grown_masks.clear_border(hole, family.border)
        if low <= np.count_nonzero(hole) <= high:
            return hole, ""
    raise errors.UserError(
        f"none of {_TRIES} masks of the kind notebook has {low} to {high} hole pixels at {size[0]}x{size[1]}: widen "
        "the range (eval.buckets=False takes them as they come)"
    )


def _draw(rng, height, width):
    hole, thickest = np.zeros((height, width), np.uint8), int(0.02 * (height + width))

    def point():
        return int(rng.integers(1, width + 1)), int(rng.integers(1, height + 1))

    for _ in range(rng.integers(1, 16)):
        cv2.line(hole, point(), point(), 1, int(rng.integers(4, max(4, thickest) + 1)))
    for _ in range(rng.integers(1, 16)):
        cv2.circle(hole, point(), int(rng.integers(30, 51)), 1, -1)
    for _ in range(rng.integers(1, 16)):
        center, axes = point(), point()
        angle, start, end = rng.integers(3, 181, 3).tolist()
        cv2.ellipse(hole, center, axes, angle, start, end, 1, int(rng.integers(20, max(20, thickest) + 1)))
    return hole
