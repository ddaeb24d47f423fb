"""Mask generators: `draw(family, seed, stream, index, size)` -> uint8 `[H, W, 1]`, exactly 0 (hole) or 1 (valid).

Every mask is a function of (seed, stream, index) through `numpy.random.default_rng`, so that any process, on any
worker, in any order, gets the same bytes. Sizes of shapes are relative to the image, so that families look the same at
every resolution. Drawing is OpenCV's; a hole's area is steered into the wanted range, never assumed.
"""

import dataclasses
import functools
import math

import cv2
import numpy as np
from absl import logging

from pconv_jax.data import dilation, elements, mask_folder
from pconv_jax.data import encoded as encoded_images

FAMILIES = ("shapes", "strokes", "boxes", "folder")
POLARITIES = mask_folder.POLARITIES
FRAME = 20 / 512  # of the side: the paper's "border constraint" keeps holes out of it

# Elements are halved in size each time they overshoot the wanted area; 2 ** -12 of an image is below one pixel.
_MAX_HALVINGS = 12
_MAX_ELEMENTS = 10_000
# A folder of which one mask in 100 fits leaves 1e-44 for a draw in vain; `check_folder` asks for that much.
_FOLDER_TRIES = 10_000
_LOOKED_AT, _FEW = 100, 5


@dataclasses.dataclass(frozen=True)
class Family:
    """What masks to draw.

    Attributes:
      kind: "shapes" (lines, circles, ellipses), "strokes" (free-form brush), "boxes", or "folder" (mask images).
      area: wanted hole area as a fraction, `(low, high]`.
      border: width, as a fraction of each side, of a frame that no hole enters; 0 lets holes touch the border.
      path: of the folder.
      polarity: of the folder's images: "white_hole" (as NVIDIA's test set) or "black_hole".
      augment: of the folder's images: dilation, rotation, shift and flips as in the paper's training, else as they are.
    """

    kind: str = "strokes"
    area: tuple[float, float] = (0.01, 0.6)
    border: float = 0.0
    path: str = ""
    polarity: str = "white_hole"
    augment: bool = True

    def __post_init__(self):
        if self.kind not in FAMILIES:
            raise ValueError(f'masks are "{self.kind}"; needs one of {", ".join(FAMILIES)}')
        if self.polarity not in POLARITIES:
            raise ValueError(f'mask polarity is "{self.polarity}"; needs one of {", ".join(POLARITIES)}')
        low, high = self.area
        if not 0 <= low < high <= 1:
            raise ValueError(f"hole area is {self.area}; needs 0 <= low < high <= 1")
        if not 0 <= self.border < 0.5:
            raise ValueError(f"mask border is {self.border}; needs a fraction of the side in [0, 0.5)")
        if low >= (1 - 2 * self.border) ** 2:
            raise ValueError(
                f"hole area is {self.area} with a border of {self.border}; at most "
                f"{(1 - 2 * self.border) ** 2:.3f} of the image is left: lower the area or the border"
            )
        if self.kind == "folder" and not self.path:
            raise ValueError('masks are "folder"; needs the path of a directory of mask images')


def draw(family: Family, seed: int, stream: int, index: int, size: tuple[int, int]) -> np.ndarray:
    """Draws mask `index` of the stream.

    Args:
      family: what to draw.
      seed, stream, index: non-negative integers that identify the mask; streams keep uses apart.
      size: `(height, width)` in pixels.

    Returns:
      uint8 `[H, W, 1]`, 1 = valid, with the fraction of zeros in `family.area`.

    Raises:
      ValueError: the wanted area has no mask at this size, or (folder) none was found.
    """
    return draw_named(family, seed, stream, index, size)[0]


