"""Fills missing values of NetCDF files on grids of the whole earth with a trained network.

    python -m pconv_jax.infill --weights=crai.safetensors --data=tas.nc --variable=tas --out=filled.nc --map=map.png
    python -m pconv_jax.infill --run=runs/climate --data=tas.nc --variable=tas --out=filled.nc

Measured values, coordinates, times, attributes and compression stay as they are; the history attribute records what was
filled. Weights come from `python -m pconv_jax.tools.import_weights` or `tools.export_weights`, or from a run directory.
"""

import dataclasses
import os
import sys
import time

import numpy as np
from absl import flags

from pconv_jax import command_line, errors
from pconv_jax.inpainting import grids, maps, netcdf_files, run_weights, weights_file
from pconv_jax.reading import netcdf, netcdf_masks
from pconv_jax.training import compilation_cache, reporting


def define_flags(flag_values: flags.FlagValues):
    """Adds the flags of this command."""
    flags.DEFINE_string("weights", None, "Weights file of a network for grids.", flag_values)
    flags.DEFINE_string("run", None, "Run directory of a network for grids, in place of --weights.", flag_values)
    flags.DEFINE_enum("checkpoint", "last", ["last", "best"], "Which checkpoint of --run.", flag_values)
    flags.DEFINE_string("data", None, "NetCDF file to fill.", flag_values, required=True)
    flags.DEFINE_string(
        "variable",
        None,
        "Variable to fill, or several with commas, one per channel of the network; default: those of its training.",
        flag_values,
    )
    flags.DEFINE_string(
        "mask", None, "NetCDF file, 1 measured and 0 missing, besides NaN, _FillValue and missing_value.", flag_values
    )
    flags.DEFINE_string("out", None, "NetCDF file to write.", flag_values, required=True)
    flags.DEFINE_string(
        "map", None, "PNG of one time step of the first variable before and after, to write as well.", flag_values
    )
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
    _check_flags(flag_values)
    network, name, about = _network(flag_values)
    compilation_cache.enable(flag_values.compilation_cache)
    names = [name for name in (flag_values.variable or "").split(",") if name] or about.get("variables", ())
    variables = netcdf.read_all(flag_values.data, names, about.get("channel_axis", ""))
    measured = [v.valid for v in variables]
    if flag_values.mask:
        measured = [
            valid & netcdf_masks.read_mask(flag_values.mask, v) for valid, v in zip(measured, variables, strict=True)
        ]
    variables = [dataclasses.replace(v, valid=valid) for v, valid in zip(variables, measured, strict=True)]
    values, valid = netcdf.stack(variables)
    if flag_values.map_step >= len(values):
        raise errors.UserError(f"--map_step is {flag_values.map_step}; {flag_values.data} has {len(values)} time steps")
    started = time.perf_counter()
    output, seen = network(values, valid.all(axis=-1), _progress(started))
    if not np.isfinite(output[seen]).all():
        raise errors.UserError("the network's output is not finite: check that the data have the units of its training")
    filled = ~valid & seen[..., None]
    left = int((~valid & ~seen[..., None]).sum())
    note = (
        f"python -m pconv_jax.infill: {filled.sum()} missing values of {', '.join(v.name for v in variables)} filled "
        f"by {name}"
    )
    outputs, cells = netcdf.unstack(output, variables), netcdf.unstack(filled, variables)
    netcdf_files.write(flag_values.out, variables, outputs, cells, note)
    if flag_values.map:
        maps.write(flag_values.map, variables[0], flag_values.map_step, outputs[0], cells[0])
    print(
        f"{flag_values.out}: {len(output)} time steps of {output.shape[1]} x {output.shape[2]}, {valid.mean():.1%} "
        f"measured, {filled.sum()} values filled in {time.perf_counter() - started:.1f} s"
    )
    if left:
        print(f"warning: {left} values have no measured value within reach and stay missing", file=sys.stderr)


def _network(flag_values):
    """Returns the network of a run or a weights file, its description for the history, and what is known about it."""
    if flag_values.run:
        weights = run_weights.read(flag_values.run, flag_values.checkpoint)
        name = f"step {weights.about['step']} of {weights.about['name']}"
    else:
        weights = weights_file.read(flag_values.weights)
        name = os.path.basename(flag_values.weights)
    grid = tuple(weights.about["grid"]) if weights.about.get("grid") else None
    options = {"batch_size": flag_values.batch_size, "regrid": flag_values.regrid}
    options["north_first"] = weights.about.get("north_first", False)
    network = grids.GridInfiller(weights.model(), weights.variables, grid, **options)
    return network, f"{name} (variables sha256 {weights_file.sha256(weights.variables)})", weights.about


def _check_flags(flag_values):
    """Raises UserError unless there is one network, and the results can be written beside each other without loss."""
    if bool(flag_values.run) == bool(flag_values.weights):
        raise errors.UserError("give the network: either --weights=FILE or --run=DIR")
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
