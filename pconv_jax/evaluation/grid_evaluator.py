"""Evaluates a training run on grids of the earth: errors of hidden values, in the units of the data.

A value is hidden where it is known and the mask is 0. Nothing that is unknown is ever scored.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from pconv_jax.data import grid_source, pipeline
from pconv_jax.evaluation import evaluator, image_grids, scores
from pconv_jax.models import unet
from pconv_jax.ops import losses, pyramid
from pconv_jax.training import preemption, rundir, train_state, versions

MEASURES = ("rmse", "area_rmse", "mae", "bias")
_UNKNOWN = 190  # Grey of cells without a value.
_SHOWN = 8  # Examples on the maps of the report.

Fill = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""A method: a function from grids `[N, H, W, C]`, NaN where unknown, and masks to its predictions for all cells."""


class GridEvaluator:
    """Scores the network of a run on its evaluation set, at every checkpoint and after the last step."""

    def __init__(
        self,
        model: unet.UNet,
        evaluation_set: pipeline.EvaluationSet,
        batch_size: int,
        threads: int = 2,
        pyramid_levels: int = 0,
    ):
        """Keeps what an evaluation needs, as `evaluator.Evaluator` does.

        Args:
          model: the network.
          evaluation_set: the examples, of a `grid_source.GridSource`.
          batch_size: examples per batch; a multiple of the number of this host's devices.
          threads: number of threads that prepare examples.
          pyramid_levels: 0; networks for grids fill them at once.
        """
        self._model, self._evaluation_set = model, evaluation_set
        self._batch_size, self._threads = batch_size, threads
        self._predict = evaluator.compiled(model, pyramid_levels)

    @property
    def source(self) -> grid_source.GridSource:
        """Returns the grids of the evaluation set."""
        return self._evaluation_set.source

    def score(self, state: train_state.TrainState, signals: Sequence[str] = ()) -> evaluator.Score:
        """Returns the root mean squared error of the hidden values, by which checkpoints are ranked.

        With several channels, each is in units of its `model.input_std`.

        Args:
          state: the state to evaluate.
          signals: names of the signals received so far; the evaluation stops when there is one.

        Raises:
          preemption.Stopped: a signal has come.
        """
        rows = self._score({scores.NETWORK: self._network(state)}, signals, "")
        if len(rows) == 1:
            value, unit = rows[0]["rmse"], self.source.units[0]
        else:
            std = self._model.input_std or np.ones(len(rows))
            value = float(np.sqrt(np.mean([(row["rmse"] / s) ** 2 for row, s in zip(rows, std, strict=True)])))
            unit = "standard deviations"
        return evaluator.Score("eval_rmse", value, -value, f"RMSE of the hidden values {value:.4g} {unit}".rstrip())

    def image_grid(self, state: train_state.TrainState, count: int) -> np.ndarray:
        """Draws the first channel of the first examples: visible, prediction, filled and known values.

        Args:
          state: the state to evaluate.
          count: number of examples, one per row.

        Returns:
          uint8 RGB `[H, W, 3]`.
        """
        examples = [self._evaluation_set[index] for index in range(min(count, len(self._evaluation_set)))]
        image, mask = (np.stack([example[name] for example in examples]) for name in ("image", "mask"))
        output = self._network(state)(image, mask)
        seen = visible(image, mask)
        panels = np.where(seen, image, np.nan), output, np.where(seen, image, output), image
        columns = [_coloured(panel[..., 0], image[..., 0], self.source.latitude) for panel in panels]
        labels = [f"{1 - fraction:.0%}" for fraction in seen.mean(axis=(1, 2, 3))]
        rows = [list(row) for row in zip(*columns, strict=True)]
        return image_grids.grid(rows, columns=("visible", "prediction", "filled", "known"), labels=labels)

    def report(self, state: train_state.TrainState, workdir: str, name: str, signals: Sequence[str] = ()):
        """Scores the network and simple fills, prints the table and writes `eval/<name>.{json,md,png}`.

        Args:
          state: the state to evaluate.
          workdir: the run directory; its config becomes part of the report.
          name: name of the files.
          signals: names of the signals received so far; the evaluation stops when there is one.

        Raises:
          preemption.Stopped: a signal has come; nothing is written then.
        """
        config = rundir.read_config(workdir)
        left = f"in the last evaluation; all {int(state.step)} steps are saved, only the evaluation is left"
        constant = np.asarray(self._model.input_mean or np.zeros(self._model.channels), np.float32)
        rows = self._score({scores.NETWORK: self._network(state), **simple_fills(constant)}, signals, left)
        title = f"{evaluator.title(config, state)}, {len(self._evaluation_set)} grids"
        about = {**evaluator.about_network(config, state), "versions": versions.libraries()}
        path = os.path.join(workdir, "eval", name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        text = f"{title}\n\n{markdown(rows)}"
        rundir.write_atomically(f"{path}.json", json.dumps({"title": title, "rows": rows, **about}, indent=2) + "\n")
        rundir.write_atomically(f"{path}.md", f"# {text}\n")
        image_grids.save(f"{path}.png", self.image_grid(state, min(self._batch_size, _SHOWN)))
        print(f"\n{text}\n")
        logging.info("written: %s.{json,md,png}", path)

    def _network(self, state):
        """Returns the network as a method to score."""
        variables = unet.prepared(state.eval_variables, self._model.dtype)

        def fill(image, mask):
            padded = (scores.pad(x, self._batch_size) for x in (image, mask))
            return np.asarray(self._predict(variables, *padded)[0])[: len(image)]

        return fill

    def _score(self, methods, signals, left):
        """Returns `score_fills` of the evaluation set."""
        batches = pipeline.evaluation_batches(self._evaluation_set, batch_size=self._batch_size, threads=self._threads)
        batches = preemption.until_asked(signals, batches, left)
        latitude = self.source.latitude
        regular = latitude is not None and latitude.ndim == 1
        area = losses.area_weights(latitude) if regular else np.ones((1, 1, 1, 1))
        return score_fills(methods, batches, area, self.source.channels, self.source.units)


def score_fills(
    methods: Mapping[str, Fill], batches, area: np.ndarray, channels: Sequence[str], units: Sequence[str]
) -> list[dict]:
    """Measures the errors of methods at the hidden values of all batches together.

    Args:
      methods: the methods by name.
      batches: batches of `pipeline.evaluation_batches`.
      area: `[1, H, 1, 1]`, weights of the cells.
      channels: names of the channels.
      units: units of the channels.

    Returns:
      One row per method and channel: `method`, `channel`, `units`, the number of hidden `values`, and `MEASURES`: root
      mean squared error, the same weighted by area, mean absolute error, and mean error. They are NaN without any
      hidden value.
    """
    totals = {method: 0.0 for method in methods}
    for batch in batches:
        image, mask = batch["image"], batch["mask"]
        hidden = (mask == 0) & ~np.isnan(image)
        weight = np.broadcast_to(area, image.shape)
        for method, fill in methods.items():
            error = np.where(hidden, fill(image, mask).astype(np.float64) - image, 0)
            sums = hidden, error**2, weight * hidden, weight * error**2, np.abs(error), error
            totals[method] = totals[method] + np.stack([x.sum(axis=(0, 1, 2), dtype=np.float64) for x in sums])
    rows = []
    for method, total in totals.items():
        for channel, unit, sums in zip(channels, units, total.T, strict=True):
            count, squares, area_count, area_squares, absolute, signed = sums
            means = (
                (np.sqrt(squares / count), np.sqrt(area_squares / area_count), absolute / count, signed / count)
                if count
                else [np.nan] * 4
            )
            row = {"method": method, "channel": channel, "units": unit, "values": int(count)}
            rows.append(row | {name: float(value) for name, value in zip(MEASURES, means, strict=True)})
    return rows


def simple_fills(constant: np.ndarray) -> dict[str, Fill]:
    """Returns methods without learning.

    Args:
      constant: a value per channel, that of the first method: 0 for anomalies.

    Returns:
      "constant"; "zonal mean", the mean of the visible values of the same latitude, or of all where it has none; and
      "interpolation", that of `pyramid.interpolate`.
    """
    interpolate = jax.jit(lambda image, mask: pyramid.interpolate(image - constant, mask) + constant)

    def zonal_mean(image, mask):
        seen = visible(image, mask)
        overall = _mean(image, seen, (1, 2), constant)
        return np.broadcast_to(_mean(image, seen, (2,), overall), image.shape)

    def interpolation(image, mask):
        seen = visible(image, mask)
        return np.asarray(interpolate(jnp.asarray(np.where(seen, image, 0)), jnp.asarray(seen, jnp.float32)))

    return {
        "constant": lambda image, mask: np.broadcast_to(constant, image.shape),
        "zonal mean": zonal_mean,
        "interpolation": interpolation,
    }


def visible(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Returns the cells that a network sees, bool `[N, H, W, 1]`: the mask is 1 and all channels are known.

    Args:
      image: `[N, H, W, C]`, NaN where unknown.
      mask: `[N, H, W, 1]`, 1 = valid.
    """
    return (mask != 0) & ~np.isnan(image).any(axis=-1, keepdims=True)


def markdown(rows: Sequence[dict]) -> str:
    """Returns the rows of `score_fills` as a table in Markdown."""
    lines = [
        "| method | variable | RMSE | RMSE by area | mean absolute error | mean error | hidden values |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        variable = f"{row['channel']} [{row['units']}]" if row["units"] else row["channel"]
        numbers = " | ".join(f"{row[name]:.4g}" for name in MEASURES)
        lines.append(f"| {row['method']} | {variable} | {numbers} | {row['values']} |")
    return "\n".join(lines)


def _mean(image, seen, axes, otherwise):
    """Returns the mean over the visible values along axes, or another value where there are none."""
    count = seen.sum(axis=axes, keepdims=True)
    return np.where(count, np.where(seen, image, 0).sum(axis=axes, keepdims=True) / np.maximum(count, 1), otherwise)


def _coloured(values, known, latitude):
    """Returns maps `[N, H, W]` in colours, uint8 `[N, H, W, 3]`, north up; the limits are those of the known values."""
    import matplotlib  # It takes half a second to import, which most of training does without.

    low, high = (0, 1) if np.isnan(known).all() else np.nanpercentile(known, (1, 99))
    scaled = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    colours = matplotlib.colormaps["RdBu_r"](np.where(np.isnan(values), 0, scaled))[..., :3]
    colours = np.where(np.isnan(values)[..., None], _UNKNOWN, np.round(colours * 255)).astype(np.uint8)
    south_first = latitude is not None and latitude.ndim == 1 and latitude[0] < latitude[-1]
    return colours[:, ::-1] if south_first else colours
