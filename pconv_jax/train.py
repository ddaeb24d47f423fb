"""Training: from a config to a run directory with checkpoints, metrics, sample sheets and an evaluation.

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

from pconv_jax.evaluation import evaluator, image_grids
from pconv_jax.training import (
    build,
    checkpoints,
    parallel,
    phases,
    preemption,
    reporting,
    rundir,
    steps,
    train_state,
    transfer,
)


def train(config, workdir: str):
    """Trains through both phases, from the newest checkpoint if there is one, and evaluates at the end.

    Args:
      config: validated (training/validation.py).
      workdir: the run directory; created, or continued if its config is the same.

    Returns:
      The state after the last step.

    Raises:
      ValueError: the data, the devices or the run directory do not fit the config, or another process trains in it.
        Nothing has been written then.
      reporting.NonFinite: a loss is NaN or infinite.
      preemption.Stopped: SIGTERM or SIGINT arrived; the state is saved. In the evaluation at the end, too: the same
        call then only evaluates.
      OSError: the disk is full, the data cannot be read, and the like.
    """
    with contextlib.ExitStack() as stack:
        signals = stack.enter_context(preemption.requests())
        with parallel.together():
            train_source, evaluation_source = build.image_sources(config)
            train_source[0], evaluation_source[0]  # a folder of nothing but unreadable images is found now
            build.check_masks(config)
            parallel.check_batch("train.batch_size", config.train.batch_size, config.train.accumulate)
            parallel.check_batch("eval.batch_size", config.eval.batch_size, everywhere=False)
            vgg16 = build.vgg16_features(config)
            fed = build.fingerprints(config, train_source, evaluation_source)
        parallel.check_same("images, masks or VGG16 weights", fed)
        with parallel.together():
            initial = None
            if parallel.is_first_host():
                if config.init_from and not checkpoints.exists(workdir):
                    initial = transfer.parameters(config.init_from, train_state.shapes(config))
                stack.enter_context(rundir.own(workdir, config, fed))
                stack.enter_context(rundir.told_when_full(workdir))
        return _run(config, workdir, vgg16, initial, train_source, evaluation_source, signals)


@dataclasses.dataclass(frozen=True)
class _Outputs:
    """What the first host writes to while training."""

    workdir: str
    checkpoints: ocp.CheckpointManager
    log: reporting.MetricsLog


def _run(config, workdir, vgg16, initial, train_source, evaluation_source, signals):
    """Restores or starts, trains, and evaluates, in a run directory that is ours alone."""
    evaluation = evaluator.Evaluator(config, evaluation_source)
    shapes = train_state.shapes(config)
    logging.info(
        "%s: %s parameters, %d device(s) of %d host(s), %d training and %d evaluation images, run directory %s",
        config.name,
        f"{sum(x.size for x in jax.tree.leaves(shapes.params)):,}",
        jax.device_count(),
        parallel.shard()[1],
        len(train_source),
        len(evaluation_source),
        workdir,
    )
    with contextlib.ExitStack() as stack:
        outputs, now = None, None
        with parallel.together():
            if parallel.is_first_host():
                manager = stack.enter_context(checkpoints.open_manager(workdir, config.train.keep, clean=True))
                now = checkpoints.resume(manager, shapes)
                if now is None and initial is None and config.init_from:
                    raise ValueError(f"no checkpoint in {workdir} can be read: choose another --workdir")
                log = stack.enter_context(reporting.MetricsLog(workdir, 0 if now is None else int(now.step)))
                outputs = _Outputs(workdir, manager, log)
        if now is not None:
            logging.info("resumed at step %d", int(now.step))
            initial = None
        else:
            now = train_state.from_config(config)
        if initial is not None:
            logging.info("starts with the parameters of %s", config.init_from)
            now = train_state.with_parameters(now, *initial)
        now, transferred = parallel.from_first_host((now, np.array(initial is not None)))
        if transferred:
            _checkpoint(now, evaluation, outputs, signals)  # from here on the run does not need the other one
        now = _loop(config, now, vgg16, train_source, evaluation, outputs, signals)
    if parallel.is_first_host():
        evaluator.evaluate_and_report(evaluation, now, workdir, "last", signals)
    return now


def _loop(config, now, vgg16, train_source, evaluation, outputs, signals):
    """Runs the remaining steps of each phase; logs, draws samples and checkpoints when due, or stops on a signal."""
    features, vgg16_params = vgg16
    vgg16_params = parallel.replicate(vgg16_params)
    plan = phases.from_config(config)
    step, last = int(now.step), plan[-1].stop
    if step < last and parallel.agreed(bool(signals)):  # to compile the step may take longer than a signal allows
        raise preemption.Stopped(f"stopped by {_reason(signals)} before step {step + 1} of {last}")
    batches = parallel.prefetch(build.train_batches(config, train_source, start=step))
    progress, pending = reporting.Progress(step, last, config.train.batch_size), []
    flush = functools.partial(_flush, pending, progress, train_state.learning_rate(config), outputs)
    for phase in plan:
        if step >= phase.stop:
            continue
        logging.info("%s: steps %d to %d", phase.name, step + 1, phase.stop)
        train_step, compiled = parallel.map_step(steps.from_config(config, features, phase)), False
        due = {"log": False}
        while step < phase.stop:
            started = time.perf_counter()
            batch = next(batches)
            progress.waited(started)
            now, metrics = train_step(now, batch, vgg16_params)
            progress.dispatched(metrics)
            if due["log"]:
                flush()  # what was due before: the devices have work while it is read
            step += 1
            pending.append((step, metrics))
            if not compiled:
                jax.block_until_ready(metrics)
                logging.info("first step after %.1f s, compilation included", time.perf_counter() - started)
                compiled = True
                progress.restart(step)
            due = {
                name: step % config.train[f"{name}_every"] == 0 or step == phase.stop
                for name in ("log", "checkpoint", "sample")
            }
            if due["sample"] or due["checkpoint"]:
                flush()  # and checked, before anything is kept
            if due["sample"]:
                sheet = evaluation.sheet(now, config.train.samples)
                if outputs:
                    image_grids.save(os.path.join(outputs.workdir, "samples", f"step_{step:07d}.png"), sheet)
                    outputs.log.image(step, "samples", sheet)
            if due["checkpoint"]:
                _checkpoint(now, evaluation, outputs, signals)
            if due["sample"] or due["checkpoint"]:
                progress.restart(step)
            if step < last and parallel.agreed(bool(signals), step):
                flush()
                if outputs and not due["checkpoint"]:
                    checkpoints.save(outputs.checkpoints, now)
                raise preemption.Stopped(f"stopped by {_reason(signals)} after step {step} of {last}, which is saved")
    return now


def _reason(signals):
    return signals[0] if signals else "another host's signal"


def _flush(pending, progress, rate, outputs):
    """Reads, checks and logs the metrics of the steps since the last time, up to the newest one."""
    if not pending:
        return
    step = pending[-1][0]
    values = {**reporting.interval(pending), "lr": float(rate(step - 1))}
    pending.clear()
    measured = progress.measure(step)
    logging.info("%s", progress.line(step, values, measured))
    if outputs:
        outputs.log.write(step, {**values, **{name: measured[name] for name in ("images_per_s", "data_wait")}})


def _checkpoint(now, evaluation, outputs, signals):
    """Evaluates the network, and saves the state with its PSNR. All hosts evaluate, so that none runs ahead.

    A signal ends the evaluation: to save is more urgent. Such a checkpoint counts as the worst.
    """
    step, psnr = int(now.step), math.nan
    with contextlib.suppress(preemption.Stopped):
        psnr = evaluation.psnr(now, signals)
        logging.info("step %d: PSNR of the composite %.2f dB", step, psnr)
        if outputs:
            outputs.log.write(step, {"eval_psnr": psnr})
    if outputs:
        checkpoints.save(outputs.checkpoints, now, psnr)
