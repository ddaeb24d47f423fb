"""The flag --config of the commands that take an experiment file, and its overrides."""

import os
import re
import runpy
import sys
import traceback

import ml_collections
from absl import flags
from ml_collections import config_flags

from pconv_jax.training import validation

CONFIG = config_flags.DEFINE_config_file("config", None, "Experiment file, e.g. experiments/quickstart.py.")


def parse(argv):
    """absl's parser; what is wrong with a flag or the experiment file is one line, without the parser's traceback."""
    overrides = [re.match(r"--?(?:no)?config\.([^=]+)", argument) for argument in argv[1:]]
    wrong = [override[1] for override in overrides if override and override[1] not in validation.RULES]
    if wrong:
        sys.exit("error: " + "; ".join(map(validation.unknown, wrong)))
    paths = re.findall(r"\n--?config[=\n]([^\n:]*)", "\n".join(argv))
    path = paths[-1] if paths else None
    if path is not None and not os.path.isfile(path):
        sys.exit(f"error: {path!r} is no file: give an experiment, e.g. --config=experiments/quickstart.py")
    try:
        rest, config = flags.FLAGS(argv), CONFIG.value
        getattr(config, "name", None)  # a file that could not be loaded says so when its config is used
    except Exception as error:  # an experiment file is a program and raises what it likes
        sys.exit(f"error: {_explanation(error, path)}")
    if path is not None and not isinstance(config, ml_collections.ConfigDict):
        kind = type(config).__name__
        sys.exit(f"error: {path}: get_config() gives {kind}; needs a ConfigDict: start from experiments/default.py")
    return rest


def experiment() -> tuple[str, dict, dict]:
    """`(path, names, overrides)` of the experiment file: what it defines, and by dotted key what flags override.

    Raises:
      ValueError: the file raises something.
    """
    flag = flags.FLAGS["config"]
    path = config_flags.get_config_filename(flag)
    return path, explained(path, runpy.run_path, path), dict(config_flags.get_override_values(flag))


def explained(path: str, call, *arguments):
    """`call(*arguments)`, code of an experiment file; what it raises becomes a ValueError that says where."""
    try:
        return call(*arguments)
    except Exception as error:
        raise ValueError(_explanation(error, path)) from error


def _explanation(error, path):
    """One line about what the parser raised."""
    override = re.match(r"flag --(?:no)?config\.([\w.]+)", str(error))
    if override:
        return f"{error}; needs {validation.RULES[override[1]][1]}"
    first = error
    while first.__cause__ or first.__context__:
        first = first.__cause__ or first.__context__
    if isinstance(first, SyntaxError):
        return f"{path}: {first}"
    if isinstance(first, AttributeError) and first.name == "get_config":
        return f"{path} has no get_config(): start from experiments/default.py"
    lines = [frame.lineno for frame in traceback.extract_tb(first.__traceback__) if frame.filename == path]
    return f"{path}, line {lines[-1]}: {type(first).__name__}: {first}" if lines else str(error)
