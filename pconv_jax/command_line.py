"""The flag --config of the commands that take an experiment file, and its overrides."""

import re
import sys

from absl import app
from ml_collections import config_flags

from pconv_jax.training import config as config_rules

CONFIG = config_flags.DEFINE_config_file("config", None, "Experiment file, e.g. experiments/quickstart.py.")


def parse(argv):
    """absl's parser, without its tracebacks for an override of an unknown key and for a missing config file."""
    overrides = [re.match(r"--?(?:no)?config\.([^=]+)", argument) for argument in argv[1:]]
    wrong = [override[1] for override in overrides if override and override[1] not in config_rules.RULES]
    if wrong:
        sys.exit("error: " + "; ".join(map(config_rules.unknown, wrong)))
    try:
        return app.parse_flags_with_usage(argv)
    except OSError as error:
        sys.exit(f"error: {error}")
