"""Sweeps of the tiny config for tests, and runs of them that are finished without training."""

import json
import os

import runs
import scoring
from pconv_jax.evaluation import scores
from pconv_jax.sweeping import plan
from pconv_jax.training import rundir

VARIANTS = {"convolution": {"zero": {"model.kind": "zero"}}, "loss": {"no_hole": {"loss.weights.hole": 0.0}}}


def file(variants=VARIANTS, seeds=(0, 1), **more):
    """Returns a sweep file with these contents."""
    return plan.File("tiny_sweep.py", runs.tiny, lambda config: variants, seeds, **more)


def tiny(directory, variants=VARIANTS, seeds=(0, 1), overrides=None):
    """Returns the plan of a sweep in a directory."""
    return plan.make(file(variants, seeds), overrides or {}, directory=str(directory))


def finish(run, psnr, workdir=None, **values):
    """Writes the files of a finished run with a PSNR per example; `values` holds other metrics for all examples."""
    workdir = workdir or run.workdir
    rundir.claim(workdir, run.config, {})
    records = [scoring.record(scores.NETWORK, index, 0, value, **values) for index, value in enumerate(psnr)]
    records += [scoring.record("Telea", index, 0, 10.0) for index in range(len(psnr))]
    log(run, [{"step": run.steps, "eval_psnr": psnr[0], "hole": 0.1, "valid": 0.2}], workdir)
    os.makedirs(os.path.join(workdir, "eval"))
    content = {"config": run.config.to_dict(), "step": run.steps, "records": records}
    rundir.write_atomically(os.path.join(workdir, "eval", "last.json"), json.dumps(content))


def log(run, lines, workdir=None):
    """Writes the metrics of a run."""
    workdir = workdir or run.workdir
    os.makedirs(workdir, exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    rundir.write_atomically(os.path.join(workdir, "metrics.jsonl"), text)
