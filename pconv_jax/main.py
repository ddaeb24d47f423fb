"""Trains the experiment of a config file.

python -m pconv_jax.main --config=experiments/quickstart.py [--config.train.steps=100] [--workdir=DIR]
"""

import os
import sys

from absl import app, flags, logging

from pconv_jax import command_line, train
from pconv_jax.training import compilation_cache, parallel, preemption, reporting, validation

_WORKDIR = flags.DEFINE_string("workdir", None, "Run directory; default runs/<name of the config>.")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "address:port of host 0. Not needed under SLURM or Open MPI.")
_HOSTS = flags.DEFINE_integer("hosts", None, "Number of hosts, with --coordinator.")
_CACHE = flags.DEFINE_bool("compilation_cache", True, "Keep compiled programs in the user's cache directory.")
_HOST = flags.DEFINE_integer("host", None, "Which host this is, 0 to hosts - 1, with --coordinator.")


def main(argv):
    """Checks the config, then trains; what a person can mend is one line without a traceback."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]}: overrides are --config.key=value")
    config = command_line.CONFIG.value
    if flags.FLAGS["verbosity"].using_default_value:
        logging.set_verbosity(logging.INFO)
    reporting.quiet_libraries()
    try:
        validation.validate(config)
        parallel.start_hosts(_COORDINATOR.value, _HOSTS.value, _HOST.value)
        compilation_cache.enable(_CACHE.value, config.model)
        train.train(config, _WORKDIR.value or os.path.join("runs", config.name))
        if not parallel.is_first_host():
            preemption.leave_to_the_first_host()
    except preemption.Stopped as stopped:
        preemption.leave(stopped)
    except KeyboardInterrupt:
        sys.exit("interrupted: the same command goes on from the last checkpoint")
    except (ValueError, OSError, reporting.NonFinite) as error:
        logging.debug("traceback", exc_info=True)
        parallel.leave(f"error: {error}")
    except (MemoryError, RuntimeError) as error:
        explained = reporting.explained(error)
        if explained is None:
            raise
        parallel.leave(f"error: {explained}")


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=command_line.parse)
