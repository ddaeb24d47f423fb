"""Finds the operations of a compiled program that take the most time, by JAX's profiler."""

import collections
import glob
import os
import re
import tempfile
from collections.abc import Callable

import jax

_INSTRUCTION = re.compile(r'^ *(?:ROOT )?%?([\w.-]+) = .*metadata=\{[^}]*op_name="([^"]*)"', re.MULTILINE)


def largest(step: Callable[[], object], program: str, count: int, limit: int = 10) -> list[dict]:
    """Profiles a step and returns its longest operations.

    Args:
      step: computes the step once, and returns when the result is there.
      program: text of the compiled program, which names the layer of each operation.
      count: number of steps in the profile.
      limit: number of operations to return.

    Returns:
      For each operation, the longest first: `operation`, its name in the program; `source`, the layer and the function
      it comes from, empty if unknown; `min_s`, seconds per step; `share` of the time of all operations.
    """
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as directory:
        with jax.profiler.trace(directory, profiler_options=options):
            for _ in range(count):
                step()
        (path,) = glob.glob(os.path.join(directory, "**", "*.xplane.pb"), recursive=True)
        seconds = _seconds(jax.profiler.ProfileData.from_file(path))
    sources, total = dict(_INSTRUCTION.findall(program)), sum(seconds.values())
    return [
        {"operation": name, "source": source(sources.get(name, "")), "min_s": spent / count, "share": spent / total}
        for name, spent in collections.Counter(seconds).most_common(limit)
    ]


def source(op_name: str) -> str:
    """Returns the layer and the function of an operation, without the functions of JAX around them.

    Args:
      op_name: the path that JAX writes into a program, such as "jit(step)/transpose(jvp(UNet))/dec2/conv/mul".
    """
    backward = "gradient of " if "transpose(" in op_name else ""
    parts = [re.sub(r"^(?:\w+\()*(\w*)\)*$", r"\1", part) for part in op_name.split("/")[1:]]
    kept = [part for part in parts if part not in ("", "_fun", "shard_map", "closed_call", "cond", "branch_0_fun")]
    return backward + "/".join(kept[-4:])


def _seconds(profile):
    """Returns the seconds of each operation, summed over the profile.

    Where the profile has the times of a device, these count: kernels, by the name of the operation that launched them
    or, if it is unknown (kernels of a CUDA graph), by their own.
    """
    planes = list(profile.planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:")]
    seconds = collections.defaultdict(float)
    for plane in devices or planes:
        for line in plane.lines:
            for event in line.events:
                operation = dict(event.stats).get("hlo_op") or (event.name if devices else None)
                if operation:
                    seconds[operation] += event.duration_ns / 1e9
    return seconds
