"""A picture of a grid before and after filling."""

import numpy as np
from matplotlib import figure

from pconv_jax.reading import netcdf


def write(path: str, grids: netcdf.Grids, step: int, output: np.ndarray, filled: np.ndarray):
    """Writes two maps of one time step, as measured and as filled, with missing cells in grey.

    Args:
      path: PNG to write.
      grids: what was read.
      step: index of the time step.
      output: decoded values, in the shape of `grids.values`.
      filled: bool, the cells that take the output.
    """
    before = np.where(grids.valid[step] & ~filled[step], grids.values[step], np.nan)
    after = np.where(filled[step], output[step], before)
    low, high = np.nanpercentile(after, (1, 99)) if np.isfinite(after).any() else (0, 1)
    signed = low < 0 < high
    limit = max(-low, high)
    colours = {
        "cmap": "RdBu_r" if signed else "viridis",
        "vmin": -limit if signed else low,
        "vmax": limit if signed else high,
    }
    latitude, longitude = grids.coordinate(1), grids.coordinate(2)
    drawing = figure.Figure(figsize=(12, 3.6), layout="constrained")
    for axes, values, title in zip(drawing.subplots(1, 2), (before, after), ("measured", "filled"), strict=True):
        axes.set_facecolor("0.75")
        if latitude is None or longitude is None or latitude.ndim > 1 or longitude.ndim > 1:
            image = axes.pcolormesh(values, **colours)
            axes.invert_yaxis()
        else:
            image = axes.pcolormesh(longitude, latitude, values, shading="nearest", **colours)
            axes.set(xlabel="longitude", ylabel="latitude")
        axes.set_title(f"{grids.name}, step {step}, {title}: {np.isfinite(values).mean():.0%} of the cells")
    units = grids.dataset[grids.name].attrs.get("units", "")
    drawing.colorbar(image, ax=drawing.axes, label=f"{grids.name} [{units}]" if units else grids.name)
    drawing.savefig(path, dpi=110)
