"""NetCDF files whose missing values are filled: everything but the filled cells is written as it was read.

The file is read without decoding, so that packed values, times, attributes, coordinates and compression stay as they
are; only the variable to fill is decoded here, by `scale_factor`, `add_offset`, `_FillValue` and `missing_value`.
"""

import dataclasses
import datetime
import os
import tempfile

import h5netcdf  # noqa: F401  xarray loads this engine by name; its absence shows here, before anything is computed.
import numpy as np
import xarray

from pconv_jax import errors

_ENGINES = {b"\x89HDF": "h5netcdf", b"CDF\x01": "scipy", b"CDF\x02": "scipy"}  # by the first bytes of a file
_LONGITUDE = ("lon", "longitude", "x", "rlon", "nlon")


@dataclasses.dataclass(frozen=True)
class Grids:
    """A variable on a grid of latitude and longitude.

    Attributes:
      path: path of the file.
      name: name of the variable.
      dataset: the whole file, not decoded.
      values: float64 `[T, H, W]`, decoded; the leading axes of the variable are flattened.
      valid: bool `[T, H, W]`, True where a value was measured.
      axes: order of the variable's axes that puts latitude and longitude last.
    """

    path: str
    name: str
    dataset: xarray.Dataset
    values: np.ndarray
    valid: np.ndarray
    axes: tuple[int, ...]

    def coordinate(self, axis: int) -> np.ndarray | None:
        """Returns the coordinate of an axis of `values`, 1 for latitude and 2 for longitude; None without one."""
        name = self.dataset[self.name].dims[self.axes[axis - 3]]
        return np.asarray(self.dataset[name].values, np.float64) if name in self.dataset.variables else None


def read(path: str, name: str | None = None) -> Grids:
    """Reads a variable of a NetCDF file.

    Args:
      path: path of the file, NetCDF 4 or 3.
      name: name of the variable; None where the file has only one that depends on latitude and longitude.

    Raises:
      UserError: the file is missing, damaged, no NetCDF, or lacks such a variable.
    """
    dataset = _open(path)
    grids = [key for key, variable in dataset.variables.items() if variable.ndim >= 2 and variable.dtype.kind in "fiu"]
    if name is None and len(grids) == 1:
        name = grids[0]
    if name is None or name not in grids:
        reason = f"has no variable {name} on a grid" if name else "has several variables"
        raise errors.UserError(f"{path} {reason}: give --variable, one of {', '.join(grids) or 'none in this file'}")
    variable = dataset[name]
    axes = _axes(dataset, variable)
    raw = variable.values
    values = raw.astype(np.float64) * float(variable.attrs.get("scale_factor", 1))
    values = values + float(variable.attrs.get("add_offset", 0))
    valid = np.isfinite(raw)
    for key in ("_FillValue", "missing_value"):
        for missing in np.atleast_1d(variable.attrs.get(key, np.nan)):
            valid &= raw != np.asarray(missing).astype(raw.dtype) if np.isfinite(missing) else True
    values, valid = (np.transpose(x, axes).reshape(-1, *np.transpose(x, axes).shape[-2:]) for x in (values, valid))
    return Grids(path, name, dataset, np.where(valid, values, 0), valid, axes)


def read_mask(path: str, grids: Grids) -> np.ndarray:
    """Reads a mask of the measured values of a variable, for data whose missing values were filled otherwise.

    Args:
      path: path of a NetCDF file with one variable, or one of the same name: 1 measured, 0 missing, for one time step
        or for all. Shares between 0 and 1, as remapping makes them, count as measured from a half on.
      grids: the variable.

    Returns:
      bool `[T, H, W]`.

    Raises:
      UserError: the file cannot be read, its grid or time steps are others, or it holds other values.
    """
    names = _open(path).variables
    mask = read(path, grids.name if grids.name in names else None)
    if mask.valid.shape[1:] != grids.valid.shape[1:] or len(mask.valid) not in (1, len(grids.valid)):
        raise errors.UserError(
            f"{path} is {_shape(mask.valid)} and {grids.path} {_shape(grids.valid)}; needs the same grid, and one time "
            "step or as many"
        )
    values = np.where(mask.valid, mask.values, 0)
    if values.min() < 0 or values.max() > 1:
        raise errors.UserError(f"{path} holds {values.min():g} to {values.max():g}; needs 1 measured and 0 missing")
    return np.broadcast_to(values >= 0.5, grids.valid.shape)