def draw_named(family: Family, seed: int, stream: int, index: int, size: tuple[int, int]) -> tuple[np.ndarray, str]:
    """As `draw`: the mask, and the file below `family.path` that it was made from; "" for other kinds."""
    rng = np.random.default_rng([seed, stream, index])
    low, high = _pixels(family.area, size)
    if family.kind == "folder":
        hole, path = _from_folder(family, rng, size, low, high)
        name = mask_folder.relative(path, family.path)
    else:
        hole, name = _grow(elements.ELEMENTS[family.kind], family, rng, size, low, high), ""
    return (hole == 0).view(np.uint8)[..., None], name


def hole_area(mask: np.ndarray) -> float:
    """Fraction of holes of a mask, 1 = valid."""
    return float(np.mean(mask == 0))


def has_area(mask: np.ndarray, area: tuple[float, float]) -> bool:
    """Whether the hole of `[H, W, 1]` is in the range `(low, high]`, by the same rounding as `draw`."""
    low, high = _range(area, mask.shape)
    return low <= np.count_nonzero(mask == 0) <= high


def touches_border(mask: np.ndarray) -> bool:
    """Whether a hole of `[H, W, 1]` enters the frame of `FRAME` of each side.

    The frame is of whole pixels that lie in it, at least one: NVIDIA's masks with border constraint never touch it,
    resized by nearest neighbour to 26 pixels or more.
    """
    rows, columns = (max(1, math.floor(FRAME * side)) for side in mask.shape[:2])
    edges = (mask[:rows], mask[-rows:], mask[:, :columns], mask[:, -columns:])
    return any(not edge.all() for edge in edges)


def _range(area, size):
    """The area as numbers of pixels `low <= n <= high`, `low` exclusive in the fraction; none if low > high."""
    total = size[0] * size[1]
    return math.floor(area[0] * total) + 1, math.floor(area[1] * total)


def _pixels(area, size):
    """`_range`, or an error if it is empty."""
    low, high = _range(area, size)
    if low > high:
        raise ValueError(f"no mask of {size[0]}x{size[1]} has a hole area in {area}: widen the range")
    return low, high


def _grow(element, family, rng, size, low, high):
    """Adds elements until the hole reaches a size drawn from the range; one that overshoots it is drawn smaller."""
    rows, columns = _frame(family.border, size)
    high = min(high, (size[0] - 2 * rows) * (size[1] - 2 * columns))
    if low > high:
        raise ValueError(f"a border of {family.border} leaves no hole of {low} pixels at {size[0]}x{size[1]}")
    wanted = int(rng.integers(low, high + 1))
    hole, area, halvings = np.zeros(size, np.uint8), 0, 0
    for _ in range(_MAX_ELEMENTS):
        if area >= max(low, min(wanted, high)):
            return hole
        candidate = hole.copy()
        element(candidate, rng, 0.5**halvings)
        _clear(candidate, rows, columns)
        candidate_area = int(np.count_nonzero(candidate))
        if candidate_area <= high:
            hole, area = candidate, candidate_area
        else:
            halvings = min(halvings + 1, _MAX_HALVINGS)
    _fill_up(hole[rows : size[0] - rows, columns : size[1] - columns], low - area)
    return hole


def _fill_up(hole, missing):
    """Completes a hole pixel by pixel, in order: only reached where almost everything has to be a hole."""
    rows, columns = np.nonzero(hole == 0)
    hole[rows[: max(missing, 0)], columns[: max(missing, 0)]] = 1


def _frame(border, size):
    """Rows and columns that stay free of holes, at each end."""
    return math.ceil(border * size[0]), math.ceil(border * size[1])


def _clear(hole, rows, columns):
    """Takes the holes out of the frame."""
    height, width = hole.shape
    hole[:rows] = hole[height - rows :] = 0
    hole[:, :columns] = hole[:, width - columns :] = 0


