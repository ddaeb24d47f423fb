"""Holes made from the mask images of a folder, as they are or augmented as in the paper's training."""

import functools
from collections.abc import Sequence

import cv2
import numpy as np
from absl import logging

from pconv_jax import errors
from pconv_jax.data import dilation, grown_masks, mask_folder
from pconv_jax.reading import files

# Where 1 % of a folder's masks fit, all of these tries fail with a probability of 1e-44; `masks.check_folder` requires
# that one of 100 tried masks fits.
_MAX_TRIES = 10_000
_SAMPLES = 100  # Masks that `sample` tries.


def draw(family, rng: np.random.Generator, size: tuple[int, int], low: int, high: int) -> tuple[np.ndarray, str]:
    """Draws mask images at random until the hole of one has an area in the range.

    Args:
      family: the `masks.Family`; `path`, `polarity`, `augment` and `border` are used.
      rng: random generator that all draws are taken from.
      size: `(height, width)` of the result in pixels.
      low: smallest number of hole pixels.
      high: largest number of hole pixels.

    Returns:
      `(hole, name)`: uint8 `[H, W]`, 1 = hole, and the path of the mask image relative to the folder.

    Raises:
      UserError: no mask image fits, or the folder has none.
    """
    paths = mask_folder.files(family.path)
    tried = []
    for _ in range(_MAX_TRIES):
        path = paths[int(rng.integers(len(paths)))]
        hole, pixels = _candidate(family, path, rng, size)
        if pixels is not None and low <= pixels <= high:
            return hole, mask_folder.relative(path, family.path)
        tried.append(pixels)
    raise errors.UserError(none_fits(family, tried, size))


def sample(family, size: tuple[int, int]) -> list[int | None]:
    """Makes holes from mask images evenly spread over the folder and counts their pixels.

    Args:
      family: as in `draw`.
      size: `(height, width)` in pixels.

    Returns:
      The number of hole pixels of each tried mask image; None where `draw` would never take it.

    Raises:
      UserError: the folder has no mask image.
    """
    paths = mask_folder.files(family.path)
    count = _SAMPLES if family.augment else min(_SAMPLES, len(paths))
    return [
        _candidate(family, paths[index * len(paths) // count], np.random.default_rng([0, index]), size)[1]
        for index in range(count)
    ]


def none_fits(family, hole_pixels: Sequence[int | None], size: tuple[int, int]) -> str:
    """Returns the message for a folder in which no mask fits.

    Args:
      family: as in `draw`; `area` is the range that no mask has.
      hole_pixels: the results of the tries, as `sample` returns them.
      size: `(height, width)` in pixels.
    """
    areas = [pixels / (size[0] * size[1]) for pixels in hole_pixels if pixels is not None]
    unusable = f"{len(hole_pixels) - len(areas)} cannot be read, or have a hole in the border of {family.border}"
    if not areas:
        return f"of {len(hole_pixels)} masks of {family.path} {unusable}: check the files, or set the border to 0"
    return (
        f"{len(hole_pixels)} masks of {family.path} have hole areas of {min(areas):.3f} to {max(areas):.3f}, none fits "
        f"{family.area} with border {family.border}: check the polarity ({family.polarity}) or widen the area"
        + (f" ({unusable})" if len(areas) < len(hole_pixels) else "")
    )


def _candidate(family, path, rng, size):
    """Returns `(hole, number of its pixels)` of a mask image.

    The number is None where the file cannot be read, and where a hole that may not be changed (`augment` is False)
    enters the border.
    """
    try:
        hole = mask_folder.read_hole(path, family.polarity)
    except files.Unreachable:
        raise
    except (OSError, errors.UserError) as error:
        _warn_once(path, str(error))
        return None, None
    hole = _augment(hole, rng, size) if family.augment else _resize(hole, size)
    area = int(np.count_nonzero(hole))
    grown_masks.clear_border(hole, family.border)
    inside = int(np.count_nonzero(hole))
    return hole, inside if family.augment or inside == area else None


@functools.cache
def _warn_once(path, reason):
    """Logs that a mask image was skipped, once per file and process."""
    logging.warning("skipped the mask %s: %s", files.printable(path), reason)


def _augment(hole, rng, size):
    """Dilates by 9 to 49 pixels (of 512), rotates, shifts, crops, resizes and flips (paper, section 4.1 and FAQ)."""
    height, width = hole.shape
    window = max(1, round(int(rng.integers(9, 50)) / 512 * min(height, width)))
    hole = dilation.dilate(hole, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (window, window)))
    rotation = cv2.getRotationMatrix2D((width / 2, height / 2), float(rng.uniform(0, 360)), 1.0)
    rotation[:, 2] += rng.uniform(-0.25, 0.25, 2) * (width, height)
    hole = cv2.warpAffine(hole, rotation, (width, height), flags=cv2.INTER_NEAREST)
    fraction = rng.uniform(0.5, 1.0)
    h, w = max(1, round(fraction * height)), max(1, round(fraction * width))
    y, x = rng.integers(0, (height - h + 1, width - w + 1))
    hole = _resize(hole[y : y + h, x : x + w], size)
    flip_vertically, flip_horizontally = rng.integers(2), rng.integers(2)
    hole = cv2.flip(hole, 0) if flip_vertically else hole
    return cv2.flip(hole, 1) if flip_horizontally else hole


def _resize(hole, size):
    """Resizes by nearest neighbour, so that the result stays exactly 0 or 1."""
    return cv2.resize(hole, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)
