"""Pictures for people: labelled grids of images. uint8 RGB `[H, W, 3]`, files as PNG."""

import os

import cv2
import numpy as np

from pconv_jax.training import rundir

_GAP, _BAR = 4, 22
SHOWN_SIDE = 128  # smaller images are enlarged to about this


def samples(image, mask, output) -> np.ndarray:
    """One row per example: masked | prediction | composite | original, and the share of holes.

    Args:
      image: uint8 `[N, H, W, C]`.
      mask: uint8 `[N, H, W, 1]`, 1 = valid.
      output: float `[N, H, W, C]` in [0, 1], the raw prediction.
    """
    predicted = np.round(np.clip(output, 0, 1) * 255).astype(np.uint8)
    rows = [
        [np.where(m, i, 255).astype(np.uint8), p, np.where(m, i, p), i]
        for i, m, p in zip(image, mask, predicted, strict=True)
    ]
    labels = [f"{1 - m.mean():.0%}" for m in mask]
    return grid(rows, columns=("masked", "prediction", "composite", "original"), labels=labels)


def grid(rows, columns=(), labels=()) -> np.ndarray:
    """Arranges equally sized images, with a title over each column and a label on the first image of each row."""
    height, width = rows[0][0].shape[:2]
    scale = max(1, round(SHOWN_SIDE / min(height, width)))
    height, width = height * scale, width * scale
    top = _BAR if columns else 0
    sheet = np.full((top + len(rows) * (height + _GAP) - _GAP, len(rows[0]) * (width + _GAP) - _GAP, 3), 255, np.uint8)
    for column, title in enumerate(columns):
        _text(sheet, title, column * (width + _GAP) + 2, 15, (0, 0, 0))
    for r, row in enumerate(rows):
        y = top + r * (height + _GAP)
        for c, image in enumerate(row):
            x = c * (width + _GAP)
            image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if image.shape[-1] == 1 else image
            sheet[y : y + height, x : x + width] = image.repeat(scale, axis=0).repeat(scale, axis=1)
        if labels:
            sheet[y : y + 18, : min(10 * len(labels[r]) + 6, width)] = 0
            _text(sheet, labels[r], 3, y + 13, (255, 255, 255))
    return sheet


def save(path: str, sheet: np.ndarray):
    """Writes a PNG, whole or not at all.

    Raises:
      OSError: it cannot be written.
    """
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    encoded = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))[1]
    rundir.write_atomically(path, encoded.tobytes())


def _text(sheet, text, x, y, colour):
    cv2.putText(sheet, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)
