"""Small NetCDF files and configs of runs on grids, for tests."""

import numpy as np
import xarray

import runs

GRID = (8, 12)
TRAINING = {
    "data.source": "netcdf",
    "data.variable": "tas",
    "data.grid": GRID,
    "data.flip": False,
    "model.channels": 1,
    "model.padding": "circular",
    "model.any_size": True,
    "masks.area": (0.0, 1.0),
    "eval.buckets": False,
}


def config(path, **changes):
    """Returns the config of a small run on the file at a path."""
    return runs.tiny(**{**TRAINING, "data.path": str(path), **changes})


def values(steps=10, grid=GRID, seed=0, missing=0.2):
    """Returns smooth values, float32 `[steps, *grid]`, of which a part is NaN."""
    rng = np.random.default_rng(seed)
    rows, columns = (np.linspace(0, 2 * np.pi, n, endpoint=False) for n in grid)
    waves = np.cos(rows)[:, None] + np.sin(columns)
    fields = rng.normal(size=(steps, 1, 1)) * waves + 0.3 * rng.normal(size=(steps, *grid))
    return np.where(rng.uniform(size=fields.shape) < missing, np.nan, fields).astype(np.float32)


def write(path, variables, dims=("time", "lat", "lon"), latitude=None):
    """Writes a file of variables by name, all with the same axes. Returns the path as a string."""
    shape = next(iter(variables.values())).shape
    height, width = (shape[dims.index(name)] for name in ("lat", "lon"))
    step = 180 / height
    coordinates = {
        "lat": ("lat", -90 + step * (np.arange(height) + 0.5) if latitude is None else latitude),
        "lon": ("lon", 360 / width * np.arange(width)),
    }
    data = {name: (dims, array, {"units": "K"}) for name, array in variables.items()}
    xarray.Dataset(data, coordinates).to_netcdf(path, engine="h5netcdf")
    return str(path)
