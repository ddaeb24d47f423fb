"""Worker processes that are measured in turns: each has its task prepared, and one at a time computes it.

The load of a machine by other programs changes from minute to minute, so competitors take turns (A B C, C B A, ...) and
are compared by ratios. The memory of a worker is that of a process which did nothing else. `serving` runs inside the
workers.
"""

import importlib.util
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable

from absl import logging

from pconv_jax import errors

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OURS, TORCH = "pconv_jax.benchmark.ours", "pconv_jax.benchmark.torch_peer"
REQUIREMENTS = os.path.join("pconv_jax", "benchmark", "requirements.txt")

# Runs a module without the package's own __init__, which imports JAX: that would count as memory of PyTorch's worker.
_ALONE = """
import runpy, sys, types
package = types.ModuleType("pconv_jax")
package.__path__ = [sys.argv.pop(1)]
sys.modules["pconv_jax"] = package
runpy.run_module(sys.argv.pop(1), run_name="__main__")
"""

_DEVICES = "--xla_force_host_platform_device_count"

# Settings of launch.sh on a machine without a GPU, by which the allocator keeps freed memory.
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "67108864",
    "MALLOC_ARENA_MAX": "1",
}


def check_torch():
    """Checks that PyTorch is installed.

    Raises:
      UserError: it is not.
    """
    if importlib.util.find_spec("torch") is None:
        raise errors.UserError(f"--against=torch needs PyTorch: {sys.executable} -m pip install -r {REQUIREMENTS}")


def environment(malloc: str, devices: int = 1) -> dict[str, str]:
    """Returns the environment variables of a worker process.

    Args:
      malloc: "keep" makes the allocator keep freed memory, as launch.sh does by default; "system" leaves it alone
        (PCONV_MALLOC of launch.sh).
      devices: number of devices that a CPU simulates.
    """
    variables = {name: value for name, value in os.environ.items() if name not in KEEP_MEMORY}
    if malloc == "keep" and sys.platform == "linux" and not os.path.exists("/dev/nvidia0"):
        variables |= KEEP_MEMORY
    others = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if not flag.startswith(_DEVICES)]
    variables["XLA_FLAGS"] = " ".join([*others, f"{_DEVICES}={devices}"])
    # Compilation is measured, so it must not come from a cache; and several processes share a GPU's memory.
    return variables | {"JAX_ENABLE_COMPILATION_CACHE": "false", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


class Worker:
    """A process that answers requests; as a context manager it ends the process.

    Args:
      module: full name of the module that the process runs; it calls `serving.serve`.
      variables: environment variables of the process.
    """

    def __init__(self, module: str, variables: dict[str, str]):
        self._name = module.rpartition(".")[2]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        command = ["-c", _ALONE, PACKAGE, module]
        self._process = subprocess.Popen([sys.executable, *command], env=variables, **pipes)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.kill()  # It holds nothing worth keeping, and a GPU's libraries take seconds to shut down.
        self._process.wait()

    def ask(self, limit: float | None = None, **request) -> dict:
        """Sends a request to `serving.serve` in the worker, and waits for the answer.

        Args:
          limit: seconds to wait; None: without a limit. After a timeout the worker cannot be asked again.
          **request: the request.

        Raises:
          UserError: the worker reports an error, its process ended, or the time limit passed.
        """
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
            if limit is not None and not select.select([self._process.stdout], [], [], max(limit, 0))[0]:
                raise errors.UserError(f'{self._name}: no answer to "{request["do"]}" within {limit:.0f} s')
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self._process.wait()
            if code == -9:
                advice = "it was killed, most likely because memory ran out: lower --sizes or --batches"
            else:
                advice = "see its messages above"
            raise errors.UserError(f"the worker {self._name} ended with code {code}: {advice}")
        answer = json.loads(line)
        if "error" in answer:
            raise errors.UserError(f"{self._name}: {answer['error']}")
        return answer


def in_turn(calls: dict[str, Callable[[int], list[float]]], steps: int, turn: int, progress: str) -> dict:
    """Lets competitors compute steps in turns, in an order that is reversed after each round.

    Args:
      calls: by name, a function that computes a number of steps and returns the seconds of each.
      steps: number of steps per competitor; rounded up to a multiple of `turn`.
      turn: number of steps at a time.
      progress: title of the log lines.

    Returns:
      By name, the seconds of each step.
    """
    times = {name: [] for name in calls}
    order, rounds, start = list(calls), -(-steps // turn), time.perf_counter()
    for done in range(1, rounds + 1):
        for name in order:
            times[name] += calls[name](turn)
        order.reverse()
        left = (time.perf_counter() - start) / done * (rounds - done)
        logging.info("%s: %d of %d steps each, %.0f s left", progress, done * turn, rounds * turn, left)
    return times
