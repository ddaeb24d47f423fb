"""Writes NetCDF files whose missing values are filled: everything but the filled cells is written as it was read."""

import datetime
import os
import tempfile
from collections.abc import Sequence

import numpy as np

from pconv_jax.reading import netcdf


def write(
    path: str, variables: Sequence[netcdf.Grids], outputs: Sequence[np.ndarray], filled: Sequence[np.ndarray], note: str
):
    """Writes the file with the filled cells, completely or not at all.

    Args:
      path: path of the new file.
      variables: what was read, all of one file.
      outputs: decoded values of each variable, in the shape of its `values`.
      filled: for each variable, bool, the cells that take the output; all others keep their bits.
      note: what the history attribute records.

    Raises:
      OSError: the file cannot be written.
    """
    source = variables[0]
    dataset = source.dataset.copy()
    for grids, output, cells in zip(variables, outputs, filled, strict=True):
        dataset[grids.name] = _filled(grids, output, cells)
    time = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    before = source.dataset.attrs.get("history", "")
    dataset.attrs["history"] = f"{time}: {note}" + (f"\n{before}" if before else "")
    for each in dataset.variables.values():  # otherwise xarray adds a _FillValue to coordinates
        if "_FillValue" not in each.attrs:
            each.encoding["_FillValue"] = None
    with tempfile.TemporaryDirectory(prefix=".infill_", dir=os.path.dirname(os.path.abspath(path))) as folder:
        temporary = os.path.join(folder, "filled.nc")
        engine = netcdf.engine(source.path)
        dataset.to_netcdf(temporary, engine=engine, format="NETCDF4" if engine == "h5netcdf" else "NETCDF3_64BIT")
        os.replace(temporary, path)


def _filled(grids, output, cells):
    """Returns a variable, as it is stored, with the filled cells."""
    variable = grids.dataset[grids.name]
    if grids.north_first:
        output, cells = output[:, ::-1], cells[:, ::-1]
    shape = tuple(variable.shape[axis] for axis in grids.axes)
    back = np.argsort(grids.axes)
    output, cells = (np.transpose(x.reshape(shape), back) for x in (output, cells))
    raw = variable.values.copy()
    raw[cells] = _encoded(output[cells], variable)
    return variable.copy(data=raw)


def _encoded(values, variable):
    """Returns decoded values as the variable stores them; integers stay in range and never mark a missing cell."""
    values = (values.astype(np.float64) - float(variable.attrs.get("add_offset", 0))) / float(
        variable.attrs.get("scale_factor", 1)
    )
    if variable.dtype.kind == "f":
        return values.astype(variable.dtype)
    limits, markers = np.iinfo(variable.dtype), set(netcdf.missing_markers(variable).tolist())
    high = limits.max
    while high in markers:
        high -= 1
    stored = np.clip(np.round(values), limits.min, high).astype(variable.dtype)
    for marker in sorted(markers):
        stored[stored == marker] += 1
    return stored
