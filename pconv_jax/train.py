"""Training: from a config to a run directory with checkpoints, metrics, sample sheets and an evaluation.

python -m pconv_jax.main --config=experiments/quickstart.py
"""

import os
import time

import jax
import numpy as np
from absl import logging

from pconv_jax import evaluate
from pconv_jax.models import vgg
from pconv_jax.training import build, checkpoint, parallel, reporting, rundir, sheets, state, steps


def train(config, workdir: str):
    """Trains until `config.train.steps`, from the newest checkpoint if there is one, and evaluates at the end.

    Args:
      config: validated (training/config.py).
      workdir: the run directory; created, or continued if its config is the same.

    Returns:
      The state after the last step.

    Raises:
      ValueError: the data, the devices or the run directory do not fit the config, or another process trains in it.
        Nothing has been written then.
      reporting.NonFinite: a loss is NaN or infinite.
    """
    train_source, evaluation_source = build.image_sources(config)
    train_source[0], evaluation_source[0]  # a folder of nothing but unreadable images is found now
    build.check_masks(config)
    parallel.check_batch("train.batch_size", config.train.batch_size)
    parallel.check_batch("eval.batch_size", config.eval.batch_size)
    features = _vgg_features(config)
    uses = {"train": train_source, "evaluation": evaluation_source}
    rundir.claim(workdir, config, {use: decoded.source.fingerprint() for use, decoded in uses.items()})
    with rundir.lock(workdir):
        return _run(config, workdir, features, train_source, evaluation_source)


def _run(config, workdir, features, train_source, evaluation_source):
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
    with checkpoint.manager(workdir, config.train.keep) as checkpoints:
        now = checkpoint.restore(checkpoints, parallel.abstract(shapes))
        if now is None:
            now = parallel.replicate(state.from_config(config))
        else:
            logging.info("resumed at step %d", int(now.step))
        with reporting.MetricsLog(workdir, int(now.step)) as log:
            now = _loop(config, now, features, train_source, evaluation, checkpoints, log, workdir)
    evaluate.report(evaluation, now, workdir, "last")
    return now


def _loop(config, now, features, train_source, evaluation, checkpoints, log, workdir):
    """Runs the remaining steps; logs, draws samples and checkpoints when due."""
    step, last = int(now.step), config.train.steps
    train_step = parallel.map_step(steps.from_config(config, features))
    batches = parallel.prefetch(build.train_batches(config, train_source, start=step))
    rate = state.learning_rate(config)
    progress, pending = reporting.Progress(step, last, config.train.batch_size), []
    compiled = False

    def flush():
        """Reads, checks and logs the metrics of the steps since the last flush."""
        if not pending:
            return
        values = {**reporting.interval(pending), "lr": float(rate(step - 1))}
        pending.clear()
        measured = progress.measure(step)
        logging.info("%s", progress.line(step, values, measured))
        log.write(step, {**values, **{name: measured[name] for name in ("images_per_s", "data_wait")}})

    while step < last:
        started = time.perf_counter()
        batch = next(batches)
        progress.waited(started)
        now, metrics = train_step(now, batch)
        progress.dispatched(metrics)
        step += 1
        pending.append((step, metrics))
        if not compiled:
            jax.block_until_ready(metrics)
            logging.info("first step after %.1f s, compilation included", time.perf_counter() - started)
            compiled = True
            progress.restart(step)
        due = {
            name: step % config.train[f"{name}_every"] == 0 or step == last for name in ("log", "checkpoint", "sample")
        }
        if any(due.values()):
            flush()
        if due["sample"]:
            sheet = evaluation.sheet(now, config.train.samples)
            sheets.save(os.path.join(workdir, "samples", f"step_{step:07d}.png"), sheet)
            log.image(step, "samples", sheet)
        if due["checkpoint"]:
            psnr = float(np.mean([record["psnr"] for record in evaluation.network(now)]))
            logging.info("step %d: PSNR of the composite %.2f dB", step, psnr)
            log.write(step, {"eval_psnr": psnr})
            checkpoint.save(checkpoints, now, {checkpoint.METRIC: psnr})
        if due["sample"] or due["checkpoint"]:
            progress.restart(step)
    return now


def _vgg_features(config):
    """images -> feature maps of VGG16, or None where the terms that need them are off, which the log says."""
    if not config.loss.vgg16_weights:
        logging.info("no loss.vgg16_weights: the perceptual and style terms are off")
        return None
    module, params = vgg.load(config.loss.vgg16_weights)
    return lambda images: module.apply({"params": params}, images)
