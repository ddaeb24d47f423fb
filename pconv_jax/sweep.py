"""Trains every variant of a sweep file with every seed, and reports the difference of each to the baseline.

python -m pconv_jax.sweep --config=experiments/ablation.py [--variants=zero,gated] [--seeds=0,1,2] [--config.key=value]
"""

import os
import shlex
import sys

from absl import flags, logging

from pconv_jax import command_line, errors
from pconv_jax.data import sources
from pconv_jax.evaluation import evaluator, image_grids
from pconv_jax.sweeping import comparison, pictures, plan, processes, report, results
from pconv_jax.training import build, compilation_cache, preemption, rundir

SHOWN = 6  # Examples in the image grid: one per bucket of hole area.


def define_flags(flag_values: flags.FlagValues):
    """Defines the flags of `python -m pconv_jax.sweep`."""
    command_line.define_config(flag_values)
    flags.DEFINE_list("variants", [], "Variants to train beside the baseline; all by default.", flag_values)
    flags.DEFINE_list("seeds", [], "Seeds instead of those of the file.", flag_values)
    flags.DEFINE_string("workdir", None, "Directory of the runs and the report; default runs/<name>.", flag_values)
    flags.DEFINE_bool("smoke", False, "Everything at toy size, in runs/<name>_smoke.", flag_values)
    flags.DEFINE_bool("dry-run", False, "Print the commands, run and write nothing.", flag_values)
    flags.DEFINE_bool("report", False, "Write the report of the finished runs, and run nothing.", flag_values)
    flags.DEFINE_bool("count", False, "Print the number of runs, and nothing else.", flag_values)
    flags.DEFINE_bool("compilation_cache", True, "Keep compiled programs in the user's cache directory.", flag_values)
    flags.DEFINE_integer(
        "only", None, "Train this run alone, counted from 0, as a task of a job array.", flag_values=flag_values
    )


def main(flag_values: flags.FlagValues) -> int:
    """Checks the sweep, trains unfinished runs and writes the report. Returns the exit code.

    Raises:
      UserError: the sweep does not work. Nothing has been run or written then.
      OSError: A file cannot be read or written.
    """
    sweep = _plan(flag_values)
    if any(sources.SOURCES[one.config.data.source].grids for one in sweep.runs):
        raise errors.UserError("a sweep compares pictures by PSNR, not grids: train each config by pconv_jax.main")
    if os.path.exists(os.path.join(sweep.directory, rundir.CONFIG)):
        raise errors.UserError(f"{sweep.directory} is the directory of a single run: choose another --workdir")
    finished = [results.scores(one) is not None for one in sweep.runs]  # Also refuses run directories of other configs.
    if flag_values.count:
        print(len(sweep.runs))
        return 0
    more = [] if flag_values.compilation_cache else ["--nocompilation_cache"]
    if flag_values.only is not None:
        return _become(sweep, flag_values.only, more)
    for reason in dict.fromkeys(sweep.left_out.values()):
        names = [name for name in sweep.left_out if sweep.left_out[name] == reason]
        logging.info("left out, %s: %s", reason, ", ".join(names))
    gpus = processes.visible_gpus(os.environ)
    if flag_values["dry-run"].value:
        for one, done in zip(sweep.runs, finished, strict=True):
            print(shlex.join(processes.command(one, more)) + ("  # finished" if done else ""))
        return 0
    outcome = processes.Outcome()
    if not flag_values.report:
        where = f"one per GPU ({', '.join(gpus)})" if gpus else "one after another"
        logging.info("%s: %d variants, %d runs, %s", sweep.name, len(sweep.variants), len(sweep.runs), where)
        outcome = processes.run_all(sweep.runs, gpus, more)
    try:
        if outcome.stopped:
            print(f"stopped; runs left: {len(outcome.stopped)}, the same command goes on", file=sys.stderr)
        elif flag_values.report or outcome.finished:
            compilation_cache.enable(flag_values.compilation_cache)
            _report(sweep, outcome.failed, gpus)
    finally:
        for one, reason in outcome.failed:
            print(f"failed: {one.name}, {reason}\n  log: {one.log}", file=sys.stderr)
    return preemption.EXIT_CODE if outcome.stopped else 1 if outcome.failed else 0


