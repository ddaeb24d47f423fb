"""What drawn masks are made of: `element(hole, rng, scale)` adds one to a hole, uint8 `[H, W]`, 1 = hole, in place.

Sizes are relative to the shorter side, times `scale`. Drawing is OpenCV's.
"""

import math

import cv2
import numpy as np


def shape(hole, rng, scale):
    """One line, circle or ellipse, as the Keras project drew them: thickness and radii of a few percent of the side."""
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


def stroke(hole, rng, scale):
    """One free-form brush stroke (Yu et al. 2019): a walk of 4 to 12 turns with round joints."""
    height, width = hole.shape
    side = min(height, width)
    turns = int(rng.integers(4, 13))
    drawn = rng.random(2 * turns + 4)  # at once: a call costs as much as drawing a line
    corner = np.array((width, height))
    points = np.empty((turns + 1, 2))
    points[0] = drawn[:2] * corner
    angles = 2 * math.pi * drawn[2] + np.cumsum(_between(-1.2, 1.2, drawn[3 : turns + 3]))
    lengths = _between(0.05, 0.25, drawn[turns + 3 : -1]) * side * scale
    points[1:, 0], points[1:, 1] = np.cos(angles) * lengths, np.sin(angles) * lengths
    points[1:] = points[0] + np.cumsum(points[1:], axis=0)
    # Kept inside by reflection at the border, so that strokes do not run out of the image.
    points = np.abs((points + corner) % (2 * corner) - corner)
    points = np.minimum(np.rint(points), corner - 1).astype(np.int32)
    thickness = max(1, round(float(_between(0.03, 0.12, drawn[-1])) * side * scale))
    cv2.polylines(hole, [points], False, 1, thickness)
    for point in points.tolist():
        cv2.circle(hole, point, thickness // 2, 1, -1)


def _between(low, high, fractions):
    """What `Generator.uniform(low, high)` makes of its `random()`."""
    return low + (high - low) * fractions


def box(hole, rng, scale):
    """One rectangle, each side 10 to 50 % of the image's."""
    height, width = hole.shape
    w, h = (max(1, round(side)) for side in rng.uniform(0.1, 0.5, 2) * (width, height) * scale)
    x, y = rng.integers(0, (max(1, width - w + 1), max(1, height - h + 1)))
    hole[y : y + h, x : x + w] = 1


ELEMENTS = {"shapes": shape, "strokes": stroke, "boxes": box}  # by kind of mask
