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


def scratch(hole: np.ndarray, rng: np.random.Generator, scale: float):
    """Draws one scratch or wire: a long, slightly bent line whose thickness is 0.5 to 2.5 % of the side.

    Args:
      hole: uint8 `[H, W]`, changed in place.
      rng: random generator.
      scale: factor of the length.
    """
    height, width = hole.shape
    side = min(height, width)
    start, bend, length = rng.random(2) * (width, height), rng.uniform(-0.3, 0.3), rng.uniform(0.2, 1.2) * side * scale
    angles = rng.uniform(0, 2 * math.pi) + bend * np.arange(8)
    steps = np.stack([np.cos(angles), np.sin(angles)], axis=-1) * length / 8
    points = np.rint(start + np.cumsum(steps, axis=0)).astype(np.int32)
    cv2.polylines(hole, [points], False, 1, max(1, round(rng.uniform(0.005, 0.025) * side)))


def outline(hole: np.ndarray, rng: np.random.Generator, scale: float):
    """Draws the outline of one irregular closed shape, with a thickness of 1 to 6 % of the side.

    Args:
      hole: uint8 `[H, W]`, changed in place.
      rng: random generator.
      scale: factor of the shape's radius.
    """
    height, width = hole.shape
    side = min(height, width)
    points = _closed_curve(rng, (width, height), rng.uniform(0.05, 0.4) * side * scale)
    cv2.polylines(hole, [points], True, 1, max(1, round(rng.uniform(0.01, 0.06) * side)))


def blob(hole: np.ndarray, rng: np.random.Generator, scale: float):
    """Draws one filled irregular shape with a radius of 5 to 30 % of the side.

    Args:
      hole: uint8 `[H, W]`, changed in place.
      rng: random generator.
      scale: factor of the radius.
    """
    height, width = hole.shape
    radius = rng.uniform(0.05, 0.3) * min(height, width) * scale
    cv2.fillPoly(hole, [_closed_curve(rng, (width, height), radius)], 1)


def specks(hole: np.ndarray, rng: np.random.Generator, scale: float):
    """Draws a cloud of 5 to 40 specks of dust, all round or all square, each 0.5 to 4 % of the side wide.

    Args:
      hole: uint8 `[H, W]`, changed in place.
      rng: random generator.
      scale: factor of the number of specks.
    """
    height, width = hole.shape
    side = min(height, width)
    count = max(1, round(int(rng.integers(5, 41)) * scale))
    spread = rng.uniform(0.1, 0.5) * side
    places = np.rint(rng.random(2) * (width, height) + rng.normal(0, spread, (count, 2))).astype(int)
    sizes = np.maximum(1, np.rint(rng.uniform(0.005, 0.04, (count, 2)) * side)).astype(int)
    square = rng.integers(2) == 1
    for (x, y), (w, h) in zip(places.tolist(), sizes.tolist(), strict=True):
        if square:
            cv2.rectangle(hole, (x, y), (x + w - 1, y + h - 1), 1, -1)
        else:
            cv2.circle(hole, (x, y), w // 2, 1, -1)


def text(hole: np.ndarray, rng: np.random.Generator, scale: float):
    """Draws one line of 3 to 15 random letters across the image, like a caption or a watermark.

    Args:
      hole: uint8 `[H, W]`, changed in place.
      rng: random generator.
      scale: factor of the size of letters; below 1/4 they would not be legible and shrink no further.
    """
    height, width = hole.shape
    letters = "".join(chr(code) for code in rng.integers(33, 127, int(rng.integers(3, 16))))
    size = rng.uniform(0.2, 1.0) * min(height, width) / 64 * max(scale, 0.25)
    place = (int(rng.integers(-width // 4, width)), int(rng.integers(0, height + 1)))
    cv2.putText(hole, letters, place, int(rng.integers(0, 8)), size, 1, max(1, round(size * rng.uniform(1, 4))))


def mixture(rng: np.random.Generator):
    """Returns an element for one mask, which draws one of one to three kinds each time, chosen here at random.

    All elements of the mask are scaled by one random factor from 0.3 to 1, so that holes of the same area may be many
    and shallow or few and deep.
    """
    kinds = [list(ELEMENTS.values())[index] for index in rng.integers(0, len(ELEMENTS), int(rng.integers(1, 4)))]
    factor = rng.uniform(0.3, 1.0)

    def element(hole, rng, scale):
        kinds[int(rng.integers(len(kinds)))](hole, rng, scale * factor)

    return element


def _closed_curve(rng, corner, radius):
    """Returns 24 points `[24, 2]` around a random centre, at a distance that three random waves modulate."""
    angles = np.linspace(0, 2 * math.pi, 24, endpoint=False)
    waves = rng.uniform(0, 0.35, 3), rng.uniform(0, 2 * math.pi, 3)
    distance = 1 + sum(a * np.sin((k + 2) * angles + phase) for k, (a, phase) in enumerate(zip(*waves, strict=True)))
    stretch, turn = rng.uniform(0.4, 1.0), rng.uniform(0, math.pi)
    along, across = distance * np.cos(angles) * radius, distance * np.sin(angles) * radius * stretch
    x, y = along * math.cos(turn) - across * math.sin(turn), along * math.sin(turn) + across * math.cos(turn)
    return np.rint(rng.random(2) * corner + np.stack([x, y], axis=-1)).astype(np.int32)


def _between(low, high, fractions):
    """Maps fractions in [0, 1) to [low, high) with the same bits as `Generator.uniform(low, high)`."""
    return low + (high - low) * fractions


# Kind of mask -> element.
ELEMENTS = {
    "shapes": shape,
    "strokes": stroke,
    "boxes": box,
    "scratches": scratch,
    "outlines": outline,
    "blobs": blob,
    "specks": specks,
    "text": text,
}
