"""Holes that are the missing cells of a NetCDF file, a random time step each: gaps as observations really have them."""

import os

import numpy as np

from pconv_jax import errors
from pconv_jax.reading import files


def draw(family, rng: np.random.Generator, size: tuple[int, int], low: int, high: int) -> tuple[np.ndarray, str]:
    """Draws a time step whose number of missing cells lies in the range.

    Args:
      family: the `masks.Family`; `path` and `variable` are used.
      rng: random generator that the draw is taken from.
      size: `(height, width)` of the grid.
      low: smallest number of missing cells.
      high: largest number of missing cells.

    Returns:
      `(hole, name)`: uint8 `[H, W]`, 1 = missing, and the file with the index of the time step.

    Raises:
      UserError: the file has another grid, or no time step fits.
    """
    from pconv_jax.reading import netcdf_masks  # Importing xarray takes half a second, which other masks do without.

    path = files.expand(family.path)
    holes = netcdf_masks.read_holes(path, family.variable or None)
    if holes.shape[1:] != tuple(size):
        raise errors.UserError(
            f"the masks of {path} have {holes.shape[1]} x {holes.shape[2]} cells; needs {size[0]} x {size[1]}, as the "
            "data have: remap the file"
        )
    counts = holes.sum(axis=(1, 2), dtype=np.int64)
    fitting = np.flatnonzero((low <= counts) & (counts <= high))
    if not len(fitting):
        cells = size[0] * size[1]
        raise errors.UserError(
            f"the {len(holes)} time steps of {path} miss {counts.min() / cells:.3f} to {counts.max() / cells:.3f} of "
            f"the cells; none fits {family.area}: widen the area, and set eval.buckets to False"
        )
    step = int(fitting[rng.integers(len(fitting))])
    return holes[step].copy(), f"{os.path.basename(path)} {step}"


def fingerprint(family) -> str:
    """Returns a text that identifies the file and the variable of a family of masks."""
    path = files.expand(family.path)
    if not os.path.isfile(path):
        raise errors.UserError(f"no file {path}: set the path of the masks to a NetCDF file")
    return f"{family.variable or 'the variable'} of {os.path.basename(path)}, {os.path.getsize(path)} bytes"
