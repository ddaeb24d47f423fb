"""Draws a small ensemble of temperature anomalies on a grid of the earth, complete and with gaps, as NetCDF.

    python -m pconv_jax.tools.synthetic_climate --out=ensemble.nc --months=120

For trying `python -m pconv_jax.infill` where no measurements are at hand: the fields are smooth noise, wrap around in
longitude and change slowly from month to month; the gaps are wide at the poles and in the early months.
"""

import numpy as np
import xarray
from absl import flags
from scipy import ndimage

from pconv_jax import command_line, errors
from pconv_jax.tools import weight_files

_MEMORY = 0.8  # Share of a month's anomaly that persists to the next month.


def draw(months: int, height: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws anomalies and the cells where they were measured.

    Args:
      months: number of time steps.
      height: cells of latitude, from south to north.
      width: cells of longitude.
      seed: seed of all draws.

    Returns:
      `(anomalies, measured)`: float32 in kelvin and bool, `[months, height, width]`.
    """
    rng = np.random.default_rng(seed)
    latitude = np.abs(np.linspace(-1, 1, height))[:, None]
    fields = np.stack([_smooth(rng.normal(size=(height, width)), 4) for _ in range(months)])
    for month in range(1, months):
        fields[month] = _MEMORY * fields[month - 1] + np.sqrt(1 - _MEMORY**2) * fields[month]
    anomalies = fields * (0.5 + 1.5 * latitude)
    network = _smooth(rng.normal(size=(height, width)), 2) - 1.5 * latitude**2
    coverage = np.linspace(0.3, 0.8, months)
    noise = np.stack([_smooth(rng.normal(size=(height, width)), 1) for _ in range(months)])
    score = network + 0.5 * noise
    limits = [np.quantile(month, 1 - share) for month, share in zip(score, coverage, strict=True)]
    measured = score > np.reshape(limits, (-1, 1, 1))
    return anomalies.astype(np.float32), measured


def _smooth(noise, cells):
    """Returns noise smoothed over a number of cells, of standard deviation 1; longitude wraps around."""
    smooth = ndimage.gaussian_filter(noise, cells, mode=("nearest", "wrap"))
    return (smooth - smooth.mean()) / smooth.std()


def _days(months):
    """Returns the first day of each month as days since 1900-01-01."""
    first = np.datetime64("1900-01", "M") + np.arange(months)
    return (first.astype("datetime64[D]") - np.datetime64("1900-01-01", "D")).astype(np.float64)


def define_flags(flag_values: flags.FlagValues):
    """Adds the flags of this command."""
    flags.DEFINE_string("out", None, "NetCDF file to write.", flag_values, required=True)
    flags.DEFINE_integer("months", 120, "Time steps.", 1, flag_values=flag_values)
    flags.DEFINE_list("grid", ["72", "72"], "Cells of latitude and of longitude.", flag_values)
    flags.DEFINE_integer("seed", 0, "Seed of all draws.", 0, flag_values=flag_values)
    flags.DEFINE_bool("overwrite", False, "Replace --out if it exists.", flag_values)


def main(flag_values: flags.FlagValues):
    """Draws the ensemble and writes it, `tas` with gaps and `tas_complete` without.

    Raises:
      UserError, OSError: --out cannot be written, or --grid is no size.
    """
    weight_files.check_absent(flag_values.out, overwrite=flag_values.overwrite)
    if len(flag_values.grid) != 2 or not all(x.isdecimal() and int(x) >= 8 for x in flag_values.grid):
        raise errors.UserError(f"--grid is {','.join(flag_values.grid)}; needs two numbers of at least 8, e.g. 36,72")
    height, width = map(int, flag_values.grid)
    anomalies, measured = draw(flag_values.months, height, width, flag_values.seed)
    dims, attributes = ("time", "lat", "lon"), {"units": "K", "standard_name": "air_temperature_anomaly"}
    steps = {"lat": 180 / height, "lon": 360 / width}
    coordinates = {
        "time": ("time", _days(flag_values.months), {"units": "days since 1900-01-01", "calendar": "standard"}),
        "lat": ("lat", -90 + steps["lat"] * (np.arange(height) + 0.5), {"units": "degrees_north"}),
        "lon": ("lon", steps["lon"] * (np.arange(width) + 0.5), {"units": "degrees_east"}),
    }
    data = {
        "tas": (dims, np.where(measured, anomalies, np.float32(1e20)), {**attributes, "_FillValue": np.float32(1e20)}),
        "tas_complete": (dims, anomalies, attributes),
    }
    about = {"Conventions": "CF-1.8", "title": "synthetic anomalies", "history": "drawn by pconv_jax"}
    dataset = xarray.Dataset(data, coordinates, about)
    dataset.to_netcdf(flag_values.out, engine="h5netcdf", encoding={name: {"zlib": True} for name in data})
    print(f"{flag_values.out}: {flag_values.months} months of {height} x {width}, {measured.mean():.0%} measured")


if __name__ == "__main__":
    command_line.run(main, define_flags)
