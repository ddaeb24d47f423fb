"""Trains the experiment of a config file.

python -m pconv_jax.main --config=experiments/quickstart.py [--config.train.steps=100] [--workdir=DIR]
"""

import os

from absl import flags

from pconv_jax import command_line, errors
from pconv_jax.data import sources
from pconv_jax.training import parallel, preemption, validation


def define_flags(flag_values: flags.FlagValues):
    """Adds the flags of `python -m pconv_jax.main`."""
    command_line.define_config(flag_values)
    flags.DEFINE_string("workdir", None, "Run directory; default runs/<name of the config>.", flag_values)
    flags.DEFINE_string("coordinator", None, "address:port of host 0. Not needed under SLURM or Open MPI.", flag_values)
    flags.DEFINE_integer("hosts", None, "Number of hosts, with --coordinator.", flag_values=flag_values)
    flags.DEFINE_integer("host", None, "Number of this host, from 0, with --coordinator.", flag_values=flag_values)
    flags.DEFINE_bool("compilation_cache", True, "Keep compiled functions in the user's cache directory.", flag_values)


def main(flag_values: flags.FlagValues):
    """Checks the config, joins the other hosts, and trains.

    Raises:
      UserError: the config, the data or the run directory does not fit, a loss is not finite, or memory ran out.
      SystemExit: a signal stopped the training; the exit code is `preemption.EXIT_CODE`.
    """
    config = flag_values.config
    validation.validate(config)
    parallel.start_hosts(flag_values.coordinator, flag_values.hosts, flag_values.host)
    with parallel.together():
        images = sources.SOURCES[config.data.source].load(config.data)
    # Imported now, because it takes seconds: data that are missing are reported before.
    from pconv_jax import train
    from pconv_jax.training import compilation_cache, reporting

    try:
        compilation_cache.enable(flag_values.compilation_cache, config.model)
        train.train(config, flag_values.workdir or os.path.join("runs", config.name), images)
    except preemption.Stopped as stopped:
        preemption.leave(stopped)
    except (MemoryError, RuntimeError) as error:
        explanation = reporting.explained(error)
        if explanation is None:
            raise
        raise errors.UserError(explanation) from error
    if not parallel.is_first_host():
        preemption.leave_to_the_first_host()


if __name__ == "__main__":
    interrupted = "interrupted: the same command continues from the last checkpoint"
    command_line.run(main, define_flags, interrupted=interrupted, leave=parallel.leave)
