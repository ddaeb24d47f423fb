"""Labelled grids of images, as uint8 RGB `[H, W, 3]`, and their PNG files."""

import os

import cv2
import numpy as np

from pconv_jax.training import rundir

_GAP, _BAR = 4, 22  # Pixels between images, and height of the titles.
SHOWN_SIDE = 128  # Smaller images are enlarged to about this side, in pixels.


def samples(image, mask, output) -> np.ndarray:
    """Draws one row per example: masked, prediction, composite and original, labelled with the hole area.

    Args:
      image: uint8 `[N, H, W, C]`.
      mask: uint8 `[N, H, W, 1]`, 1 = valid.
      output: float `[N, H, W, C]` in [0, 1], the raw prediction.

    Returns:
      uint8 `[H, W, 3]`.
    """
    predicted = np.round(np.clip(output, 0, 1) * 255).astype(np.uint8)
    rows = [
        [np.where(m, i, 255).astype(np.uint8), p, np.where(m, i, p), i]
        for i, m, p in zip(image, mask, predicted, strict=True)
    ]
    labels = [f"{1 - m.mean():.0%}" for m in mask]
    return grid(rows, columns=("masked", "prediction", "composite", "original"), labels=labels)


def grid(rows, columns=(), labels=()) -> np.ndarray:
    """Arranges images of equal size in rows and columns.

    Args:
      rows: lists of images, uint8 `[H, W, 1 or 3]`.
      columns: titles above the columns; none by default.
      labels: labels on the first image of each row; none by default.

    Returns:
      uint8 `[H, W, 3]`.
    """
    height, width = rows[0][0].shape[:2]
    scale = max(1, round(SHOWN_SIDE / min(height, width)))
    height, width = height * scale, width * scale
    top = _BAR if columns else 0
    canvas = np.full((top + len(rows) * (height + _GAP) - _GAP, len(rows[0]) * (width + _GAP) - _GAP, 3), 255, np.uint8)
    for column, title in enumerate(columns):
        _text(canvas, title, column * (width + _GAP) + 2, 15, (0, 0, 0))
    for r, row in enumerate(rows):
        y = top + r * (height + _GAP)
        for c, image in enumerate(row):
            x = c * (width + _GAP)
            image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if image.shape[-1] == 1 else image
            canvas[y : y + height, x : x + width] = image.repeat(scale, axis=0).repeat(scale, axis=1)
        if labels:
            canvas[y : y + 18, : min(10 * len(labels[r]) + 6, width)] = 0
            _text(canvas, labels[r], 3, y + 13, (255, 255, 255))
    return canvas


def save(path: str, image: np.ndarray):
    """Writes a PNG atomically and makes its directory if needed.

    Args:
      path: file to write.
      image: uint8 RGB `[H, W, 3]`.

    Raises:
      OSError: the file cannot be written.
    """
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    encoded = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1]
    rundir.write_atomically(path, encoded.tobytes())


def _text(canvas, text, x, y, colour):
    cv2.putText(canvas, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)
