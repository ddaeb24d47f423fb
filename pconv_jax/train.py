"""Training: from a config to a run directory with checkpoints, metrics, sample sheets and an evaluation.

python -m pconv_jax.main --config=experiments/quickstart.py
"""

import os
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from pconv_jax import evaluate
from pconv_jax.models import vgg
from pconv_jax.training import build, checkpoint, parallel, phases, preemption, reporting, rundir, sheets, state, steps


def train(config, workdir: str):
    """Trains through both phases, from the newest checkpoint if there is one, and evaluates at the end.

    Args:
      config: validated (training/config.py).
      workdir: the run directory; created, or continued if its config is the same.

    Returns:
      The state after the last step.

    Raises:
      ValueError: the data, the devices or the run directory do not fit the config, or another process trains in it.
        Nothing has been written then.
      reporting.NonFinite: a loss is NaN or infinite.
      preemption.Stopped: SIGTERM or SIGINT arrived; the state is saved.
      OSError: the disk is full, the data cannot be read, and the like.
    """
    train_source, evaluation_source = build.image_sources(config)
    train_source[0], evaluation_source[0]  # a folder of nothing but unreadable images is found now
    build.check_masks(config)
    parallel.check_batch("train.batch_size", config.train.batch_size, config.train.accumulate)
    parallel.check_batch("eval.batch_size", config.eval.batch_size)
    vgg16 = _vgg16(config)
    initial = None
    if config.init_from and not checkpoint.exists(workdir):
        initial = checkpoint.parameters(config.init_from, state.shapes(config))
    uses = {"train": train_source, "evaluation": evaluation_source}
    rundir.claim(workdir, config, {use: decoded.source.fingerprint() for use, decoded in uses.items()})
    with rundir.lock(workdir):
        return _run(config, workdir, vgg16, initial, train_source, evaluation_source)


def _run(config, workdir, vgg16, initial, train_source, evaluation_source):
    """Restores or starts, trains, and evaluates, in a run directory that is ours alone."""
    evaluation = evaluate.Evaluation(config, evaluation_source)
    shapes = state.shapes(config)
    logging.info(
        "%s: %s parameters, %d device(s), %d training and %d evaluation images, run directory %s",
        config.name,
        f"{sum(x.size for x in jax.tree.leaves(shapes.params)):,}",
        jax.device_count(),
        len(train_source),
        len(evaluation_source),
        workdir,
    )
    with checkpoint.manager(workdir, config.train.keep) as checkpoints, preemption.requests() as signals:
        now = checkpoint.resume(checkpoints, parallel.abstract(shapes))
        start = 0 if now is None else int(now.step)
        with reporting.MetricsLog(workdir, start) as log:
            if now is not None:
                logging.info("resumed at step %d", start)
            elif initial is not None:
                now = parallel.replicate(state.with_parameters(state.from_config(config), *initial))
                logging.info("starts with the parameters of %s", config.init_from)
                _checkpoint(now, evaluation, checkpoints, log)  # from here on the run does not need the other one
            else:
                now = parallel.replicate(state.from_config(config))
            now = _loop(config, now, vgg16, train_source, evaluation, checkpoints, log, workdir, signals)
    evaluate.report(evaluation, now, workdir, "last")
    return now


def _loop(config, now, vgg16, train_source, evaluation, checkpoints, log, workdir, signals):
    """Runs the remaining steps of each phase; logs, draws samples and checkpoints when due, or stops on a signal."""
    features, vgg16_params = vgg16
    vgg16_params = parallel.replicate(vgg16_params)
    plan = phases.from_config(config)
    step, last = int(now.step), plan[-1].stop
    batches = parallel.prefetch(build.train_batches(config, train_source, start=step))
    rate = state.learning_rate(config)
    progress, pending = reporting.Progress(step, last, config.train.batch_size), []

    def flush():
        """Reads, checks and logs the metrics of the steps since the last flush."""
        if not pending:
            return
        values = {**reporting.interval(pending), "lr": float(rate(step - 1))}
        pending.clear()
        measured = progress.measure(step)
        logging.info("%s", progress.line(step, values, measured))
        log.write(step, {**values, **{name: measured[name] for name in ("images_per_s", "data_wait")}})

    for phase in plan:
        if step >= phase.stop:
            continue
        logging.info("%s: steps %d to %d", phase.name, step + 1, phase.stop)
        train_step, compiled = parallel.map_step(steps.from_config(config, features, phase)), False
        while step < phase.stop:
            started = time.perf_counter()
            batch = next(batches)
            progress.waited(time.perf_counter() - started)
            now, metrics = train_step(now, batch, vgg16_params)
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
            if any(due.values()):
                flush()
            if due["sample"]:
                sheet = evaluation.sheet(now, config.train.samples)
                sheets.save(os.path.join(workdir, "samples", f"step_{step:07d}.png"), sheet)
                log.image(step, "samples", sheet)
            if due["checkpoint"]:
                _checkpoint(now, evaluation, checkpoints, log)
            if due["sample"] or due["checkpoint"]:
                progress.restart(step)
            if signals and step < last:
                flush()
                if not due["checkpoint"]:
                    checkpoint.save(checkpoints, now)
                raise preemption.Stopped(f"stopped by {signals[0]} after step {step} of {last}, which is saved")
    return now


def _checkpoint(now, evaluation, checkpoints, log):
    """Evaluates the network, and saves the state with its PSNR."""
    step = int(now.step)
    psnr = float(np.mean([record["psnr"] for record in evaluation.network(now)]))
    logging.info("step %d: PSNR of the composite %.2f dB", step, psnr)
    log.write(step, {"eval_psnr": psnr})
    checkpoint.save(checkpoints, now, {checkpoint.METRIC: psnr})


def _vgg16(config):
    """`(features, params)`, where `features(params, images)` are VGG16's feature maps.

    `(None, {})` where the terms that need them are off, which the log says.
    """
    if not config.loss.vgg16_weights:
        logging.info("no loss.vgg16_weights: the perceptual and style terms are off")
        return None, {}
    module, params = vgg.load(config.loss.vgg16_weights, dtype=jnp.dtype(config.model.dtype))

    def features(params, images):
        return module.apply({"params": params}, images)

    return jax.checkpoint(features) if config.model.remat else features, params
