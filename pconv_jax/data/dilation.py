"""Dilation of 0/1 images by large windows, 64 pixels at a time: equals `cv2.dilate` and is several times faster.

OpenCV visits every pixel of a window that is not a rectangle: 1.2 ms for an ellipse of 29 x 29 on 512 x 512 pixels,
3.6 ms for one of 49 x 49. Here pixels are bits of 64-bit words, each row of the window is one run of ones, and the
dilation by a long run is computed from the dilation by a shorter one.
"""

import functools

import numpy as np


def dilate(image: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Returns the same as `cv2.dilate(image, window)`.

    Args:
      image: uint8 `[H, W]`, exactly 0 or 1.
      window: uint8 `[h, w]` with at most one run of ones per row. Of any two runs one contains the other, and all
        contain column `w // 2`, as in ellipses and rectangles.

    Returns:
      uint8 `[H, W]`, 1 where any pixel under the window is 1. Pixels beyond the border count as 0.
    """
    height, width = image.shape
    words = -(-(width + window.shape[1]) // 64)  # Wide enough that a shift never reaches the next row.
    padded = np.zeros((height, 64 * words), np.uint8)
    padded[:, :width] = image
    run = np.packbits(padded, axis=1, bitorder="little").view("<u8")
    result = np.zeros_like(run)
    left = right = 0  # A bit of `run` is the maximum over columns x + left to x + right.
    for (first, last), rows in _runs(window.tobytes(), window.shape):
        while (left, right) != (first, last):
            longest = min(right - left + 1, 63)
            step = min(longest, left - first) or -min(longest, last - right)
            run = run | _shifted(run, step)
            left, right = (left - step, right) if step > 0 else (left, right - step)
        for y in rows:
            result[max(0, -y) : max(0, height - y)] |= run[max(0, y) : max(0, height + y)]
    return np.unpackbits(result.view(np.uint8), axis=1, bitorder="little", count=width)


@functools.lru_cache(maxsize=64)  # Finding the runs takes a tenth of a dilation; training uses 41 windows.
def _runs(window, shape):
    """Returns `((first, last), rows)` for each run of the window, relative to its anchor, shortest run first."""
    y0, x0 = shape[0] // 2, shape[1] // 2
    rows = {}
    for y, row in enumerate(np.frombuffer(window, np.uint8).reshape(shape)):
        columns = np.flatnonzero(row)
        if len(columns):
            rows.setdefault((int(columns[0]) - x0, int(columns[-1]) - x0), []).append(y - y0)
    return sorted(rows.items(), key=lambda item: item[0][1] - item[0][0])


def _shifted(run, step):
    """Moves every pixel `step` columns to the right; -63 to 63 without 0. The rows are one contiguous array."""
    flat = run.ravel()
    if step > 0:
        moved = flat << np.uint64(step)
        moved[1:] |= flat[:-1] >> np.uint64(64 - step)
    else:
        moved = flat >> np.uint64(-step)
        moved[:-1] |= flat[1:] << np.uint64(64 + step)
    return moved.reshape(run.shape)
