"""Mask families: `draw(family, seed, stream, index, size)` returns uint8 `[H, W, 1]`, exactly 0 (hole) or 1 (valid).

Every mask is a function of (seed, stream, index) through `numpy.random.default_rng`: any process, on any worker, in any
order, draws the same bytes. A new kind of mask is one entry of `FAMILIES`.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
from absl import logging

from pconv_jax import errors
from pconv_jax.data import elements, folder_masks, grid_masks, grown_masks, mask_folder, notebook_masks
from pconv_jax.reading import mask_images

POLARITIES = mask_images.POLARITIES
# Width of the border as a fraction of the side; the paper's "border constraint" keeps holes out of it.
FRAME = 20 / 512

# Kind of mask -> function `(family, rng, size, low, high) -> (hole, name)`. It returns a uint8 hole `[H, W]`, 1 = hole,
# that has between `low` and `high` pixels and leaves the border of `family.border` free, and the name of the file that
# the hole was made from, or "".
FAMILIES: dict[str, Callable] = {
    **{kind: functools.partial(grown_masks.draw, element) for kind, element in elements.ELEMENTS.items()},
    "mixed": grown_masks.draw_mixed,
    "notebook": notebook_masks.draw,
    "folder": folder_masks.draw,
    "netcdf": grid_masks.draw,
}

# Kinds of masks that are read from files -> function `(family) -> text` that identifies the files.
FROM_FILES: dict[str, Callable] = {
    "folder": lambda family: mask_folder.fingerprint(family.path),
    "netcdf": grid_masks.fingerprint,
}

_RARE = 0.05  # Share of fitting masks in a folder below which it logs that masks will repeat.


@dataclasses.dataclass(frozen=True)
class Family:
    """A kind of mask and its settings.

    Attributes:
      kind: one of `FAMILIES`: "shapes" (lines, circles, ellipses), "strokes" (free-form brush), "boxes", "scratches",
        "outlines", "blobs", "specks", "text", "mixed" (each mask from one to three of these kinds), "notebook" (as the
        Keras notebook draws them), "folder" (mask images), or "netcdf" (the missing cells of a file of grids).
      area: range of the hole area as fractions of the image, `(low, high]`.
      border: width of a frame that no hole enters, as a fraction of each side; 0 lets holes touch the border.
      path: directory of the mask images, for "folder"; a NetCDF file, for "netcdf".
      variable: variable of the NetCDF file, for "netcdf"; empty where the file has one.
      polarity: meaning of white in the mask images, for "folder": "white_hole" (as in NVIDIA's test set) or
        "black_hole".
      augment: whether mask images are dilated, rotated, shifted, cropped and flipped as in the paper's training, for
        "folder".
    """

    kind: str = "strokes"
    area: tuple[float, float] = (0.01, 0.6)
    border: float = 0.0
    path: str = ""
    polarity: str = "white_hole"
    augment: bool = True
    variable: str = ""

    def __post_init__(self):
        if self.kind not in FAMILIES:
            raise errors.UserError(f'masks are "{self.kind}"; needs one of {", ".join(FAMILIES)}')
        if self.polarity not in POLARITIES:
            raise errors.UserError(f'mask polarity is "{self.polarity}"; needs one of {", ".join(POLARITIES)}')
        low, high = self.area
        if not 0 <= low < high <= 1:
            raise errors.UserError(f"hole area is {self.area}; needs 0 <= low < high <= 1")
        if not 0 <= self.border < 0.5:
            raise errors.UserError(f"mask border is {self.border}; needs a fraction of the side in [0, 0.5)")
        if low >= (1 - 2 * self.border) ** 2:
            raise errors.UserError(
                f"hole area is {self.area} with a border of {self.border}; at most "
                f"{(1 - 2 * self.border) ** 2:.3f} of the image is left: lower the area or the border"
            )
        if self.kind in FROM_FILES and not self.path:
            what = {"folder": "a directory of mask images", "netcdf": "a NetCDF file"}[self.kind]
            raise errors.UserError(f'masks are "{self.kind}"; needs the path of {what}')
        if self.kind == "netcdf" and self.border:
            raise errors.UserError(
                f'mask border is {self.border}; masks of kind "netcdf" are used as they are: set it to 0'
            )


def draw(family: Family, seed: int, stream: int, index: int, size: tuple[int, int]) -> np.ndarray:
    """Draws mask `index` of a random stream.

    Args:
      family: the kind of mask and its settings.
      seed: non-negative integer; with `stream` and `index` it identifies the mask.
      stream: non-negative integer that keeps uses of one seed apart, such as training and evaluation.
      index: non-negative integer, the position in the stream.
      size: `(height, width)` in pixels.

    Returns:
      uint8 `[H, W, 1]`, 1 = valid; the fraction of zeros lies in `family.area`.

    Raises:
      UserError: no mask of this size has such a hole area, or no mask image of the folder has.
    """
    return draw_named(family, seed, stream, index, size)[0]


def draw_named(family: Family, seed: int, stream: int, index: int, size: tuple[int, int]) -> tuple[np.ndarray, str]:
    """Draws a mask and names the file that it was made from.

    Args:
      family: the kind of mask and its settings.
      seed: as in `draw`.
      stream: as in `draw`.
      index: as in `draw`.
      size: `(height, width)` in pixels.

    Returns:
      `(mask, name)`: the mask of `draw`, and the path of its file relative to `family.path`; "" for other kinds.

    Raises:
      UserError: as in `draw`.
    """
    rng = np.random.default_rng([seed, stream, index])
    low, high = _pixel_range(family.area, size)
    hole, name = FAMILIES[family.kind](family, rng, size, low, high)
    return (hole == 0).view(np.uint8)[..., None], name


def hole_area(mask: np.ndarray) -> float:
    """Returns the fraction of zeros of a mask."""
    return float(np.mean(mask == 0))


def has_area(mask: np.ndarray, area: tuple[float, float]) -> bool:
    """Returns whether the hole area of a mask lies in a range, with the same rounding as `draw`.

    Args:
      mask: `[H, W, 1]`, 1 = valid.
      area: `(low, high]` as fractions of the image.
    """
    low, high = _bounds(area, mask.shape)
    return low <= np.count_nonzero(mask == 0) <= high


def touches_border(mask: np.ndarray) -> bool:
    """Returns whether a hole of `[H, W, 1]` enters the frame that is `FRAME` of each side wide.

    The frame has at least one pixel and no pixel that lies in it only partly. NVIDIA's masks with border constraint,
    resized by nearest neighbour to 26 pixels or more, never touch it.
    """
    rows, columns = (max(1, math.floor(FRAME * side)) for side in mask.shape[:2])
    edges = (mask[:rows], mask[-rows:], mask[:, :columns], mask[:, -columns:])
    return any(not edge.all() for edge in edges)


def check_folder(family: Family, areas: Sequence[tuple[float, float]], size: tuple[int, int]):
    """Checks that a folder has masks of every wanted hole area, by trying masks evenly spread over its files.

    It logs a warning where fewer than 5 % of the tried masks fit.

    Args:
      family: of the kind "folder"; its `area` is not used.
      areas: ranges `(low, high]` of hole areas that are each needed.
      size: `(height, width)` of the masks in pixels.

    Raises:
      UserError: no tried mask has a hole area in one of the ranges, the directory has no mask image, or none of them
        can be read.
    """
    hole_pixels = folder_masks.sample(family, size)
    for area in areas:
        low, high = _pixel_range(area, size)
        fitting = sum(pixels is not None and low <= pixels <= high for pixels in hole_pixels)
        if not fitting:
            raise errors.UserError(folder_masks.none_fits(dataclasses.replace(family, area=area), hole_pixels, size))
        if fitting < _RARE * len(hole_pixels):
            logging.warning(
                "of %d masks tried in %s, %d fit the hole area %s: finding one takes long, and they will repeat",
                len(hole_pixels),
                family.path,
                fitting,
                area,
            )


def _bounds(area, size):
    """Converts `(low, high]` to pixel counts, both inclusive; no count fits if the first is larger."""
    total = size[0] * size[1]
    return math.floor(area[0] * total) + 1, math.floor(area[1] * total)


def _pixel_range(area, size):
    """Returns the pixel counts of `_bounds`; raises UserError if no count fits."""
    low, high = _bounds(area, size)
    if low > high:
        raise errors.UserError(f"no mask of {size[0]}x{size[1]} has a hole area in {area}: widen the range")
    return low, high
