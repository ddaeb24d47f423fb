"""Dilation of 0/1 images by large windows, 64 pixels at a time: what `cv2.dilate` does, several times faster.

OpenCV visits every pixel of a window that is no rectangle: 1.2 ms for an ellipse of 29 x 29 on 512 x 512 pixels, 3.6 ms
for one of 49. Here pixels are bits of 64-bit words, rows of the window are runs, and a run is made from a shorter one.
"""

import functools

import numpy as np


def dilate(image: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Equals `cv2.dilate(image, window)`.

    Args:
      image: uint8 `[H, W]`, exactly 0 or 1.
      window: uint8 `[h, w]`, 0 but for one run of ones per row; of two runs one holds the other, and all hold column
        `w // 2`, as in ellipses and rectangles.

    Returns:
      uint8 `[H, W]`, 1 where any pixel of the window around it is 1; nothing beyond the border.
    """
    height, width = image.shape
    words = -(-(width + window.shape[1]) // 64)  # a row's runs end in zeros, not in the next row
    padded = np.zeros((height, 64 * words), np.uint8)
    padded[:, :width] = image
    run = np.packbits(padded, axis=1, bitorder="little").view("<u8")
    result = np.zeros_like(run)
    left = right = 0  # a pixel of `run` is the maximum over x + left .. x + right
    for (first, last), rows in _runs(window.tobytes(), window.shape):
        while (left, right) != (first, last):
            reach = min(right - left + 1, 63)
            step = min(reach, left - first) or -min(reach, last - right)
            run = run | _shifted(run, step)
            left, right = (left - step, right) if step > 0 else (left, right - step)
        for y in rows:
            result[max(0, -y) : max(0, height - y)] |= run[max(0, y) : max(0, height + y)]
    return np.unpackbits(result.view(np.uint8), axis=1, bitorder="little", count=width)


@functools.lru_cache(maxsize=64)  # a tenth of the time of a dilation, and training has 41 windows
def _runs(window, shape):
    """`((first, last), rows)` of the window's rows, relative to its anchor, from the shortest run to the longest."""
    y0, x0 = shape[0] // 2, shape[1] // 2
    rows = {}
    for y, row in enumerate(np.frombuffer(window, np.uint8).reshape(shape)):
        columns = np.flatnonzero(row)
        if len(columns):
            rows.setdefault((int(columns[0]) - x0, int(columns[-1]) - x0), []).append(y - y0)
    return sorted(rows.items(), key=lambda item: item[0][1] - item[0][0])


def _shifted(run, step):
    """Moves each pixel by `step` to the right, -63 to 63 and not 0; the rows are one long row."""
    flat = run.ravel()
    if step > 0:
        moved = flat << np.uint64(step)
        moved[1:] |= flat[:-1] >> np.uint64(64 - step)
    else:
        moved = flat >> np.uint64(-step)
        moved[:-1] |= flat[1:] << np.uint64(64 + step)
    return moved.reshape(run.shape)
