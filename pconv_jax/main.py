"""Trains the experiment of a config file.

python -m pconv_jax.main --config=experiments/quickstart.py [--config.train.steps=100] [--workdir=DIR]
"""

import os
import re
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from pconv_jax import train
from pconv_jax.training import config as config_rules
from pconv_jax.training import preemption, reporting

_CONFIG = config_flags.DEFINE_config_file("config", None, "Experiment file, e.g. experiments/quickstart.py.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Run directory; default runs/<name of the config>.")


def main(argv):
    """Checks the config, then trains; what a person can mend is one line without a traceback."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]}: overrides are --config.key=value")
    config = _CONFIG.value
    if flags.FLAGS["verbosity"].using_default_value:
        logging.set_verbosity(logging.INFO)
    reporting.quiet_libraries()
    try:
        config_rules.validate(config)
        train.train(config, _WORKDIR.value or os.path.join("runs", config.name))
    except preemption.Stopped as stopped:
        print(f"{stopped}: the same command goes on from there", file=sys.stderr)
        sys.exit(preemption.EXIT_CODE)
    except KeyboardInterrupt:
        sys.exit("interrupted: the same command goes on from the last checkpoint")
    except (ValueError, OSError, reporting.NonFinite) as error:
        logging.debug("traceback", exc_info=True)
        sys.exit(f"error: {error}")


def parse_flags(argv):
    """absl's parser, without its tracebacks for an override of an unknown key and for a missing config file."""
    overrides = [re.match(r"--?(?:no)?config\.([^=]+)", argument) for argument in argv[1:]]
    wrong = [override[1] for override in overrides if override and override[1] not in config_rules.RULES]
    if wrong:
        sys.exit("error: " + "; ".join(map(config_rules.unknown, wrong)))
    try:
        return app.parse_flags_with_usage(argv)
    except OSError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=parse_flags)
