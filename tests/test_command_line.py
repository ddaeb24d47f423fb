"""A user's errors end a command in one line; defects of the program keep their traceback."""

import logging
import os
import pathlib
import subprocess
import sys

import pytest
from absl import logging as absl_logging

from pconv_jax import command_line, train

COMMAND = "tests.failing_command"


@pytest.mark.parametrize(
    ("ending", "code", "printed"),
    [
        ("well", 0, ""),
        ("code 75", 75, ""),
        ("exit", 75, ""),
        ("user error", 1, "error: x is 1; needs 2: set it to 2\n"),
        ("missing file", 1, "error: [Errno 2] No such file or directory: '/nowhere/photo.png'\n"),
        ("interrupt", 1, "interrupted: nothing was written\n"),
        ("64 bits", 0, "float32\n"),
    ],
)
def test_endings_without_a_traceback(ending, code, printed, server, tmp_path):
    """The exit code and the only line, on standard error, of a command that ends as planned or by a user's error."""
    assert server(tmp_path, COMMAND, [f"--ending={ending}"]) == (code, printed)


def test_a_missing_device_is_one_line(server, tmp_path):
    """A platform that JAX cannot start, as JAX_PLATFORMS may name one, is one line that says what to do."""
    code, printed = server(tmp_path, COMMAND, ["--ending=no such device"])
    assert code == 1 and printed.startswith("error: Unable to initialize backend 'rocm'"), printed
    assert printed.endswith("unset it, or set it to cpu)\n") and printed.count("\n") == 1


def test_home_is_expanded_in_every_flag(server, tmp_path):
    """`~` at the start of a flag's value, or of an entry of a list, is the home directory; elsewhere it stays."""
    home = os.path.expanduser("~")
    code, printed = server(tmp_path, COMMAND, ["--ending=words", "--words=~/a,~/b~,c/~/d,x~"])
    assert (code, printed) == (0, f"{home}/a {home}/b~ c/~/d x~\n")


def test_output_into_a_closed_pipe_ends_quietly():
    """`command | head -1` prints one line, in which a name that is not text is escaped, and nothing else."""
    command = f"JAX_ENABLE_X64=1 {sys.executable} -m {COMMAND} --ending=flood | head -1"
    root = pathlib.Path(__file__).resolve().parents[1]
    done = subprocess.run(command, shell=True, cwd=root, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("a line \\udcff.png\n", "")


@pytest.mark.parametrize(
    ("ending", "last"),
    [
        ("broadcast", "ValueError: operands could not be broadcast together with shapes (2,) (3,) "),
        ("zip", "ValueError: zip() argument 2 is longer than argument 1"),
        ("library", "OSError: a library's own words"),
        ("key", "KeyError: 'no such key'"),
    ],
)
def test_defects_keep_their_traceback(ending, last, server, tmp_path):
    """Exceptions that no user caused show where they were raised, and the exit code is not 0."""
    code, printed = server(tmp_path, COMMAND, [f"--ending={ending}"])
    assert code == 1 and printed.startswith("Traceback ") and "failing_command.py" in printed
    assert printed.splitlines()[-1] == last and "error: " not in printed.replace("Error: ", "")


def test_a_defect_in_the_training_step_keeps_its_traceback(server, tmp_path):
    """A ValueError that NumPy raises inside the step is not reported as an error of the user."""
    arguments = ["--config=tests/tiny_experiment.py", f"--workdir={tmp_path / 'run'}"]
    code, printed = server(tmp_path, "tests.failing_step", arguments)
    assert code == 1 and "Traceback" in printed and "failing_step.py" in printed
    assert "ValueError: operands could not be broadcast together" in printed and "\nerror: " not in printed


def test_the_flag_shows_where_training_refused(server, tmp_path):
    """--traceback of the real command shows the function that found the user's error, and ends with the same line."""
    arguments = ["--config=tests/tiny_experiment.py", "--config.data.size=101", f"--workdir={tmp_path / 'run'}"]
    code, printed = server(tmp_path, "main", arguments)
    assert code == 1 and printed.startswith("error: the config does not work:")
    code, shown = server(tmp_path, "main", [*arguments, "--traceback"])
    assert code == 1 and shown.startswith("Traceback") and "validation.py" in shown and shown.endswith(printed)


def test_the_flag_shows_the_traceback(server, tmp_path):
    """--traceback prints where a user's error was found, with its cause, before the same last line."""
    code, printed = server(tmp_path, COMMAND, ["--ending=user error", "--traceback"])
    assert code == 1 and printed.startswith("Traceback ") and "FileNotFoundError" in printed
    assert printed.endswith("UserError: x is 1; needs 2: set it to 2\nerror: x is 1; needs 2: set it to 2\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--endin=well"], "error: Unknown command line flag 'endin'. Did you mean: ending"),
        (["--ending=badly"], "error: flag --ending=badly: value should be one of <well|"),
        (["well"], "unexpected argument well: options are given as --name=value"),
    ],
)
def test_mistakes_of_the_command_line(arguments, message, server, tmp_path):
    """A flag or argument that the command does not take is named, without a traceback."""
    code, printed = server(tmp_path, COMMAND, arguments)
    assert code == 1 and message in printed and "Traceback" not in printed


def test_libraries_are_quiet_below_warnings():
    """INFO messages of installed libraries are left out of the log; this package's, and all warnings, stay."""
    handler = absl_logging.get_absl_handler()
    filters = list(handler.filters)
    try:
        command_line.quiet_libraries()

        def shown(level, path):
            return bool(handler.filter(logging.LogRecord("absl", level, path, 1, "", None, None)))

        assert not shown(logging.INFO, "/venv/lib/site-packages/orbax/checkpoint.py")
        assert shown(logging.WARNING, "/venv/lib/site-packages/orbax/checkpoint.py")
        assert not shown(logging.ERROR, "/venv/lib/site-packages/orbax/checkpoint.py")
        assert shown(logging.INFO, train.__file__)
    finally:
        handler.filters[:] = filters
