"""A source of numbers on grids of the earth, read from NetCDF files: float32 `[H, W, C]`, NaN where nothing is known.

Grids are used as they are, without cropping or resizing, and in the units of the file. The network standardises them
(`model.input_mean`, `model.input_std`).
"""

import dataclasses
import glob
import os
from collections.abc import Sequence

import numpy as np
from absl import logging

from pconv_jax import errors
from pconv_jax.reading import files


@dataclasses.dataclass(frozen=True)
class GridSource:
    """Time steps of variables on a grid, in memory. Items are `(grid, skipped)`; nothing is ever skipped.

    Attributes:
      values: float32 `[T, H, W, C]`, NaN where no value is known.
      names: file and index of each time step.
      channels: name of each channel.
      units: units of each channel, "" where the file does not state them.
      latitude: degrees of each row, increasing, or None where the files do not state them.
      files: description of the files and variables, for the fingerprint.
    """

    values: np.ndarray
    names: tuple[str, ...]
    channels: tuple[str, ...]
    units: tuple[str, ...]
    latitude: np.ndarray | None
    files: str

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        return self.values[index], 0

    def fingerprint(self) -> str:
        """Returns a text that identifies the files, the variables and the time steps."""
        return f"{len(self)} time steps of {', '.join(self.channels)}; {self.files}"

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns `(mean, standard deviation)` of each channel over all known values."""
        return tuple(f(self.values, axis=(0, 1, 2), dtype=np.float64) for f in (np.nanmean, np.nanstd))


def load(data) -> tuple[GridSource, GridSource]:
    """Returns `(train, evaluation)` of a config's section `data`.

    With `data.eval_path`, its files are for evaluation. Without it, the last `data.eval_fraction` of the time steps of
    each file is held out: neighbouring months resemble each other, so the part is contiguous.

    Raises:
      UserError: a file is missing or unreadable, lacks a variable, has another grid than `data.grid` or too few time
        steps, or is both for training and for evaluation.
    """
    train, evaluation = paths(data.path), paths(data.eval_path) if data.eval_path else ()
    both = {os.path.realpath(p) for p in train} & {os.path.realpath(p) for p in evaluation}
    if both:
        raise errors.UserError(f"{', '.join(sorted(both))}: is in data.path and in data.eval_path; needs to be apart")
    read = [_read(path, data) for path in train]
    if evaluation:
        _check_alike([read[0], _read(evaluation[0], data)])
        return _source(read), _source([_read(path, data) for path in evaluation])
    return tuple(_source(part) for part in zip(*(_split(file, data.eval_fraction) for file in read), strict=True))


def check(source: GridSource, channels: int, mean: Sequence[float], std: Sequence[float]):
    """Checks that a network can be trained on grids; logs a warning if its input is far from standardised.

    Args:
      source: the grids for training.
      channels: `model.channels`.
      mean: `model.input_mean`, () for none.
      std: `model.input_std`, () for none.

    Raises:
      UserError: the grids have another number of channels, or no known value.
    """
    if len(source.channels) != channels:
        raise errors.UserError(
            f"the data have {len(source.channels)} channels ({', '.join(source.channels)}) and model.channels is "
            f"{channels}: set --config.model.channels={len(source.channels)}"
        )
    if np.isnan(source.values).all(axis=(0, 1, 2)).any():
        raise errors.UserError(f"a channel has no known value in the training data ({source.fingerprint()})")
    means, stds = source.statistics()
    centers, scales = np.asarray(mean or 0.0), np.asarray(std or 1.0)
    if (np.abs(means - centers) > scales).any() or (stds > 5 * scales).any() or (stds < scales / 5).any():
        mean, std = (", ".join(f"{x:.4g}" for x in values) for values in (means, stds))
        logging.warning(
            "%s: the values have mean %s and standard deviation %s, and a network is trained best on values around 0 "
            "of size 1: set --config.model.input_mean='(%s,)' --config.model.input_std='(%s,)'",
            ", ".join(source.channels),
            *(mean, std, mean, std),
        )


def paths(text: str) -> tuple[str, ...]:
    """Returns the files that a text names: paths with commas between them, each may have wildcards.

    Raises:
      UserError: nothing matches one of them.
    """
    result = []
    for part in [text] if os.path.exists(files.expand(text)) else text.split(","):
        pattern = files.expand(part.strip())
        matches = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern, recursive=True))
        if not matches:
            raise errors.UserError(f"no file {part.strip()}: set data.path to NetCDF files")
        result += matches
    return tuple(dict.fromkeys(result))


def problems(data) -> list[str]:
    """Returns a message for each setting of a config's section `data` that does not fit grids."""
    changed = [name for name in ("flip", "rotate", "permute_channels") if data[name]]
    result = [f"data.{name} is True and grids are used as they are: set --config.data.{name}=False" for name in changed]
    if not data.grid:
        result.append(
            'data.source is "netcdf" and data.grid is empty: set --config.data.grid to the cells of latitude and '
            "longitude, e.g. (36, 72)"
        )
    return result


