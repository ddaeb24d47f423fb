"""Four simulated CPU devices for every test; must be set before JAX starts."""

import atexit
import os
import pathlib
import shutil
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
