"""Trains a network: writes a run directory with checkpoints, metrics, image grids and an evaluation.

python -m pconv_jax.main --config=experiments/quickstart.py
"""

import contextlib
import dataclasses
import functools
import math
import os
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from pconv_jax import errors
from pconv_jax.evaluation import evaluator, grid_evaluator, image_grids
from pconv_jax.training import (
    build,
    checkpoints,
    parallel,
    preemption,
    reporting,
    rundir,
    train_state,
    transfer,
)


def train(config, workdir: str, images: tuple | None = None):
    """Trains through both phases, from the newest checkpoint if there is one, and evaluates at the end.

    Args:
      config: a validated config (training/validation.py).
      workdir: the run directory. It is created, or continued if its config is the same.
      images: training and evaluation images, as `load` of an entry of `sources.SOURCES` returns them; None to load
        those of the config.

    Returns:
      The state after the last step.

    Raises:
      UserError: the data, the devices or the run directory do not fit the config, or another process trains in it.
        Nothing has been written then.
      reporting.NonFinite: a loss, gradient or parameter is NaN or infinite.
      preemption.Stopped: SIGTERM or SIGINT arrived, and the state is saved. The same call continues: with training,
        or, if the signal arrived in the evaluation at the end, with that alone.
      OSError: a file cannot be read or written, e.g. because the disk is full.
    """
    with contextlib.ExitStack() as stack:
        signals = stack.enter_context(preemption.requests())
        with parallel.together():
            sources = build.image_sources(config, images)
            for source in sources:
                source[0]  # raises if all images are unreadable
            build.check_masks(config)
            parallel.check_batch("train.batch_size", config.train.batch_size, config.train.accumulate)
            parallel.check_batch("eval.batch_size", config.eval.batch_size, everywhere=False)
            experiment = build.experiment(config, *sources)
            fingerprints = build.fingerprints(config, *sources)
        parallel.check_same("images, masks or VGG16 weights", fingerprints)
        with parallel.together():
            initial = None
            if parallel.is_first_host():
                if config.init_from and not checkpoints.exists(workdir):
                    initial = transfer.parameters(config.init_from, build.state_shapes(config))
                stack.enter_context(rundir.own(workdir, config, fingerprints, build.implementation(config.model)))
                stack.enter_context(rundir.explain_full_disk(workdir))
        return _run(experiment, workdir, initial, signals)


@dataclasses.dataclass(frozen=True)
class _Outputs:
    """The destinations that the first host writes to while training."""

    workdir: str
    checkpoints: ocp.CheckpointManager
    log: reporting.MetricsLog


def _run(experiment, workdir, initial, signals):
    """Restores or creates the state, trains, and evaluates at the end. This process has locked the run directory."""
    kind = grid_evaluator.GridEvaluator if experiment.grids else evaluator.Evaluator
    evaluation = kind(
        experiment.model,
        experiment.evaluation_set,
        experiment.eval_batch_size,
        experiment.threads,
        experiment.pyramid_levels,
    )
    shapes = jax.eval_shape(experiment.create_state)
    logging.info(
        "%s: %s parameters, %d device(s) of %d host(s), %d training and %d evaluation images, run directory %s",
        experiment.name,
        f"{sum(x.size for x in jax.tree.leaves(shapes.params)):,}",
        jax.device_count(),
        parallel.shard()[1],
        len(experiment.train_source),
        len(experiment.evaluation_set.source),
        workdir,
    )
    with contextlib.ExitStack() as stack:
        outputs, state = None, None
        with parallel.together():
            if parallel.is_first_host():
                manager = stack.enter_context(checkpoints.open_manager(workdir, experiment.max_to_keep, clean=True))
                state = checkpoints.resume(manager, shapes)
                if state is None and initial is None and experiment.init_from:
                    raise errors.UserError(f"no checkpoint in {workdir} can be read: choose another --workdir")
                log = stack.enter_context(reporting.MetricsLog(workdir, 0 if state is None else int(state.step)))
                outputs = _Outputs(workdir, manager, log)
        if state is not None:
            logging.info("resumed at step %d", int(state.step))
            initial = None
        else:
            state = experiment.create_state()
        if initial is not None:
            logging.info("starts with the parameters of %s", experiment.init_from)
            state = train_state.with_parameters(state, *initial)
        state, transferred = parallel.from_first_host((state, np.array(initial is not None)))
        if transferred:
            _checkpoint(state, evaluation, outputs, signals)  # A resumed run then does not need init_from.
        state = _loop(experiment, state, evaluation, outputs, signals)
    if parallel.is_first_host():
        evaluation.report(state, workdir, "last", signals)
    return state