def check_folder(family: Family, areas, size: tuple[int, int]):
    """Looks at masks of a folder, evenly spread over its files, and counts those that `draw` would take.

    Args:
      family: masks of a folder; `areas` are ranges that take the place of its `area`.
      areas: each with a mask to be found, `(low, high]`.
      size: `(height, width)` in pixels.

    Raises:
      ValueError: a range that none of them has; no mask image, or none that can be read.
    """
    files = mask_folder.files(family.path)
    count = _LOOKED_AT if family.augment else min(_LOOKED_AT, len(files))
    found = []
    for index in range(count):
        path, rng = files[index * len(files) // count], np.random.default_rng([0, index])
        found.append(_candidate(family, path, rng, size)[1])
    for area in areas:
        family = dataclasses.replace(family, area=area)
        low, high = _pixels(area, size)
        fitting = sum(pixels is not None and low <= pixels <= high for pixels in found)
        if not fitting:
            raise ValueError(_none_fits(family, found, size))
        if fitting * 100 < _FEW * count:
            logging.warning(
                "of %d masks looked at in %s, %d fit the hole area %s: finding one takes long, and they will repeat",
                count,
                family.path,
                fitting,
                area,
            )


def _from_folder(family, rng, size, low, high):
    """A random mask image whose hole area lies in the range, drawn again until one does: `(hole, path)`."""
    files = mask_folder.files(family.path)
    seen = []
    for _ in range(_FOLDER_TRIES):
        path = files[int(rng.integers(len(files)))]
        hole, pixels = _candidate(family, path, rng, size)
        if pixels is not None and low <= pixels <= high:
            return hole, path
        seen.append(pixels)
    raise ValueError(_none_fits(family, seen, size))


def _candidate(family, path, rng, size):
    """`(hole, its pixels)` of a file, None where it cannot be read, or has to stay as it is and enters the border."""
    try:
        hole = mask_folder.read_hole(path, family.polarity)
    except encoded_images.Unreachable:
        raise
    except (OSError, ValueError) as error:
        _report(path, str(error))
        return None, None
    hole = _augment(hole, rng, size) if family.augment else _resize(hole, size)
    area = int(np.count_nonzero(hole))
    _clear(hole, *_frame(family.border, size))
    inside = int(np.count_nonzero(hole))
    return hole, inside if family.augment or inside == area else None


@functools.cache
def _report(path, reason):
    """Once per file and process."""
    logging.warning("skipped the mask %s: %s", encoded_images.shown(path), reason)


def _none_fits(family, seen, size):
    """What to tell where no mask was found, of the hole pixels of those that were tried."""
    areas = [pixels / (size[0] * size[1]) for pixels in seen if pixels is not None]
    unfit = f"{len(seen) - len(areas)} cannot be read, or have a hole in the border of {family.border}"
    if not areas:
        return f"of {len(seen)} masks of {family.path} {unfit}: check the files, or set the border to 0"
    return (
        f"{len(seen)} masks of {family.path} have hole areas of {min(areas):.3f} to {max(areas):.3f}, none fits "
        f"{family.area} with border {family.border}: check the polarity ({family.polarity}) or widen the area"
        + (f" ({unfit})" if len(areas) < len(seen) else "")
    )


def _augment(hole, rng, size):
    """Dilation by 9 to 49 pixels at 512, rotation, shift, flips, and a crop (paper, section 4.1 and the FAQ)."""
    height, width = hole.shape
    reach = max(1, round(int(rng.integers(9, 50)) / 512 * min(height, width)))
    hole = dilation.dilate(hole, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), float(rng.uniform(0, 360)), 1.0)
    turn[:, 2] += rng.uniform(-0.25, 0.25, 2) * (width, height)
    hole = cv2.warpAffine(hole, turn, (width, height), flags=cv2.INTER_NEAREST)
    crop = rng.uniform(0.5, 1.0)
    h, w = max(1, round(crop * height)), max(1, round(crop * width))
    y, x = rng.integers(0, (height - h + 1, width - w + 1))
    hole = _resize(hole[y : y + h, x : x + w], size)
    upside_down, mirrored = rng.integers(2), rng.integers(2)
    hole = cv2.flip(hole, 0) if upside_down else hole
    return cv2.flip(hole, 1) if mirrored else hole


def _resize(hole, size):
    """Nearest neighbour: the result stays exactly 0 or 1."""
    return cv2.resize(hole, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)