def _plan(flag_values):
    path, names, overrides = command_line.experiment(flag_values)
    missing = [name for name in ("get_config", "get_variants", "SEEDS") if name not in names]
    if missing:
        raise errors.UserError(f"{path} has no {' and no '.join(missing)}: start from experiments/ablation.py")
    if flag_values.smoke and "SMOKE" not in names:
        raise errors.UserError(
            f"{path} has no SMOKE, the overrides for --smoke: leave it out, or see experiments/ablation.py"
        )
    seeds = [int(seed) if seed.strip().isdigit() else seed for seed in flag_values.seeds]
    file = plan.File(
        path,
        names["get_config"],
        lambda config: command_line.call_experiment(path, names["get_variants"], config),
        names["SEEDS"],
        names.get("SMOKE", {}),
        names.get("SMOKE_SEEDS", ()),
    )
    options = {
        "variants": flag_values.variants,
        "seeds": seeds,
        "smoke": flag_values.smoke,
        "directory": flag_values.workdir,
    }
    return plan.make(file, overrides, **options)


def _become(sweep, index, more):
    """Replaces this process by one of the runs, so that signals reach it as they reach any training."""
    if not 0 <= index < len(sweep.runs):
        raise errors.UserError(f"--only={index} of {len(sweep.runs)} runs; needs 0 to {len(sweep.runs) - 1}")
    chosen = sweep.runs[index]
    if results.scores(chosen) is not None:
        print(f"{chosen.name} is finished")
        return 0
    command = processes.command(chosen, more)
    sys.stdout.flush()
    os.execv(command[0], command)


def _report(sweep, failed, gpus):
    """Writes the tables and pictures, and prints the short table."""
    scores = comparison.read(sweep)
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[0]  # As for the runs, whose batches may not divide over all GPUs.
    path = report.write(sweep, scores, failed)
    image_grids.save(os.path.join(sweep.directory, f"{report.NAME}_sheet.png"), _image_grid(sweep, scores))
    left = report.unfinished(sweep, scores, failed)
    already_reported = [run.name for run, _ in failed]  # The caller prints the failed runs.
    print(f"\n{report.short(comparison.means(scores, sweep.variants))}\n")
    print(f"{len(sweep.runs) - len(left)} of {len(sweep.runs)} runs finished")
    for line in (line for name, line in left.items() if name not in already_reported):
        print(f"not in the tables: {line}")
    print(f"written: {path} and the files beside it")


def _image_grid(sweep, scores):
    """Draws the same examples filled by every variant with a finished run, by its first seed."""
    outputs, examples, source = {}, None, build.image_sources(sweep.runs[0].config)[1]
    for variant in sweep.variants:
        if variant not in scores.runs:
            continue
        one = next(iter(scores.runs[variant].values()))
        examples_of_run = build.evaluation_set(one.config, source)
        evaluation = evaluator.Evaluator(build.unet_model(one.config), examples_of_run, one.config.eval.batch_size)
        if examples is None:
            examples = [evaluation.inputs[index] for index in range(min(SHOWN, len(evaluation.inputs)))]
            if tuple(example.name for example in examples) != scores.names[: len(examples)]:
                raise errors.UserError(
                    f"the evaluation images are not those that {one.workdir} was scored on: restore them"
                )
        fill = evaluation.network(evaluator.restore(one.workdir, build.state_shapes(one.config), "last"))
        size = one.config.eval.batch_size
        parts = [fill(examples[start : start + size]) for start in range(0, len(examples), size)]
        outputs[variant] = [image for part in parts for image in part]
    return pictures.image_grid(examples, outputs)


if __name__ == "__main__":
    command_line.run(
        main, define_flags, interrupted="interrupted: what the runs wrote is whole, the same command continues"
    )
