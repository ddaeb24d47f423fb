"""Reads variables of NetCDF files on grids of latitude and longitude, and where they have measured values.

The file is read without decoding, so that packed values, times, attributes, coordinates and compression stay as they
are; only the variables that are asked for are decoded here, by `scale_factor`, `add_offset`, `_FillValue` and
`missing_value`.
"""

import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import Literal

import h5netcdf  # noqa: F401  xarray loads this engine by name; its absence shows here, before anything is computed.
import numpy as np
import xarray

from pconv_jax import errors

Engine = Literal["h5netcdf", "scipy"]

_ENGINES: dict[bytes, Engine] = {b"\x89HDF": "h5netcdf", b"CDF\x01": "scipy", b"CDF\x02": "scipy"}  # by first bytes
_LONGITUDE = ("lon", "longitude", "x", "rlon", "nlon")
_NO_GRID = 2  # Variables of fewer axes are on no grid.


@dataclasses.dataclass(frozen=True)
class Grids:
    """A variable on a grid of latitude and longitude.

    Attributes:
      path: path of the file.
      name: name of the variable.
      dataset: the whole file, not decoded.
      values: float64 `[L * T, H, W]`, decoded, 0 where nothing was measured; the leading axes of the variable are
        flattened.
      valid: bool `[L * T, H, W]`, True where a value was measured.
      axes: order of the variable's axes that puts latitude and longitude last, and the axis of the channels first.
      levels: number L of channels; 1 without an axis of channels.
    """

    path: str
    name: str
    dataset: xarray.Dataset
    values: np.ndarray
    valid: np.ndarray
    axes: tuple[int, ...]
    levels: int = 1

    def coordinate(self, axis: int) -> np.ndarray | None:
        """Returns the coordinate of an axis of `values`, 1 for latitude and 2 for longitude; None without one."""
        name = self.dataset[self.name].dims[self.axes[axis - 3]]
        return np.asarray(self.dataset[name].values, np.float64) if name in self.dataset.variables else None

    def steps(self) -> np.ndarray:
        """Returns the indices of the time steps, `[times, others]`: others are, for instance, members of an ensemble.

        The axis of time is the one that CF conventions mark as such; without one, the first.
        """
        dims = self.dataset[self.name].dims
        leading = [dims[axis] for axis in self.axes[:-2]]
        sizes = [self.dataset.sizes[name] for name in leading]
        if self.levels > 1:
            leading, sizes = leading[1:], sizes[1:]
        indices = np.arange(len(self.values) // self.levels).reshape(sizes or [1])
        time = next((axis for axis, name in enumerate(leading) if _is_time(self.dataset, name)), 0)
        moved = np.moveaxis(indices, time, 0)
        return moved.reshape(len(moved), -1)


def read(path: str, name: str | None = None, channel_axis: str = "") -> Grids:
    """Reads a variable of a NetCDF file.

    Args:
      path: path of the file, NetCDF 4 or 3.
      name: name of the variable; None where the file has only one that depends on latitude and longitude.
      channel_axis: name of an axis, such as pressure levels, whose entries are channels of one time step. Variables
        without this axis have one channel.

    Raises:
      UserError: the file is missing, damaged, no NetCDF, or lacks such a variable.
    """
    return _variable(path, _open(path), name, channel_axis)


def read_all(path: str, names: Sequence[str] = (), channel_axis: str = "") -> tuple[Grids, ...]:
    """Reads variables that are the channels of one network.

    Args:
      path: path of the file, NetCDF 4 or 3.
      names: names of the variables; empty where the file has only one that depends on latitude and longitude.
      channel_axis: as in `read`.

    Raises:
      UserError: as `read`, or the variables have different shapes.
    """
    dataset = _open(path)
    variables = tuple(_variable(path, dataset, name, channel_axis) for name in names or (None,))
    shapes = {f"{v.name}: {_shape(v)}" for v in variables}
    if len({_shape(v) for v in variables}) > 1:
        raise errors.UserError(f"{path} has variables of different shapes ({'; '.join(sorted(shapes))})")
    if channel_axis and not any(channel_axis in dataset[v.name].dims for v in variables):
        raise errors.UserError(
            f"{path}: {', '.join(v.name for v in variables)} have no axis {channel_axis}; axes are "
            f"{', '.join(map(str, dataset[variables[0].name].dims))}"
        )
    return variables


def stack(variables: Sequence[Grids]) -> tuple[np.ndarray, np.ndarray]:
    """Returns `(values, valid)` of variables of the same shape as channels, `[T, H, W, C]`."""
    pairs = [[_channels(x, v.levels) for x in (v.values, v.valid)] for v in variables]
    return tuple(np.concatenate(arrays, axis=-1) for arrays in zip(*pairs, strict=True))


def unstack(array: np.ndarray, variables: Sequence[Grids]) -> list[np.ndarray]:
    """Returns the part of each variable, in the shape of its `values`: the inverse of `stack`.

    Args:
      array: `[T, H, W, C]`.
      variables: the variables that the channels belong to.
    """
    ends = np.cumsum([v.levels for v in variables])[:-1]
    parts = np.split(array, ends, axis=-1)
    return [np.moveaxis(part, -1, 0).reshape(v.values.shape) for part, v in zip(parts, variables, strict=True)]


def read_mask(path: str, grids: Grids) -> np.ndarray:
    """Reads a mask of the measured values of a variable, for data whose missing values were filled otherwise.

    Args:
      path: path of a NetCDF file with one variable, or one of the same name: 1 measured, 0 missing, for one time step
        or for all. Shares between 0 and 1, as remapping makes them, count as measured from a half on.
      grids: the variable.

    Returns:
      bool `[L * T, H, W]`.

    Raises:
      UserError: the file cannot be read, its grid or time steps are others, or it holds other values.
    """
    names = _open(path).variables
    mask = read(path, grids.name if grids.name in names else None)
    if mask.valid.shape[1:] != grids.valid.shape[1:] or len(mask.valid) not in (1, len(grids.valid)):
        raise errors.UserError(
            f"{path} is {_size(mask.valid)} and {grids.path} {_size(grids.valid)}; needs the same grid, and one time "
            "step or as many"
        )
    values = np.where(mask.valid, mask.values, 0)
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
      name: name of the variable, or None, as in `read`.

    Raises:
      UserError: as `read`.
    """
    grids = read(path, name)
    measured = grids.values[grids.valid]
    is_mask = np.isin(measured, (0, 1)).all() and 0 < measured.sum() < len(measured)
    holes = (~grids.valid | (is_mask & (grids.values == 0))).astype(np.uint8)
    holes.setflags(write=False)
    return holes


def engine(path: str) -> Engine:
    """Returns the name of xarray's engine for a file.

    Raises:
      UserError: it is no NetCDF.
    """
    with open(path, "rb") as file:
        start = file.read(4)
    if start not in _ENGINES:
        raise errors.UserError(
            f"{path} starts with {start!r}; needs NetCDF 4 or 3: convert it, e.g. by cdo -f nc4 copy"
        )
    return _ENGINES[start]


def _open(path):
    """Returns a whole file, not decoded."""
    if not os.path.isfile(path):
        raise errors.UserError(f"no file {path}: give a NetCDF file")
    name = engine(path)
    try:
        with xarray.open_dataset(path, engine=name, decode_cf=False) as dataset:
            return dataset.load()
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise errors.UserError(f"{path} cannot be read as NetCDF ({error}): copy or download it again") from error


def _variable(path, dataset, name, channel_axis):
    """Returns a variable of an open file."""
    grids = [key for key, v in dataset.variables.items() if v.ndim >= _NO_GRID and v.dtype.kind in "fiu"]
    if name is None and len(grids) == 1:
        name = grids[0]
    if name is None or name not in grids:
        reason = f"has no variable {name} on a grid" if name else "has several variables"
        raise errors.UserError(f"{path} {reason}: give --variable, one of {', '.join(grids) or 'none in this file'}")
    variable = dataset[name]
    axes, levels = _axes(dataset, variable, channel_axis)
    raw = variable.values
    values = raw.astype(np.float64) * float(variable.attrs.get("scale_factor", 1))
    values = values + float(variable.attrs.get("add_offset", 0))
    valid = np.isfinite(raw)
    for key in ("_FillValue", "missing_value"):
        for missing in np.atleast_1d(variable.attrs.get(key, np.nan)):
            valid &= raw != np.asarray(missing).astype(raw.dtype) if np.isfinite(missing) else True
    values, valid = (np.transpose(x, axes).reshape(-1, *np.transpose(x, axes).shape[-2:]) for x in (values, valid))
    return Grids(path, name, dataset, np.where(valid, values, 0), valid, axes, levels)


def _axes(dataset, variable, channel_axis):
    """Returns the order of axes, channels first and longitude last, and the number of channels."""
    last, before = variable.ndim - 1, variable.ndim - 2
    swapped = _is_longitude(dataset, variable.dims[before]) and not _is_longitude(dataset, variable.dims[last])
    grid, leading = ((last, before) if swapped else (before, last)), tuple(range(before))
    if channel_axis not in variable.dims:
        return (*leading, *grid), 1
    axis = variable.dims.index(channel_axis)
    if axis in grid:
        raise errors.UserError(f"{channel_axis} is an axis of the grid of {variable.name}: it cannot hold its channels")
    return (axis, *(other for other in leading if other != axis), *grid), variable.shape[axis]


def _is_longitude(dataset, name):
    attributes = dataset[name].attrs if name in dataset.variables else {}
    return attributes.get("standard_name") == "longitude" or name.lower() in _LONGITUDE


def _is_time(dataset, name):
    attributes = dataset[name].attrs if name in dataset.variables else {}
    marks = attributes.get("standard_name") == "time", attributes.get("axis") == "T", name.lower() == "time"
    return any(marks) or " since " in str(attributes.get("units", ""))


def _channels(array, levels):
    """Converts `[L * T, H, W]` to `[T, H, W, L]`."""
    return np.moveaxis(array.reshape(levels, -1, *array.shape[1:]), 0, -1)


def _shape(grids):
    """Returns the time steps and the grid of a variable as a text."""
    return " x ".join(map(str, (len(grids.values) // grids.levels, *grids.values.shape[1:])))


def _size(x):
    return " x ".join(map(str, x.shape))
