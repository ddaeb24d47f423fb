"""Trains the experiment of a config file.

python -m pconv_jax.main --config=experiments/quickstart.py [--config.train.steps=100] [--workdir=DIR]
"""

import os

from absl import flags

from pconv_jax import command_line, errors, train
from pconv_jax.training import compilation_cache, parallel, preemption, reporting, validation


def define_flags(flag_values: flags.FlagValues):
    """Adds the flags of `python -m pconv_jax.main`."""
    command_line.define_config(flag_values)
    flags.DEFINE_string("workdir", None, "Run directory; default runs/<name of the config>.", flag_values)
    flags.DEFINE_string("coordinator", None, "address:port of host 0. Not needed under SLURM or Open MPI.", flag_values)
    flags.DEFINE_integer("hosts", None, "Number of hosts, with --coordinator.", flag_values=flag_values)
    flags.DEFINE_integer(
        "host", None, "Which host this is, 0 to hosts - 1, with --coordinator.", flag_values=flag_values
    )
    flags.DEFINE_bool("compilation_cache", True, "Keep compiled functions in the user's cache directory.", flag_values)


def main(flag_values: flags.FlagValues):
    """Checks the config, joins the other hosts, and trains.

    Raises:
      UserError: the config, the data or the run directory does not fit, a loss is not finite, or memory ran out.
      SystemExit: a signal stopped the training; the exit code is `preemption.EXIT_CODE`.
    """
    config = flag_values.config
    try:
        validation.validate(config)
        parallel.start_hosts(flag_values.coordinator, flag_values.hosts, flag_values.host)
        compilation_cache.enable(flag_values.compilation_cache, config.model)
        train.train(config, flag_values.workdir or os.path.join("runs", config.name))
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
    command_line.run(
        main,
        define_flags,
        interrupted="interrupted: the same command continues from the last checkpoint",
        leave=parallel.leave,
    )
