"""The evaluation of a training run: scores at every checkpoint, tables and pictures at the end."""

import os
from collections.abc import Sequence

import numpy as np
from absl import logging

from pconv_jax.evaluation import baselines, inputs, report, scores
from pconv_jax.training import build, checkpoints, parallel, preemption, rundir, steps, train_state


class Evaluator:
    """The evaluation set of a config and the compiled network; used at every checkpoint and at the end."""

    def __init__(self, config, source):
        self.config, self.source = config, source
        self.inputs = inputs.Drawn(config, source)
        self._predict = compiled(config)

    def psnr(self, now: train_state.TrainState, signals: Sequence[str] = ()) -> float:
        """Mean PSNR of the network's composites, and no more: what a checkpoint is ranked by.

        Raises:
          preemption.Stopped: a signal has come.
        """
        batches = preemption.until_asked(signals, build.evaluation_batches(self.config, self.source), "")
        return scores.psnr(self._predict, build.variables(self.config, now), batches, self.config.eval.batch_size)

    def network(self, now: train_state.TrainState) -> scores.Fill:
        """The network as a method to score."""
        return scores.network(self._predict, build.variables(self.config, now), self.config.eval.batch_size)

    def sheet(self, now: train_state.TrainState, count: int) -> np.ndarray:
        """A picture of the first `count` examples: masked, prediction, composite, original."""
        return report.sample_grid(self.inputs, self.network(now), count)


def evaluate_and_report(
    evaluator: Evaluator, now: train_state.TrainState, workdir: str, name: str, signals: Sequence[str] = ()
):
    """Scores the network and the quick baselines, prints the table and writes `eval/<name>.*` and a sheet.

    Raises:
      preemption.Stopped: `signals` is no longer empty; nothing is written then.
    """
    config = evaluator.config
    methods = {scores.NETWORK: evaluator.network(now)} | {m: scores.baseline(m) for m in baselines.QUICK}
    batches = inputs.batches(evaluator.inputs, config.eval.batch_size, config.data.threads)
    left = f"in the last evaluation; all {int(now.step)} steps are saved, only the evaluation is left"
    batches = preemption.until_asked(signals, batches, left)
    about = {**about_network(config, now), "versions": rundir.versions()}
    path = os.path.join(workdir, "eval", name)
    records = scores.score(methods, batches)
    fill = methods[scores.NETWORK]
    report.write(path, title(config, now), records, about, evaluator.inputs, fill, grid_rows=config.eval.batch_size)
    logging.info("parameters sha256 %s", about["parameters_sha256"])
    logging.info("written: %s.{json,csv,md,png}", path)


def restore(path: str, config, which: str) -> train_state.TrainState:
    """The state of a run's "last" or "best" checkpoint, on the devices.

    Raises:
      ValueError: there is none, or it does not fit the config.
    """
    return parallel.replicate(checkpoints.restore_chosen(path, train_state.shapes(config), which))


def compiled(config):
    """The network of a config: `predict(variables, image, mask) -> (output, composite)`, as of `make_predict`."""
    return parallel.map_predict(steps.make_predict(build.unet_model(config)))


def about_network(config, now):
    return {"step": int(now.step), "parameters_sha256": checkpoints.digest(now.params), "config": config.to_dict()}


def title(config, now):
    return f"{config.name} at step {int(now.step)}"
