"""A command that ends in the way that --ending names, for tests/test_command_line.py."""

import os
import sys

import jax
import numpy as np
from absl import flags

from pconv_jax import command_line, errors


def _user_error():
    try:
        os.stat("/nowhere/photo.png")
    except OSError as error:
        raise errors.UserError("x is 1; needs 2: set it to 2") from error


def _interrupt():
    raise KeyboardInterrupt


def _os_error_of_a_library():
    raise OSError("a library's own words")


def _no_such_device():
    jax.config.update("jax_platforms", "rocm")  # As JAX_PLATFORMS=rocm before the start.
    jax.devices()


def _flood():
    for _ in range(100_000):
        print("a line", os.fsdecode(b"\xff.png"))


ENDINGS = {
    "well": lambda: None,
    "code 75": lambda: 75,
    "exit": lambda: sys.exit(75),
    "user error": _user_error,
    "missing file": lambda: os.stat("/nowhere/photo.png"),
    "interrupt": _interrupt,
    "library": _os_error_of_a_library,
    "broadcast": lambda: np.ones(2) + np.ones(3),
    "zip": lambda: list(zip([1], [1, 2], strict=True)),
    "no such device": _no_such_device,
    "flood": _flood,
    "64 bits": lambda: print(np.asarray(jax.numpy.ones(1)).dtype),
    "key": lambda: {}["no such key"],
}


def define_flags(flag_values):
    """Adds --ending and --words."""
    flags.DEFINE_list("words", [], "Printed by the ending of this name.", flag_values)
    flags.DEFINE_enum("ending", "well", [*ENDINGS, "words"], "How the command ends.", flag_values)


def main(flag_values):
    """Ends as the flag names."""
    if flag_values.ending == "words":
        return print(*flag_values.words)
    return ENDINGS[flag_values.ending]()


if __name__ == "__main__":
    command_line.run(main, define_flags, interrupted="interrupted: nothing was written")
