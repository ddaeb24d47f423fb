"""Four simulated CPU devices for every test; must be set before JAX starts."""

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

# Programs that several tests compile are compiled once.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="pconv_jax_tests_")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"

_SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    """Lets pass what orbax's reads and writes of a damaged checkpoint say when an error has overtaken them.

    They end in threads of their own, so pytest would take it for an error of whatever test runs by then.
    """
    tell = sys.unraisablehook

    def tell_others(unraisable):
        if str(unraisable.exc_value) != "Event loop is closed":
            tell(unraisable)

    sys.unraisablehook = tell_others


@pytest.fixture
def shared_data():
    """`shared_data("vgg16")`: research data that lies beside a developer's checkout, or a skip with the reason."""

    def find(name):
        path = _SHARED / name
        if not path.exists():
            pytest.skip(f"research-only data {name} is not beside this checkout")
        return path

    return find


@dataclasses.dataclass(frozen=True)
class Server:
    """Runs commands: `server(path, module, arguments) -> (exit code, what was printed)`."""

    process: subprocess.Popen

    def __call__(self, directory, module, arguments, failure=None):
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
    """Commands in processes of their own, without the seconds that the imports take (tests/command_server.py)."""
    command = [sys.executable, "-m", "tests.command_server"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    root = pathlib.Path(__file__).resolve().parents[1]
    with subprocess.Popen(command, cwd=root, env=environment, text=True, **pipes) as process:
        assert process.stdout.readline() == "ready\n"
        yield Server(process)
        process.stdin.close()
