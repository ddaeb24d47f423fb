"""Evaluates a training run: the PSNR at every checkpoint, tables and pictures at the end."""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np
from absl import logging

from pconv_jax.data import pipeline
from pconv_jax.evaluation import baselines, inputs, report, scores
from pconv_jax.models import unet
from pconv_jax.training import checkpoints, parallel, preemption, rundir, steps, train_state, versions


@dataclasses.dataclass(frozen=True)
class Score:
    """The score of a network at a checkpoint.

    Attributes:
      name: key in metrics.jsonl.
      value: the score.
      rank: a number by which checkpoints are compared, larger for better ones.
      text: name, value and unit, for the log.
    """

    name: str
    value: float
    rank: float
    text: str


class Evaluator:
    """Scores the network of a run on its evaluation set, at every checkpoint and after the last step."""

    def __init__(
        self,
        model: unet.UNet,
        evaluation_set: pipeline.EvaluationSet,
        batch_size: int,
        threads: int = 2,
        pyramid_levels: int = 0,
    ):
        """Keeps what an evaluation needs; the network is compiled when it is first called.

        Args:
          model: the network.
          evaluation_set: the examples.
          batch_size: examples per batch; a multiple of the number of this host's devices.
          threads: number of threads that prepare examples.
          pyramid_levels: number of levels in which the network fills from coarse to fine; 0 for none.
        """
        self.batch_size, self.threads, self.inputs = batch_size, threads, inputs.Drawn(evaluation_set)
        self._model, self._evaluation_set, self._predict = model, evaluation_set, compiled(model, pyramid_levels)

    def score(self, state: train_state.TrainState, signals: Sequence[str] = ()) -> Score:
        """Returns the PSNR of the network's composites as a score.

        Args:
          state: as in `psnr`.
          signals: as in `psnr`.

        Raises:
          preemption.Stopped: a signal has come.
        """
        value = self.psnr(state, signals)
        return Score("eval_psnr", value, value, f"PSNR of the composite {value:.2f} dB")

    def psnr(self, state: train_state.TrainState, signals: Sequence[str] = ()) -> float:
        """Returns the mean PSNR of the network's composites, by which checkpoints are ranked.

        Args:
          state: the state to evaluate.
          signals: names of the signals received so far; the evaluation stops when there is one.

        Raises:
          preemption.Stopped: a signal has come.
        """
        batches = pipeline.evaluation_batches(self._evaluation_set, batch_size=self.batch_size, threads=self.threads)
        batches = preemption.until_asked(signals, batches, "")
        return scores.psnr(self._predict, self._variables(state), batches, self.batch_size)

    def network(self, state: train_state.TrainState) -> scores.Fill:
        """Returns the network as a method to score."""
        return scores.network(self._predict, self._variables(state), self.batch_size)

    def image_grid(self, state: train_state.TrainState, count: int) -> np.ndarray:
        """Returns an image grid of the first examples: masked, prediction, composite, original.

        Args:
          state: the state to evaluate.
          count: number of examples, one per row.
        """
        return report.sample_grid(self.inputs, self.network(state), count)

    def report(self, state: train_state.TrainState, workdir: str, name: str, signals: Sequence[str] = ()):
        """Scores the network and the quick baselines, prints the table and writes `eval/<name>.*` and an image grid.

        Args:
          state: the state to evaluate.
          workdir: the run directory; its config becomes part of the report.
          name: name of the files.
          signals: names of the signals received so far; the evaluation stops when there is one.

        Raises:
          preemption.Stopped: a signal has come; nothing is written then.
        """
        config = rundir.read_config(workdir)
        methods = {scores.NETWORK: self.network(state)} | {m: scores.baseline(m) for m in baselines.QUICK}
        batches = inputs.batches(self.inputs, self.batch_size, self.threads)
        left = f"in the last evaluation; all {int(state.step)} steps are saved, only the evaluation is left"
        batches = preemption.until_asked(signals, batches, left)
        about = {**about_network(config, state), "versions": versions.libraries()}
        path = os.path.join(workdir, "eval", name)
        records = scores.score(methods, batches)
        fill = methods[scores.NETWORK]
        report.write(path, title(config, state), records, about, self.inputs, fill, grid_rows=self.batch_size)
        logging.info("parameters sha256 %s", about["parameters_sha256"])
        logging.info("written: %s.{json,csv,md,png}", path)

    def _variables(self, state):
        return unet.prepared(state.eval_variables, self._model.dtype)


def restore(path: str, shapes: train_state.TrainState, which: str) -> train_state.TrainState:
    """Returns the state of a checkpoint, on the devices.

    Args:
      path: the run directory.
      shapes: shapes and dtypes of the state (`build.state_shapes`).
      which: "last" or "best".

    Raises:
      UserError: there is no checkpoint, or it has other shapes.
    """
    return parallel.replicate(checkpoints.restore_chosen(path, shapes, which))


def compiled(model: unet.UNet, pyramid_levels: int = 0):
    """Returns `predict(variables, image, mask) -> (output, composite)`, compiled for all devices of this host.

    Args:
      model: the network.
      pyramid_levels: number of levels in which it fills from coarse to fine; 0 for none.
    """
    return parallel.map_predict(steps.make_predict(model, pyramid_levels))


def about_network(config, state: train_state.TrainState) -> dict:
    """Returns what a report records about a network.

    Args:
      config: the config of its run.
      state: its state.
    """
    return {"step": int(state.step), "parameters_sha256": checkpoints.digest(state.params), "config": config.to_dict()}


def title(config, state: train_state.TrainState) -> str:
    """Returns the title of a report.

    Args:
      config: the config of a run.
      state: its state.
    """
    return f"{config.name} at step {int(state.step)}"
