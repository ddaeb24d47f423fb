"""Prepares what every test shares: simulated devices, a cache of compiled functions, a temporary directory, fixtures.

The environment variables have to be set before JAX starts, so importing this file sets them. Processes that tests
start, and those of pytest-xdist, inherit them.
"""

import atexit
import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pytest

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"

_SCRATCH = None  # Temporary directory of this session; None in the processes of pytest-xdist, which inherit it.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())  # pytest keeps the last runs' tmp_path there.
    _SCRATCH = tempfile.mkdtemp(prefix="pconv_")
    atexit.register(shutil.rmtree, _SCRATCH, ignore_errors=True)
    os.environ["TMPDIR"] = tempfile.tempdir = _SCRATCH
    # Functions that several tests compile are compiled once.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(_SCRATCH, "compiled"))
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"

_SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    """Ignores the exceptions in orbax's threads that follow when reading or writing a damaged checkpoint has failed.

    They are raised when the error itself has been handled, so pytest would blame the test that happens to run then.
    """
    report = sys.unraisablehook

    def report_others(unraisable):
        if str(unraisable.exc_value) != "Event loop is closed":
            report(unraisable)

    sys.unraisablehook = report_others


def _left_behind():
    """Returns the names of temporary files that tests have not removed.

    A process that is killed cannot remove the directory of its multiprocessing sockets, so these are not counted, and
    neither is the file in which onnxruntime keeps the number of its session.
    """
    names = os.listdir(_SCRATCH) if _SCRATCH else []
    return sorted(name for name in names if name not in ("compiled", ".ses") and not name.startswith("pymp-"))


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_sessionfinish(session):
    """Makes a session fail whose tests, or the code that they call, have left files in the temporary directory."""
    result = yield
    if _left_behind() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    return result


def pytest_terminal_summary(terminalreporter):
    """Lists the files that were left in the temporary directory."""
    if names := _left_behind():
        terminalreporter.section("left in the temporary directory", red=True)
        terminalreporter.line("\n".join(names))


@pytest.fixture
def shared_data():
    """Returns a function that maps a name to the path of research data beside a developer's checkout, or skips."""

    def find(name):
        path = _SHARED / name
        if not path.exists():
            pytest.skip(f"research-only data {name} is not beside this checkout")
        return path

    return find


@dataclasses.dataclass(frozen=True)
class Server:
    """Runs commands of the package in processes that tests/command_server.py forks."""

    process: subprocess.Popen

    def __call__(self, directory, module, arguments, failure=None):
        """Runs a command and returns `(exit code, printed text)`.

        Args:
          directory: an existing directory, in which the printed text is kept for a moment.
          module: module of the command, e.g. "main" of the package or "tests.failing_command".
          arguments: command line of the command.
          failure: a key of `command_server.FAILURES`, to be raised in place of training.
        """
        out = directory / "printed"
        module = module if module.startswith("tests.") else f"pconv_jax.{module}"
        request = {"module": module, "arguments": arguments, "out": str(out), "failure": failure}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        code = int(self.process.stdout.readline())
        printed = out.read_text()
        out.unlink()
        return code, printed


@pytest.fixture(scope="module")
def server():
    """Starts a `Server`, whose commands do not spend seconds on imports."""
    command = [sys.executable, "-m", "tests.command_server"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    root = pathlib.Path(__file__).resolve().parents[1]
    with subprocess.Popen(command, cwd=root, env=environment, text=True, **pipes) as process:
        assert process.stdout.readline() == "ready\n"
        yield Server(process)
        process.stdin.close()
