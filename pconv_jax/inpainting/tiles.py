"""Divides a large image into overlapping tiles and blends their results; what is computed on a tile does not matter."""

from collections.abc import Callable, Sequence

import numpy as np

SMALLEST = 256  # The least side of tiles that overlap, in pixels; smaller ones would mostly consist of overlap.

# The least weight, at the rim of a tile. It hardly counts beside another tile, and decides where no other tile saw.
_FLOOR = 1e-6


def starts(length: int, tile: int, overlap: int) -> list[int]:
    """Returns the first pixels of the tiles that cover `length`; the last tile ends where `length` does.

    A common divisor of `length`, `tile` and `overlap` divides them, too.

    Args:
      length: length of the image along an axis, in pixels.
      tile: side of a tile.
      overlap: overlap of neighbouring tiles, less than `tile`.
    """
    if length <= tile:
        return [0]
    return [*range(0, length - tile, tile - overlap), length - tile]


def weights(start: int, length: int, tile: int, overlap: int) -> np.ndarray:
    """Returns the weight of each row (or column) of a tile beside those of its neighbours.

    It is 1, and falls in a ramp over the middle half of the overlap where the image continues beyond the tile. The
    outermost quarter of the overlap hardly counts: what is computed there lacks context that the neighbour has.

    Args:
      start: first pixel of the tile.
      length: length of the image along this axis, in pixels.
      tile: side of the tile.
      overlap: overlap of neighbouring tiles.

    Returns:
      float32 `[tile]`.
    """
    center = np.arange(tile) + 0.5
    result = np.ones(tile)
    for continues, distance in ((start > 0, center), (start + tile < length, tile - center)):
        if continues:
            result = np.minimum(result, np.clip((distance - overlap / 4) / (overlap / 2), _FLOOR, 1))
    return result.astype(np.float32)


def side(extents: tuple[int, int], wanted: np.ndarray, sides: Sequence[int], overlap: Callable[[int], int]) -> int:
    """Chooses the side of the square tiles that cover the wanted pixels with the fewest computed ones.

    Args:
      extents: `(height, width)` of the image.
      wanted: bool `[H, W]`, the pixels whose value matters.
      sides: to choose from, in pixels, smallest first. All but the largest serve only where one tile covers everything,
        or the side is at least `SMALLEST`.
      overlap: takes a side and returns the overlap of neighbouring tiles of this side, in pixels.

    Returns:
      One of `sides`; the larger one of two that cost the same.
    """

    def cost(side):
        size = tuple(max(extent, side) for extent in extents)
        return count(size, (side, side), overlap(side), wanted) * side**2

    allowed = [s for s in sides if s == sides[-1] or s >= max(extents) or s >= SMALLEST]
    return min(allowed, key=lambda s: (cost(s), -s))


def count(size: tuple[int, int], tile: tuple[int, int], overlap: int, wanted: np.ndarray) -> int:
    """Returns the number of tiles that `blend` computes; the arguments are the same."""
    return sum(1 for _ in _places(size, tile, overlap, wanted))


def blend(
    size: tuple[int, int],
    tile: tuple[int, int],
    overlap: int,
    wanted: np.ndarray,
    predict: Callable[[int, int], tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the weighted mean of overlapping tiles. Tiles without wanted pixels are not computed.

    Args:
      size: `(height, width)` that the tiles cover, at least that of `wanted`.
      tile: `(height, width)` of a tile, at most `size`.
      overlap: overlap of neighbouring tiles.
      wanted: bool `[H, W]`, the pixels whose value matters.
      predict: takes the first row and column of a tile, and returns its `output`, float32 `[*tile, C]`, and the pixels
        that it could see, bool `[*tile]`.

    Returns:
      `(output float32 [H, W, C], seen bool [H, W])`. Tiles that did not see a pixel do not count there; where none
      did, the output is 0.
    """
    height, width = wanted.shape
    output, total = None, np.zeros((height, width, 1), np.float32)
    for top, left in _places(size, tile, overlap, wanted):
        here = np.s_[top : top + tile[0], left : left + tile[1]]
        rows, columns = wanted[here].shape
        values, seen = (x[:rows, :columns] for x in predict(top, left))
        vertical = weights(top, size[0], tile[0], overlap)[:rows, None, None]
        horizontal = weights(left, size[1], tile[1], overlap)[None, :columns, None]
        share = vertical * horizontal * seen[..., None]
        if output is None:
            output = np.zeros((height, width, values.shape[-1]), np.float32)
        output[here] += share * values
        total[here] += share
    assert output is not None  # There is always a tile.
    seen = total > 0
    return np.divide(output, total, out=output, where=seen), seen[..., 0]


def _places(size, tile, overlap, wanted):
    """Yields `(top, left)` of the tiles that hold wanted pixels."""
    for top in starts(size[0], tile[0], overlap):
        for left in starts(size[1], tile[1], overlap):
            if wanted[top : top + tile[0], left : left + tile[1]].any():
                yield top, left
