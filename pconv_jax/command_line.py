"""Runs the commands of the package: parses flags, reads the experiment file, and reports a user's errors in one line.

Every command is a module with `define_flags(flag_values)`, which adds its flags, and `main(flag_values)`, which does
the work. It ends with

    if __name__ == "__main__":
        command_line.run(main, define_flags)
"""

import io
import logging as std_logging
import os
import re
import runpy
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import jax
import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from pconv_jax import errors
from pconv_jax.training import validation

_NO_BACKEND = "Unable to initialize backend"  # The start of JAX's message where JAX_PLATFORMS names a missing device.


def run(
    main: Callable[..., int | None],
    define_flags: Callable[[flags.FlagValues], None],
    *,
    argument: str | None = None,
    optional: int = 0,
    interrupted: str = "interrupted",
    leave: Callable[[str], NoReturn] = sys.exit,
    argv: Sequence[str] | None = None,
):
    """Runs a command and ends the process with its exit code.

    A `UserError`, or an `OSError` that the operating system raised, ends the command with one line on standard error
    and exit code 1; `--traceback` shows the traceback as well. Every other exception is a defect of the program and
    keeps its traceback.

    Args:
      main: does the work. Called with the parsed flags and the positional arguments; returns an exit code, or None
        for 0.
      define_flags: adds the flags of the command.
      argument: description of the one required positional argument; None where the command requires none.
      optional: number of further positional arguments that may be given.
      interrupted: what Ctrl-C prints.
      leave: ends the process with a message and exit code 1.
      argv: the command line, program name first; `sys.argv` by default.
    """
    flag_values, home = flags.FLAGS, os.path.expanduser("~")
    # Shells leave the `~` of --out=~/x.png alone, which would become a directory of that name.
    argv = [re.sub(r"(?:(?<==)|(?<=,))~(?=/|$)", lambda _: home, word) for word in argv or sys.argv]
    define_flags(flag_values)
    flags.DEFINE_bool("traceback", False, "Show where in the program a reported error was found.", flag_values)

    def call(words):
        expected = 1 if argument else 0
        if len(words) - 1 < expected:
            raise app.UsageError(f"needs {argument}")
        if len(words) - 1 > expected + optional:
            raise app.UsageError(
                f"unexpected argument {words[1 + expected + optional]}: options are given as --name=value, see --help"
            )
        if flag_values["verbosity"].using_default_value:
            logging.set_verbosity(logging.INFO)
        quiet_libraries()
        jax.config.update("jax_enable_x64", False)  # Whatever the shell sets: checkpoints have 32 bits.
        code = main(flag_values, *words[1:])
        sys.stdout.flush()  # Here, where a closed pipe is noticed, and not while the interpreter ends.
        return code

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # Names of files may be no text.
    try:
        app.run(call, argv, flags_parser=_parse)
    except KeyboardInterrupt:
        sys.exit(interrupted)
    except BrokenPipeError:  # The reader of the output, e.g. `head`, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except (errors.UserError, OSError) as error:
        if isinstance(error, OSError) and error.errno is None:  # raised by a program, not by the operating system
            raise
        if flag_values["traceback"].value:
            traceback.print_exc()
        leave(f"error: {error}")
    except RuntimeError as error:
        if not str(error).startswith(_NO_BACKEND):
            raise
        if flag_values["traceback"].value:
            traceback.print_exc()
        platforms = os.environ.get("JAX_PLATFORMS", "")
        leave(f"error: {str(error).splitlines()[0]} (JAX_PLATFORMS is {platforms}: unset it, or set it to cpu)")


def define_config(flag_values: flags.FlagValues, *, required: bool = True):
    """Adds --config, the experiment file, and its overrides, --config.key=value.

    Args:
      flag_values: the flags to add to.
      required: whether the command cannot do without.
    """
    about = "Experiment file, e.g. experiments/quickstart.py."
    config_flags.DEFINE_config_file("config", None, about, flag_values=flag_values)
    if required:
        flags.mark_flag_as_required("config", flag_values)


def experiment(flag_values: flags.FlagValues) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Runs the experiment file once more, for all that it defines.

    Args:
      flag_values: parsed flags, with those of `define_config`.

    Returns:
      The file's path, what it defines by name, and the values that flags override by dotted key.

    Raises:
      UserError: the file raises an exception.
    """
    flag = flag_values["config"]
    path = config_flags.get_config_filename(flag)
    return path, call_experiment(path, runpy.run_path, path), dict(config_flags.get_override_values(flag))


def call_experiment(path: str, function: Callable, *arguments) -> Any:
    """Calls a function of an experiment file.

    Args:
      path: the experiment file.
      function: defined in it, or running it.
      *arguments: of the function.

    Returns:
      What the function returns.

    Raises:
      UserError: the function raises an exception; the message names the file and the line.
    """
    try:
        return function(*arguments)
    except Exception as error:  # an experiment file is a program, which can raise anything
        raise errors.UserError(_explanation(error, path)) from error


def quiet_libraries():
    """Leaves INFO messages of installed libraries out of the log, orbax's and JAX's dozens per checkpoint above all.

    Warnings of libraries stay, and all messages of this package. The pages that orbax logs about a save that failed
    are left out, too: it raises the same error, which checkpoints.py reports in a line.
    """
    ours = os.path.dirname(os.path.abspath(__file__)) + os.sep
    orbax = f"{os.sep}orbax{os.sep}"
    show = sys.unraisablehook

    def keep(record):
        raised = record.levelno >= std_logging.ERROR and orbax in record.pathname
        return record.pathname.startswith(ours) or (record.levelno >= std_logging.WARNING and not raised)

    def show_others(unraisable):
        # Orbax's reads and writes that an error overtook end so, in threads of their own.
        if str(unraisable.exc_value) != "Event loop is closed":
            show(unraisable)

    logging.get_absl_handler().addFilter(keep)
    sys.unraisablehook = show_others


def _parse(argv):
    """Parses the command line into `flags.FLAGS`, and returns what is left of it; a mistake is a UserError."""
    if "config" in flags.FLAGS:
        return _parse_with_config(argv)
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        raise errors.UserError(str(error)) from error


def _parse_with_config(argv):
    """Parses a command line with --config; the experiment file is run, and its config must be a ConfigDict."""
    overrides = [re.match(r"--?(?:no)?config\.([^=]+)", argument) for argument in argv[1:]]
    unknown = [override[1] for override in overrides if override and override[1] not in validation.RULES]
    if unknown:
        raise errors.UserError("; ".join(map(validation.unknown, unknown)))
    paths = re.findall(r"\n--?config[=\n]([^\n:]*)", "\n".join(argv))
    path = paths[-1] if paths else None
    if path is not None and not os.path.isfile(path):
        raise errors.UserError(f"{path!r} is no file: give an experiment, e.g. --config=experiments/quickstart.py")
    try:
        rest, config = flags.FLAGS(argv), flags.FLAGS.config
        getattr(config, "name", None)  # a file that could not be loaded raises its error when its config is used
    except Exception as error:  # an experiment file is a program, which can raise anything
        raise errors.UserError(_explanation(error, path)) from error
    if path is not None and not isinstance(config, ml_collections.ConfigDict):
        kind = type(config).__name__
        raise errors.UserError(
            f"{path}: get_config() returns {kind}; needs a ConfigDict: start from experiments/default.py"
        )
    return rest


def _explanation(error, path):
    """Returns one line about an exception that the parser or the experiment file raised."""
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