def write(path: str, grids: Grids, output: np.ndarray, filled: np.ndarray, note: str):
    """Writes the file with the filled cells, completely or not at all.

    Args:
      path: path of the new file.
      grids: what was read.
      output: `[T, H, W]`, decoded values.
      filled: bool `[T, H, W]`, the cells that take the output; all others keep their bits.
      note: what the history attribute records.

    Raises:
      OSError: the file cannot be written.
    """
    variable = grids.dataset[grids.name]
    shape = tuple(variable.shape[axis] for axis in grids.axes)
    back = np.argsort(grids.axes)
    output, filled = (np.transpose(x.reshape(shape), back) for x in (output, filled))
    raw = variable.values.copy()
    raw[filled] = _encoded(output[filled], variable)
    dataset = grids.dataset.copy()
    dataset[grids.name] = variable.copy(data=raw)
    time = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    before = grids.dataset.attrs.get("history", "")
    dataset.attrs["history"] = f"{time}: {note}" + (f"\n{before}" if before else "")
    for each in dataset.variables.values():  # otherwise xarray adds a _FillValue to coordinates
        if "_FillValue" not in each.attrs:
            each.encoding["_FillValue"] = None
    with tempfile.TemporaryDirectory(prefix=".infill_", dir=os.path.dirname(os.path.abspath(path))) as folder:
        temporary = os.path.join(folder, "filled.nc")
        engine = _engine(grids.path)
        dataset.to_netcdf(temporary, engine=engine, format="NETCDF4" if engine == "h5netcdf" else "NETCDF3_64BIT")
        os.replace(temporary, path)


def _open(path):
    """Returns a whole file, not decoded."""
    if not os.path.isfile(path):
        raise errors.UserError(f"no file {path}: give a NetCDF file")
    engine = _engine(path)
    try:
        with xarray.open_dataset(path, engine=engine, decode_cf=False) as dataset:
            return dataset.load()
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise errors.UserError(f"{path} cannot be read as NetCDF ({error}): copy or download it again") from error


def _engine(path):
    with open(path, "rb") as file:
        start = file.read(4)
    if start not in _ENGINES:
        raise errors.UserError(
            f"{path} starts with {start!r}; needs NetCDF 4 or 3: convert it, e.g. by cdo -f nc4 copy"
        )
    return _ENGINES[start]


def _axes(dataset, variable):
    """Returns the order of axes that puts latitude and longitude last."""
    last, before = variable.ndim - 1, variable.ndim - 2
    swapped = _is_longitude(dataset, variable.dims[before]) and not _is_longitude(dataset, variable.dims[last])
    return (*range(before), last, before) if swapped else tuple(range(variable.ndim))


def _is_longitude(dataset, name):
    attributes = dataset[name].attrs if name in dataset.variables else {}
    return attributes.get("standard_name") == "longitude" or name.lower() in _LONGITUDE


def _encoded(values, variable):
    """Returns decoded values as the variable stores them."""
    values = (values.astype(np.float64) - float(variable.attrs.get("add_offset", 0))) / float(
        variable.attrs.get("scale_factor", 1)
    )
    if variable.dtype.kind == "f":
        return values.astype(variable.dtype)
    limits = np.iinfo(variable.dtype)
    return np.clip(np.round(values), limits.min, limits.max).astype(variable.dtype)


def _shape(x):
    return " x ".join(map(str, x.shape))
