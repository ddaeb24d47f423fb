"""Finds the experiment files: those of a person by path, and those of the package also by name.

A checkout has the folder `experiments/` beside the package, and the wheel has it inside. Experiments derive from each
other by `from experiments import default`, wherever the folder is.
"""

import os
import re
import sys
from collections.abc import Sequence

from pconv_jax import errors

_PACKAGE = os.path.dirname(os.path.abspath(__file__))
_PLACES = (os.path.join(_PACKAGE, "shipped", "experiments"), os.path.join(os.path.dirname(_PACKAGE), "experiments"))


def folder() -> str | None:
    """Returns the folder of the experiments that belong to this package; None if it was installed without them."""
    return next((place for place in _PLACES if os.path.isfile(os.path.join(place, "default.py"))), None)


def names() -> list[str]:
    """Returns the names of the experiments that belong to this package."""
    place = folder()
    files = os.listdir(place) if place else []
    return sorted(name[:-3] for name in files if name.endswith(".py") and not name.startswith("_"))


def resolve(argv: Sequence[str]) -> tuple[list[str], str | None]:
    """Replaces the name of an experiment by its path, and lets experiments import each other.

    Args:
      argv: a command line; `--config=NAME` or `--config NAME` has the path or the name of an experiment.

    Returns:
      `(argv, path)`: the command line with the path, and the path; None if there is no --config.

    Raises:
      UserError: there is no such file and no such experiment.
    """
    argv, path = list(argv), None
    for index, word in enumerate(argv):
        match = re.fullmatch(r"(--?config)(?:=(.*))?", word, re.DOTALL)
        if match and match[2] is not None:
            value, path = _located(match[2])
            argv[index] = f"{match[1]}={value}"
        elif match and index + 1 < len(argv):
            argv[index + 1], path = _located(argv[index + 1])
    place = folder()
    if place and os.path.dirname(place) not in sys.path:
        sys.path.append(os.path.dirname(place))
    return argv, path


def _located(config):
    """Returns the value of --config with the path of its file, and this path. The value may be FILE:ARGUMENT."""
    file, colon, argument = config.partition(":")
    if not os.path.isfile(file):
        name = file.removesuffix(".py")
        if name not in names():
            raise errors.UserError(
                f"{file!r} is no file: give an experiment, e.g. --config=experiments/quickstart.py, or the name of one "
                f"that the package contains ({', '.join(names())})"
            )
        file = os.path.join(folder(), f"{name}.py")
    return f"{file}{colon}{argument}", file
