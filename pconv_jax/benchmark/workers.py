"""Processes that are measured in turn: each has its work ready, and one at a time does it.

What a machine does besides changes from minute to minute, so rates are compared between processes that take turns
(A B C, C B A, ..), and memory is that of a process which did nothing else. `serving` is what runs inside them.
"""

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

from absl import logging

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OURS, TORCH = "pconv_jax.benchmark.ours", "pconv_jax.benchmark.torch_peer"
REQUIREMENTS = os.path.join("pconv_jax", "tools", "benchmark", "requirements.txt")

# Starts a module without the package's own __init__, which imports JAX: in PyTorch's worker it would count as memory.
_ALONE = """
import runpy, sys, types
package = types.ModuleType("pconv_jax")
package.__path__ = [sys.argv.pop(1)]
sys.modules["pconv_jax"] = package
runpy.run_module(sys.argv.pop(1), run_name="__main__")
"""

_DEVICES = "--xla_force_host_platform_device_count"

# As launch.sh sets it on a machine without a GPU: freed memory is kept.
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "67108864",
    "MALLOC_ARENA_MAX": "1",
}


def check_torch():
    """Raises ValueError where PyTorch is not installed."""
    if importlib.util.find_spec("torch") is None:
        raise ValueError(f"--against=torch needs PyTorch: {sys.executable} -m pip install -r {REQUIREMENTS}")


def environment(malloc: str, devices: int = 1) -> dict[str, str]:
    """Variables of a worker process.

    Args:
      malloc: "keep" or "system", as PCONV_MALLOC of launch.sh, the same for all opponents.
      devices: that a CPU is to simulate.
    """
    variables = {name: value for name, value in os.environ.items() if name not in KEEP_MEMORY}
    if malloc == "keep" and sys.platform == "linux" and not os.path.exists("/dev/nvidia0"):
        variables |= KEEP_MEMORY
    others = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if not flag.startswith(_DEVICES)]
    variables["XLA_FLAGS"] = " ".join([*others, f"{_DEVICES}={devices}"])
    # Compilation is measured, so nothing comes from a cache; and several processes share a GPU's memory.
    return variables | {"JAX_ENABLE_COMPILATION_CACHE": "false", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


class Worker:
    """A process of its own that answers requests; a context, which ends it."""

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
        self._process.kill()  # nothing that it holds is to be kept, and a GPU's libraries take seconds to leave
        self._process.wait()

    def ask(self, **request) -> dict:
        """Sends a request of `serving.serve` and waits for its answer.

        Raises:
          ValueError: the worker refused, with its reason, or ended.
        """
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self._process.wait()
            why = ", most likely for want of memory: lower --sizes or --batches" if code == -9 else ": see above"
            raise ValueError(f"the worker {self._name} ended with code {code}{why}")
        answer = json.loads(line)
        if "error" in answer:
            raise ValueError(f"{self._name}: {answer['error']}")
        return answer


def in_turn(calls: dict[str, Callable[[int], list[float]]], steps: int, turn: int, progress: str) -> dict:
    """Lets each make at least `steps` steps, some at a time, in an order that is reversed after each round.

    Args:
      calls: by name: a number of steps -> the seconds of each.
      steps: wanted of each.
      turn: steps at a time.
      progress: how the log begins.

    Returns:
      By name, the seconds of each step.
    """
    times = {name: [] for name in calls}
    order, rounds, started = list(calls), -(-steps // turn), time.perf_counter()
    for done in range(1, rounds + 1):
        for name in order:
            times[name] += calls[name](turn)
        order.reverse()
        took = time.perf_counter() - started
        left = took / done * (rounds - done)
        logging.info("%s: %d of %d steps each, %.0f s left", progress, done * turn, rounds * turn, left)
    return times
