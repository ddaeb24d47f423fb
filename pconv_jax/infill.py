"""Fills missing values of NetCDF files on grids of the whole earth with a trained network.

    python -m pconv_jax.infill --weights=crai.safetensors --data=tas.nc --variable=tas --out=filled.nc --map=map.png

Measured values, coordinates, times, attributes and compression stay as they are; the history attribute records what was
filled. Weights come from `python -m pconv_jax.tools.import_weights` or `tools.export_weights`.
"""

import os
import sys
import time

import numpy as np
from absl import flags

from pconv_jax import command_line, errors
from pconv_jax.inpainting import grids, maps, netcdf, weights_file
from pconv_jax.training import compilation_cache, reporting


def define_flags(flag_values: flags.FlagValues):
    """Adds the flags of this command."""
    flags.DEFINE_string("weights", None, "Weights file of a network for grids.", flag_values, required=True)
    flags.DEFINE_string("data", None, "NetCDF file to fill.", flag_values, required=True)
    flags.DEFINE_string("variable", None, "Variable to fill; may be left out where the file has one.", flag_values)
    flags.DEFINE_string(
        "mask", None, "NetCDF file, 1 measured and 0 missing, besides NaN, _FillValue and missing_value.", flag_values
    )
    flags.DEFINE_string("out", None, "NetCDF file to write.", flag_values, required=True)
    flags.DEFINE_string("map", None, "PNG of one time step before and after, to write as well.", flag_values)
    flags.DEFINE_integer("map_step", 0, "Time step on --map, from 0.", 0, flag_values=flag_values)
    flags.DEFINE_bool("regrid", False, "Resample grids of another size to the network's and back.", flag_values)
    flags.DEFINE_integer("batch_size", 32, "Time steps that are computed at once.", 1, flag_values=flag_values)
    flags.DEFINE_bool("overwrite", False, "Replace results that are there.", flag_values)
    flags.DEFINE_bool("compilation_cache", True, "Keep compiled programs in the user's cache directory.", flag_values)


def main(flag_values: flags.FlagValues):
    """Reads, fills and writes.

    Raises:
      UserError, OSError: a file cannot be read, filled or written; no NetCDF file was written.
    """
    _check_paths(flag_values)
    weights = weights_file.read(flag_values.weights)
    grid = tuple(weights.about["grid"]) if weights.about.get("grid") else None
    options = {"batch_size": flag_values.batch_size, "regrid": flag_values.regrid}
    compilation_cache.enable(flag_values.compilation_cache)
    network = grids.GridInfiller(weights.model(), weights.variables, grid, **options)
    data = netcdf.read(flag_values.data, flag_values.variable)
    if flag_values.map_step >= len(data.values):
        raise errors.UserError(f"--map_step is {flag_values.map_step}; {data.path} has {len(data.values)} time steps")
    valid = data.valid
    if flag_values.mask:
        valid = valid & netcdf.read_mask(flag_values.mask, data)
    started = time.perf_counter()
    output, seen = network(data.values, valid, _progress(started))
    if not np.isfinite(output[seen]).all():
        raise errors.UserError("the network's output is not finite: check that the data have the units of its training")
    filled = ~valid & seen
    left = int((~valid & ~seen).sum())
    note = (
        f"python -m pconv_jax.infill: {filled.sum()} missing values of {data.name} filled by "
        f"{os.path.basename(flag_values.weights)} (variables sha256 {weights_file.sha256(weights.variables)})"
    )
    netcdf.write(flag_values.out, data, output, filled, note)
    if flag_values.map:
        maps.write(flag_values.map, data, flag_values.map_step, output, filled)
    print(
        f"{flag_values.out}: {len(output)} time steps of {output.shape[1]} x {output.shape[2]}, {valid.mean():.1%} "
        f"measured, {filled.sum()} values filled in {time.perf_counter() - started:.1f} s"
    )
    if left:
        print(f"warning: {left} values have no measured value within reach and stay missing", file=sys.stderr)


def _check_paths(flag_values):
    """Raises UserError unless the results can be written beside each other without loss."""
    paths = [path for path in (flag_values.out, flag_values.map) if path]
    for path in paths:
        if not os.path.isdir(os.path.dirname(os.path.abspath(path))):
            raise errors.UserError(f"no folder for {path}: make it, or choose another")
        if os.path.realpath(path) in map(os.path.realpath, filter(None, (flag_values.data, flag_values.mask))):
            raise errors.UserError(f"{path} is an input as well: choose another name for the result")
        if os.path.exists(path) and not flag_values.overwrite:
            raise errors.UserError(f"{path} exists: choose another name, or pass --overwrite")


def _progress(started):
    """Returns a function that prints how many time steps are done, at most every two seconds."""
    printed = started

    def report(done, total):
        nonlocal printed
        current = time.perf_counter()
        if current - printed >= 2 and done < total:
            printed = current
            left = reporting.duration((current - started) / done * (total - done))
            print(f"{done} of {total} time steps, {left} left", file=sys.stderr, flush=True)

    return report


if __name__ == "__main__":
    command_line.run(main, define_flags, interrupted="interrupted: nothing was written")