def _loop(experiment, state, evaluation, outputs, signals):
    """Runs the remaining steps of each phase; logs, draws samples and saves checkpoints when due; stops on a signal."""
    vgg16_params = parallel.replicate(experiment.vgg16_params)
    step, last = int(state.step), experiment.phases[-1].stop
    if step < last and parallel.agreed(bool(signals)):  # compiling the step may take longer than a signal allows
        raise preemption.Stopped(f"stopped by {_reason(signals)} before step {step + 1} of {last}")
    batches = parallel.prefetch(experiment.train_batches(start=step))
    progress, pending = reporting.Progress(step, last, experiment.batch_size), []
    flush = functools.partial(_flush, pending, progress, experiment.learning_rate, outputs)
    for phase in experiment.phases:
        if step >= phase.stop:
            continue
        logging.info("%s: steps %d to %d", phase.name, step + 1, phase.stop)
        train_step, compiled = parallel.map_step(experiment.make_step(phase)), False
        due = {"log": False}
        while step < phase.stop:
            started = time.perf_counter()
            batch = next(batches)
            progress.waited(started)
            state, metrics = train_step(state, batch, vgg16_params)
            progress.dispatched(metrics)
            if due["log"]:
                flush()  # the metrics of the step before; the devices compute the next one meanwhile
            step += 1
            pending.append((step, metrics))
            if not compiled:
                jax.block_until_ready(metrics)
                logging.info("first step after %.1f s, compilation included", time.perf_counter() - started)
                compiled = True
                progress.restart(step)
            due = {name: step % every == 0 or step == phase.stop for name, every in experiment.intervals.items()}
            if due["sample"] or due["checkpoint"]:
                flush()  # raises if a value is not finite, before anything is saved
            if due["sample"]:
                grid = evaluation.image_grid(state, experiment.samples)
                if outputs:
                    image_grids.save(os.path.join(outputs.workdir, "samples", f"step_{step:07d}.png"), grid)
                    outputs.log.image(step, "samples", grid)
            if due["checkpoint"]:
                _checkpoint(state, evaluation, outputs, signals)
            if due["sample"] or due["checkpoint"]:
                progress.restart(step)
            if step < last and parallel.agreed(bool(signals), step):
                flush()
                if outputs and not due["checkpoint"]:
                    checkpoints.save(outputs.checkpoints, state)
                raise preemption.Stopped(f"stopped by {_reason(signals)} after step {step} of {last}, which is saved")
    return state


def _reason(signals):
    return signals[0] if signals else "another host's signal"


def _flush(pending, progress, rate, outputs):
    """Reads, checks and logs the metrics of all steps since the last call."""
    if not pending:
        return
    step = pending[-1][0]
    values = {**reporting.interval(pending), "lr": float(rate(step - 1))}
    pending.clear()
    measured = progress.measure(step)
    logging.info("%s", progress.line(step, values, measured))
    if outputs:
        outputs.log.write(step, {**values, **{name: measured[name] for name in ("images_per_s", "data_wait")}})


def _checkpoint(state, evaluation, outputs, signals):
    """Evaluates the network and saves the state with its score. All hosts evaluate, so that they stay at the same step.

    A signal ends the evaluation early, because saving is more urgent. Without a score the checkpoint ranks last.
    """
    step, rank = int(state.step), math.nan
    with contextlib.suppress(preemption.Stopped):
        score = evaluation.score(state, signals)
        rank = score.rank
        logging.info("step %d: %s", step, score.text)
        if outputs:
            outputs.log.write(step, {score.name: score.value})
    if outputs:
        checkpoints.save(outputs.checkpoints, state, rank)
