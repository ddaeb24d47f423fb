"""Reads variables of NetCDF files on grids of latitude and longitude, and where they have measured values.

The file is read without decoding, so that packed values, times, attributes, coordinates and compression stay as they
are; only the variables that are asked for are decoded here, by `scale_factor`, `add_offset`, `_FillValue` and
`missing_value`.
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import Literal

import h5netcdf  # noqa: F401  xarray loads this engine by name; its absence shows here, before anything is computed.
import numpy as np
import xarray

from pconv_jax import errors

Engine = Literal["h5netcdf", "scipy"]

_ENGINES: dict[bytes, Engine] = {b"\x89HDF": "h5netcdf", b"CDF\x01": "scipy", b"CDF\x02": "scipy"}  # by first bytes
_GRID_AXES = {
    "latitude": ("lat", "latitude", "y", "rlat", "nlat"),
    "longitude": ("lon", "longitude", "x", "rlon", "nlon"),
}
_AUXILIARY = ("bounds", "climatology", "coordinates")  # Attributes that name variables which describe others.
_NO_GRID = 2  # Variables of fewer axes are on no grid.


@dataclasses.dataclass(frozen=True)
class Grids:
    """A variable on a grid of latitude and longitude.

    Attributes:
      path: path of the file.
      name: name of the variable.
      dataset: the whole file, not decoded.
      values: float64 `[L * T, H, W]`, decoded, 0 where nothing was measured; the leading axes of the variable are
        flattened, and latitude increases from row to row.
      valid: bool `[L * T, H, W]`, True where a value was measured.
      axes: order of the variable's axes that puts latitude and longitude last, and the axis of the channels first.
      levels: number L of channels; 1 without an axis of channels.
      north_first: whether the file has the rows in the opposite order, from north to south.
    """

    path: str
    name: str
    dataset: xarray.Dataset
    values: np.ndarray
    valid: np.ndarray
    axes: tuple[int, ...]
    levels: int = 1
    north_first: bool = False

    def coordinate(self, axis: int) -> np.ndarray | None:
        """Returns the coordinate of an axis of `values`, 1 for latitude and 2 for longitude; None without one."""
        name = self.dataset[self.name].dims[self.axes[axis - 3]]
        if name not in self.dataset.variables or self.dataset[name].dtype.kind not in "fiu":
            return None
        coordinate = np.asarray(self.dataset[name].values, np.float64)
        return coordinate[::-1] if axis == 1 and self.north_first else coordinate

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
    return _variable(path, load(path), name, channel_axis)


def read_all(path: str, names: Sequence[str] = (), channel_axis: str = "") -> tuple[Grids, ...]:
    """Reads variables that are the channels of one network.

    Args:
      path: path of the file, NetCDF 4 or 3.
      names: names of the variables; empty where the file has only one that depends on latitude and longitude.
      channel_axis: as in `read`.

    Raises:
      UserError: as `read`, or the variables have different shapes.
    """
    dataset = load(path)
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


def load(path: str) -> xarray.Dataset:
    """Returns a whole file, not decoded.

    Raises:
      UserError: the file is missing, damaged or no NetCDF.
    """
    if not os.path.isfile(path):
        raise errors.UserError(f"no file {path}: give a NetCDF file")
    name = engine(path)
    try:
        with xarray.open_dataset(path, engine=name, decode_cf=False) as dataset:
            return dataset.load()
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise errors.UserError(f"{path} cannot be read as NetCDF ({error}): copy or download it again") from error


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


def _variable(path, dataset, name, channel_axis):
    """Returns a variable of an open file."""
    others = {
        word for v in dataset.variables.values() for key in _AUXILIARY for word in str(v.attrs.get(key, "")).split()
    }
    grids = [
        key
        for key, v in dataset.variables.items()
        if v.ndim >= _NO_GRID and v.dtype.kind in "fiu" and key not in others
    ]
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
    valid = np.isfinite(raw) & ~np.isin(raw, missing_markers(variable))
    values, valid = (np.transpose(x, axes).reshape(-1, *np.transpose(x, axes).shape[-2:]) for x in (values, valid))
    result = Grids(path, name, dataset, np.where(valid, values, 0), valid, axes, levels)
    latitude = result.coordinate(1)
    if latitude is not None and latitude[0] > latitude[-1]:
        flipped = {"values": result.values[:, ::-1], "valid": result.valid[:, ::-1]}
        return dataclasses.replace(result, **flipped, north_first=True)
    return result


def missing_markers(variable: xarray.DataArray) -> np.ndarray:
    """Returns the stored values that mark missing cells besides NaN, in the type of the variable.

    Values that the type cannot hold, such as 1e20 in a variable of 16-bit integers, mark no cell.

    Args:
      variable: a variable as it is stored, with `_FillValue` and `missing_value` in its attributes.
    """
    markers = [m for key in ("_FillValue", "missing_value") for m in np.atleast_1d(variable.attrs.get(key, np.nan))]
    markers = [m for m in markers if isinstance(m, (int, float, np.number)) and np.isfinite(m)]
    if variable.dtype.kind != "f":
        limits = np.iinfo(variable.dtype)
        markers = [m for m in markers if limits.min <= m <= limits.max and m == int(m)]
    return np.array(markers).astype(variable.dtype)


def _axes(dataset, variable, channel_axis):
    """Returns the order of axes, channels first and longitude last, and the number of channels."""
    last, before = variable.ndim - 1, variable.ndim - 2
    latitude, longitude = (
        [axis for axis, name in enumerate(variable.dims) if _is_grid_axis(dataset, name, kind)] for kind in _GRID_AXES
    )
    if latitude and longitude:
        grid = (latitude[-1], longitude[-1])
    else:
        grid = (last, before) if before in longitude and last not in longitude else (before, last)
    leading = tuple(axis for axis in range(variable.ndim) if axis not in grid)
    if channel_axis not in variable.dims:
        return (*leading, *grid), 1
    axis = variable.dims.index(channel_axis)
    if axis in grid:
        raise errors.UserError(f"{channel_axis} is an axis of the grid of {variable.name}: it cannot hold its channels")
    return (axis, *(other for other in leading if other != axis), *grid), variable.shape[axis]


def _is_grid_axis(dataset, name, kind):
    attributes = dataset[name].attrs if name in dataset.variables else {}
    return attributes.get("standard_name") == kind or name.lower() in _GRID_AXES[kind]


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
