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

from pconv_jax import errors, experiment_files
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
      main: does the work. It is called with the parsed flags and the positional arguments, and returns an exit
        code, or None for 0.
      define_flags: adds the flags of the command.
      argument: description of the one required positional argument; None where the command requires none.
      optional: number of further positional arguments that may be given.
      interrupted: message that Ctrl-C prints.
      leave: ends the process with a message and exit code 1.
      argv: the command line, program name first; `sys.argv` by default.
    """
    flag_values, home = flags.FLAGS, os.path.expanduser("~")
    # Shells do not expand the `~` of --out=~/x.png, so it would become a directory of that name.
    argv = [re.sub(r"(?:(?<==)|(?<=,))~(?=/|$)", lambda _: home, word) for word in argv or sys.argv]
    define_flags(flag_values)
    flags.DEFINE_bool("traceback", False, "Show where in the program a reported error was found.", flag_values)

    def call(positional):
        _check_positional(positional[1:], argument, optional)
        if flag_values["verbosity"].using_default_value:
            logging.set_verbosity(logging.INFO)
        quiet_libraries()
        jax.config.update("jax_enable_x64", False)  # Checkpoints have 32 bits, whatever the environment sets.
        code = main(flag_values, *positional[1:])
        sys.stdout.flush()  # A closed pipe raises an error here, and not while the interpreter ends.
        return code

    _escape_what_is_not_text()
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
        _leave(f"error: {error}", flag_values, leave)
    except RuntimeError as error:
        if not str(error).startswith(_NO_BACKEND):
            raise
        platforms = os.environ.get("JAX_PLATFORMS", "")
        hint = f"JAX_PLATFORMS is {platforms}: unset it, or set it to cpu"
        _leave(f"error: {str(error).splitlines()[0]} ({hint})", flag_values, leave)


def _check_positional(arguments, argument, optional):
    """Raises a UsageError if there are too few or too many positional arguments."""
    required = 1 if argument else 0
    if len(arguments) < required:
        raise app.UsageError(f"needs {argument}")
    if len(arguments) > required + optional:
        surplus = arguments[required + optional]
        raise app.UsageError(f"unexpected argument {surplus}: options are given as --name=value, see --help")


def _escape_what_is_not_text():
    """Lets file names be printed that contain bytes that are not text."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _leave(message, flag_values, leave):
    """Ends the process with a message about the current exception, whose traceback --traceback shows."""
    if flag_values["traceback"].value:
        traceback.print_exc()
    leave(message)


def define_config(flag_values: flags.FlagValues, *, required: bool = True):
    """Adds --config, the experiment file, and its overrides, --config.key=value.

    Args:
      flag_values: the flags to add to.
      required: whether the command needs it.
    """
    about = "Experiment file, or the name of one that the package contains, e.g. quickstart."
    config_flags.DEFINE_config_file("config", None, about, flag_values=flag_values)
    if required:
        flags.mark_flag_as_required("config", flag_values)


def experiment(flag_values: flags.FlagValues) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Runs the experiment file once more, to read everything that it defines.

    Args:
      flag_values: parsed flags, with those of `define_config`.

    Returns:
      `(path, names, overrides)`: the path of the file, the objects that it defines by name, and the values of the
      `--config.key=value` flags by key.

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
      function: a function that the file defines, or one that runs the file.
      *arguments: arguments of the function.

    Returns:
      The result of the function.

    Raises:
      UserError: the function raises an exception; the message names the file and the line.
    """
    try:
        return function(*arguments)
    except Exception as error:  # an experiment file is a program, which can raise anything
        raise errors.UserError(_explanation(error, path)) from error


def quiet_libraries():
    """Leaves INFO messages of installed libraries out of the log. Orbax and JAX write dozens for each checkpoint.

    Warnings of libraries stay, and so do all messages of this package. The pages that orbax logs about a failed save
    are also left out, because orbax raises the same error, which checkpoints.py reports in one line.
    """
    ours = os.path.dirname(os.path.abspath(__file__)) + os.sep
    orbax = f"{os.sep}orbax{os.sep}"
    show = sys.unraisablehook

    def keep(record):
        raised = record.levelno >= std_logging.ERROR and orbax in record.pathname
        return record.pathname.startswith(ours) or (record.levelno >= std_logging.WARNING and not raised)

    def show_others(unraisable):
        # This error ends orbax's threads when another error has already ended the read or write that they belong to.
        if str(unraisable.exc_value) != "Event loop is closed":
            show(unraisable)

    logging.get_absl_handler().addFilter(keep)
    sys.unraisablehook = show_others


def _parse(argv):
    """Parses the command line into `flags.FLAGS` and returns the positional arguments; a mistake is a UserError."""
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
    argv, path = experiment_files.resolve(argv)
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