@dataclasses.dataclass(frozen=True)
class _File:
    """What a file holds: `values` as in `GridSource`, and the indices of the time steps that are used."""

    path: str
    values: np.ndarray
    steps: np.ndarray
    channels: tuple[str, ...]
    units: tuple[str, ...]
    latitude: np.ndarray | None


def _read(path, data):
    """Returns the content of a file; `steps` is `[times, members]`."""
    from pconv_jax.reading import netcdf  # Importing xarray takes half a second, which other sources do without.

    try:
        variables = netcdf.read_all(path, [name for name in data.variable.split(",") if name], data.channel_axis)
    except errors.UserError as error:
        raise errors.UserError(str(error).replace("--variable", "--config.data.variable")) from error
    values, valid = netcdf.stack(variables)
    if values.shape[1:3] != tuple(data.grid):
        size = ",".join(map(str, values.shape[1:3]))
        raise errors.UserError(
            f"{path} has a grid of ({size}) cells and data.grid is {tuple(data.grid)}: set "
            f"--config.data.grid='({size})', or remap the file"
        )
    latitude = variables[0].coordinate(1)
    if latitude is not None and (np.abs(latitude) > 90).any():
        latitude = None  # The axis is no latitude, e.g. metres of a projection.
    channels = [(v, level) for v in variables for level in range(v.levels)]
    return _File(
        path,
        np.where(valid, values, np.nan).astype(np.float32),
        variables[0].steps(),
        tuple(v.name if v.levels == 1 else f"{v.name}[{level}]" for v, level in channels),
        tuple(str(v.dataset[v.name].attrs.get("units", "")) for v, _ in channels),
        latitude,
    )


def _split(file, fraction):
    """Returns `(train, evaluation)`: the first time steps of a file and its last ones."""
    count = len(file.steps)
    if count < 2:
        raise errors.UserError(f"{file.path} has 1 time step; needs at least 2, or files in data.eval_path")
    border = min(max(round((1 - fraction) * count), 1), count - 1)
    return tuple(dataclasses.replace(file, steps=steps) for steps in (file.steps[:border], file.steps[border:]))


def _check_alike(parts: Sequence[_File]):
    """Raises UserError unless files have the same channels in the same units on the same latitudes."""
    first = parts[0]
    for file in parts[1:]:
        if file.channels != first.channels:
            raise errors.UserError(
                f"{file.path} has {', '.join(file.channels)} and {first.path} {', '.join(first.channels)}: set "
                "data.variable to variables that all files have"
            )
        if file.units != first.units:
            ours, theirs = ", ".join(first.units), ", ".join(file.units)
            raise errors.UserError(f"{file.path} has the units {theirs} and {first.path} {ours}: convert one of them")
        if file.latitude is None or first.latitude is None:
            continue
        if not np.allclose(file.latitude, first.latitude, atol=0.01):
            raise errors.UserError(
                f"{file.path} has latitudes of {file.latitude[0]:g} to {file.latitude[-1]:g} and {first.path} of "
                f"{first.latitude[0]:g} to {first.latitude[-1]:g}: remap them to one grid"
            )


def _source(parts: Sequence[_File]) -> GridSource:
    """Joins the time steps of files."""
    _check_alike(parts)
    chosen, first = [np.sort(file.steps.ravel()) for file in parts], parts[0]
    return GridSource(
        np.concatenate([file.values[steps] for file, steps in zip(parts, chosen, strict=True)]),
        tuple(
            f"{os.path.basename(file.path)} {step}" for file, steps in zip(parts, chosen, strict=True) for step in steps
        ),
        first.channels,
        first.units,
        first.latitude,
        ", ".join(f"{os.path.basename(file.path)} {os.path.getsize(file.path)} bytes" for file in parts),
    )
