"""The request loop of a worker process: it prepares one task, and repeats it when asked.

Requests and answers are lines of JSON on standard input and output; what libraries print goes to standard error.
`workers.Worker` is the other end. The process ends when its input ends. This module imports neither JAX nor PyTorch, so
that the memory of a worker is that of its own library.
"""

import dataclasses
import json
import os
import resource
import sys
import time
from collections.abc import Callable

import ml_collections
import numpy as np

from pconv_jax import errors

# Batch size of the large convolution: some tens of milliseconds on two cores, and enough to fill a GPU.
LARGE_BATCH = {"cpu": 4, "gpu": 256}


@dataclasses.dataclass(frozen=True)
class Work:
    """A prepared task, which a worker repeats.

    Attributes:
      step: computes the task once, and returns when the result is there.
      settings: description of how it is computed, for the table.
      device_peak_mib: returns the largest device memory so far in MiB, or None if the device is the CPU.
      on_cpu: whether the device is the CPU.
      compilation_s: seconds of compilation before the first step.
      device: name of the device.
      profile: takes a number of steps and returns the longest operations (`profiling.largest`); None: not prepared.
    """

    step: Callable[[], object]
    settings: str
    device_peak_mib: Callable[[], float | None]
    on_cpu: bool
    compilation_s: float = 0.0
    device: str = ""
    profile: Callable[[int], list[dict]] | None = None


def serve(make: Callable[..., Work], convolution: Callable[..., Callable]):
    """Answers requests until the input ends.

    Args:
      make: prepares a task: `(task, config, batch, options) -> Work`. The batch holds `image` uint8 `[B, H, W, C]`,
        `mask` uint8 `[B, H, W, 1]` and `skipped` int32 `[B]`, as in training.
      convolution: `(dtype, batch, size, channels)` -> a function without arguments that computes a 3 x 3 convolution
        of stride 1.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    work = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["do"] == "prepare":
                config = ml_collections.ConfigDict(request["config"], convert_dict=True)
                with np.load(request["batch"], allow_pickle=False) as file:
                    batch = dict(file)
                work = make(request["task"], config, batch, request["options"])
                first_s = work.compilation_s + timed(work.step, 1)[0]
                answer = {"first_s": first_s, "settings": work.settings, "device": work.device}
            elif request["do"] == "steps":
                answer = {"seconds": timed(work.step, request["count"])}
            elif request["do"] == "memory":
                answer = {"peak_mib": work.device_peak_mib() or peak_rss_mib()}
            elif request["do"] == "profile":
                answer = {"operations": work.profile(request["count"])}
            else:
                batch = LARGE_BATCH["cpu" if work.on_cpu else "gpu"]
                call = convolution(request["dtype"], batch, request["size"], request["channels"])
                answer = {"seconds": timed(call, 12)[2:], "batch": batch}
        except errors.UserError as error:
            answer = {"error": str(error)}
        except (OSError, MemoryError, RuntimeError) as error:  # Both libraries raise RuntimeErrors for a GPU's memory.
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


def timed(call: Callable, count: int) -> list[float]:
    """Calls a function repeatedly and times each call.

    Args:
      call: function without arguments.
      count: number of calls.

    Returns:
      The wall time of each call in seconds.
    """
    times = []
    for _ in range(count):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return times


def peak_rss_mib() -> float:
    """Returns the largest resident memory of this process so far, in MiB."""
    try:
        with open("/proc/self/status", encoding="utf-8") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:")) / 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
