"""Reads masks of grids from NetCDF files: cells that were measured, and cells to hide."""

import functools

import numpy as np

from pconv_jax import errors
from pconv_jax.reading import netcdf


def read_mask(path: str, grids: netcdf.Grids) -> np.ndarray:
    """Reads a mask of the measured values of a variable, for data whose missing values were filled otherwise.

    Args:
      path: path of a NetCDF file with one variable, or one of the same name: 1 measured, 0 missing, for one time step
        or for all, on the same latitudes and longitudes. Shares between 0 and 1, as remapping makes them, count as
        measured from a half on.
      grids: the variable.

    Returns:
      bool `[L * T, H, W]`.

    Raises:
      UserError: the file cannot be read, its grid, coordinates or time steps are others, or it holds other values.
    """
    names = netcdf.load(path).variables
    channel_axis = grids.dataset[grids.name].dims[grids.axes[0]] if grids.levels > 1 else ""
    try:
        mask = netcdf.read(path, grids.name if grids.name in names else None, str(channel_axis))
    except errors.UserError as error:
        advice = f"keep one variable in the mask's file, or call it {grids.name}; it has"
        raise errors.UserError(str(error).replace("give --variable, one of", advice)) from error
    if mask.valid.shape[1:] != grids.valid.shape[1:] or len(mask.valid) not in (1, len(grids.valid)):
        raise errors.UserError(
            f"{path} is {_size(mask.valid)} and {grids.path} {_size(grids.valid)}; needs the same grid, and one time "
            "step or as many"
        )
    for axis, name in ((1, "latitude"), (2, "longitude")):
        ours, theirs = grids.coordinate(axis), mask.coordinate(axis)
        if ours is not None and theirs is not None and not _same_degrees(ours, theirs):
            raise errors.UserError(
                f"{path} has a {name} of {theirs[0]:g} to {theirs[-1]:g} and {grids.path} of {ours[0]:g} to "
                f"{ours[-1]:g}: remap the mask to the grid of the data, e.g. by cdo remapnn or sellonlatbox"
            )
    values = np.where(mask.valid, mask.values, 0)
    if mask.north_first != grids.north_first and (mask.coordinate(1) is None or grids.coordinate(1) is None):
        values = values[:, ::-1]  # Without latitudes in one of the files, the rows of both have the same order.
    if values.min() < 0 or values.max() > 1:
        raise errors.UserError(f"{path} holds {values.min():g} to {values.max():g}; needs 1 measured and 0 missing")
    return np.broadcast_to(values >= 0.5, grids.valid.shape)


@functools.lru_cache(maxsize=4)
def read_holes(path: str, name: str | None = None) -> np.ndarray:
    """Returns the missing cells of each time step, to be hidden elsewhere: uint8 `[T, H, W]`, 1 = missing.

    A variable whose measured values are all 0 or 1, and both occur, is a mask: its zeros are missing as well. The
    result is kept, and not to be changed.

    Args:
      path: path of the file.
      name: name of the variable, or None, as in `netcdf.read`.

    Raises:
      UserError: as `netcdf.read`.
    """
    try:
        grids = netcdf.read(path, name)
    except errors.UserError as error:
        raise errors.UserError(str(error).replace("--variable", "masks.variable")) from error
    measured = grids.values[grids.valid]
    is_mask = np.isin(measured, (0, 1)).all() and 0 < measured.sum() < len(measured)
    holes = (~grids.valid | (is_mask & (grids.values == 0))).astype(np.uint8)
    holes.setflags(write=False)
    return holes


def _same_degrees(a, b):
    """Returns whether coordinates in degrees are the same, up to rounding and full turns."""
    return np.allclose((a - b + 180) % 360, 180, atol=0.01)


def _size(x):
    return " x ".join(map(str, x.shape))
