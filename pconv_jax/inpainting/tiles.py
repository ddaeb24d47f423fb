"""Tiles of a large image and how they blend: geometry in pixels, whatever is computed on a tile."""

from collections.abc import Callable

import numpy as np

# Weight at the rim of a tile: next to nothing beside another tile, and all there is where the others saw nothing.
_FLOOR = 1e-6


def starts(length: int, tile: int, overlap: int) -> list[int]:
    """First pixels of the tiles that cover `length`, the last of which ends there.

    Multiples of what `length`, `tile` and `overlap` are multiples of.
    """
    if length <= tile:
        return [0]
    return [*range(0, length - tile, tile - overlap), length - tile]


def weights(start: int, length: int, tile: int, overlap: int) -> np.ndarray:
    """float32 `[tile]`: 1, and where the image goes on beyond the tile a ramp over the middle half of the overlap.

    The outermost quarter of the overlap hardly counts: what is computed there lacks context that the neighbour has.
    """
    place = np.arange(tile) + 0.5
    result = np.ones(tile)
    for goes_on, distance in ((start > 0, place), (start + tile < length, tile - place)):
        if goes_on:
            result = np.minimum(result, np.clip((distance - overlap / 4) / (overlap / 2), _FLOOR, 1))
    return result.astype(np.float32)


def blend(
    size: tuple[int, int],
    tile: tuple[int, int],
    overlap: int,
    wanted: np.ndarray,
    predict: Callable[[int, int], tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean of overlapping tiles. Tiles without wanted pixels are not computed.

    Args:
      size: `(height, width)` that the tiles cover, at least that of `wanted`.
      tile: `(height, width)` of a tile, at most `size`.
      overlap: of neighbouring tiles.
      wanted: bool `[H, W]`, the pixels whose value matters.
      predict: `(top, left) -> (output float32 [*tile, C], seen bool [*tile])` of the tile that starts there.

    Returns:
      `(output float32 [H, W, C], seen bool [H, W])`. Tiles that did not see a pixel have no say in it; what none saw
      is 0.
    """
    height, width = wanted.shape
    output, total = None, np.zeros((height, width, 1), np.float32)
    for top in starts(size[0], tile[0], overlap):
        for left in starts(size[1], tile[1], overlap):
            here = np.s_[top : top + tile[0], left : left + tile[1]]
            if not wanted[here].any():
                continue
            rows, columns = wanted[here].shape
            values, seen = (x[:rows, :columns] for x in predict(top, left))
            vertical = weights(top, size[0], tile[0], overlap)[:rows, None, None]
            horizontal = weights(left, size[1], tile[1], overlap)[None, :columns, None]
            share = vertical * horizontal * seen[..., None]
            if output is None:
                output = np.zeros((height, width, values.shape[-1]), np.float32)
            output[here] += share * values
            total[here] += share
    seen = total > 0
    return np.divide(output, total, out=output, where=seen), seen[..., 0]
