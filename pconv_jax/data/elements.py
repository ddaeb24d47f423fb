"""Elements of drawn masks: `element(hole, rng, scale)` adds one to a uint8 hole `[H, W]`, 1 = hole, in place.

Sizes are relative to the shorter side and multiplied by `scale`, a number in (0, 1]. OpenCV draws.
"""

import math

import cv2
import numpy as np


def shape(hole: np.ndarray, rng: np.random.Generator, scale: float):
    """Draws one line, circle or ellipse whose thickness and radii are 3 to 10 % of the side (the Keras project's).

    Args:
      hole: uint8 `[H, W]`, changed in place.
      rng: random generator.
      scale: factor of all sizes.
    """
    height, width = hole.shape
    side = min(height, width)
    kind, x1, y1, x2, y2, angle = rng.integers(0, (3, width, height, width, height, 180)).tolist()
    small, large, third = (_between(0.03, 0.1, rng.random(3)) * side * scale).tolist()
    thickness = max(1, round(small))
    if kind == 0:
        x2, y2 = x1 + (x2 - x1) * scale, y1 + (y2 - y1) * scale
        cv2.line(hole, (x1, y1), (int(x2), int(y2)), 1, thickness)
    elif kind == 1:
        cv2.circle(hole, (x1, y1), round(large), 1, -1)
    else:
        axes = (round(2 * large), round(third))
        cv2.ellipse(hole, (x1, y1), axes, angle, 0, 360, 1, thickness)


def stroke(hole: np.ndarray, rng: np.random.Generator, scale: float):
    """Draws one free-form brush stroke (Yu et al. 2019): a random walk of 4 to 12 turns with round joints.

    Args:
      hole: uint8 `[H, W]`, changed in place.
      rng: random generator.
      scale: factor of the step lengths and the thickness.
    """
    height, width = hole.shape
    side = min(height, width)
    turns = int(rng.integers(4, 13))
    fractions = rng.random(2 * turns + 4)  # In one call: a call costs as much as drawing a line.
    corner = np.array((width, height))
    points = np.empty((turns + 1, 2))
    points[0] = fractions[:2] * corner
    angles = 2 * math.pi * fractions[2] + np.cumsum(_between(-1.2, 1.2, fractions[3 : turns + 3]))
    lengths = _between(0.05, 0.25, fractions[turns + 3 : -1]) * side * scale
    points[1:, 0], points[1:, 1] = np.cos(angles) * lengths, np.sin(angles) * lengths
    points[1:] = points[0] + np.cumsum(points[1:], axis=0)
    # Reflected at the border, so that strokes do not leave the image.
    points = np.abs((points + corner) % (2 * corner) - corner)
    points = np.minimum(np.rint(points), corner - 1).astype(np.int32)
    thickness = max(1, round(float(_between(0.03, 0.12, fractions[-1])) * side * scale))
    cv2.polylines(hole, [points], False, 1, thickness)
    for point in points.tolist():
        cv2.circle(hole, point, thickness // 2, 1, -1)


def box(hole: np.ndarray, rng: np.random.Generator, scale: float):
    """Draws one rectangle whose sides are 10 to 50 % of the image's.

    Args:
      hole: uint8 `[H, W]`, changed in place.
      rng: random generator.
      scale: factor of both sides.
    """
    height, width = hole.shape
    w, h = (max(1, round(side)) for side in rng.uniform(0.1, 0.5, 2) * (width, height) * scale)
    x, y = rng.integers(0, (max(1, width - w + 1), max(1, height - h + 1)))
    hole[y : y + h, x : x + w] = 1


def _between(low, high, fractions):
    """Maps fractions in [0, 1) to [low, high) with the same bits as `Generator.uniform(low, high)`."""
    return low + (high - low) * fractions


ELEMENTS = {"shapes": shape, "strokes": stroke, "boxes": box}  # Kind of mask -> element.
