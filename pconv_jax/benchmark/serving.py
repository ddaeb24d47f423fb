"""What runs inside a worker process: it makes one kind of work, and does it when asked.

Requests and answers are lines of JSON on standard input and output; whatever libraries print goes to standard error.
`workers.Worker` is the other end. The process ends with its input. Neither JAX nor PyTorch is imported here, so that
the memory of a worker is that of its own library.
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

# Images of the large convolution: some tens of milliseconds on two cores, and enough to fill a GPU.
LARGE_BATCH = {"cpu": 4, "gpu": 256}


@dataclasses.dataclass(frozen=True)
class Work:
    """What a worker does over and over.

    Attributes:
      step: does it once, and returns when it is done.
      settings: how, for people.
      device_peak_mib: the largest device memory so far in MiB, or None where the device is the processor.
      on_cpu: whether it is.
      compilation_s: seconds of compilation before the first step.
    """

    step: Callable[[], object]
    settings: str
    device_peak_mib: Callable[[], float | None]
    on_cpu: bool
    compilation_s: float = 0.0


def serve(make: Callable[..., Work], convolution: Callable[..., Callable]):
    """Answers until the input ends.

    Args:
      make: `(subject, config, batch, options) -> Work`, where the batch holds `image` uint8 `[B, H, W, C]`, `mask`
        uint8 `[B, H, W, 1]` and `skipped` int32 `[B]`, as training gets them.
      convolution: `(dtype, batch, size, channels)` -> a function that computes a 3 x 3 convolution of stride 1.
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
                work = make(request["subject"], config, batch, request["options"])
                first_s = work.compilation_s + timed(work.step, 1)[0]
                answer = {"first_s": first_s, "settings": work.settings}
            elif request["do"] == "steps":
                answer = {"seconds": timed(work.step, request["count"])}
            elif request["do"] == "memory":
                answer = {"peak_mib": work.device_peak_mib() or peak_rss_mib()}
            else:
                batch = LARGE_BATCH["cpu" if work.on_cpu else "gpu"]
                call = convolution(request["dtype"], batch, request["size"], request["channels"])
                answer = {"seconds": timed(call, 12)[2:], "batch": batch}
        except (ValueError, OSError, MemoryError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


def timed(call: Callable, count: int) -> list[float]:
    """Seconds of wall time of each of `count` calls."""
    times = []
    for _ in range(count):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return times


def peak_rss_mib() -> float:
    """The largest resident memory of this process so far."""
    try:
        with open("/proc/self/status", encoding="utf-8") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:")) / 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
