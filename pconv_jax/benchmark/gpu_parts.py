"""The parts of the benchmark of a GPU (`gpu`). Each takes a time limit in seconds and returns rows (see `report`)."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time

from absl import flags

from pconv_jax import errors
from pconv_jax.benchmark import arguments, cards, measurement, operations, report, workers

# By dtype: the value of JAX_DEFAULT_MATMUL_PRECISION, or None for JAX's choice, and that of model.dtype.
DTYPES = {"bfloat16": (None, "bfloat16"), "tf32": ("tensorfloat32", "float32"), "float32": ("float32", "float32")}
# Whether PyTorch compiles the step, which takes a minute, by competitor.
TORCH_COMPILE = {"torch_bf16": "no", "torch_best_bf16": "try"}
PROFILED_STEPS = 20
GRACE_SECONDS = 20  # A training run needs some seconds to save its state.
SCORE = re.compile(r"step (\d+): PSNR of the composite ([\d.]+) dB")  # A line that training logs.


def step(flag_values: flags.FlagValues, case: dict, limit: float, *, profiled: bool = False) -> list[dict]:
    """Times training steps or forward passes in a worker process.

    Args:
      flag_values: parsed flags.
      case: the row that names the case, see `gpu.cases`; `by` is "ours" or one of `TORCH_COMPILE`.
      limit: seconds for everything, compilation included.
      profiled: also profile the step.

    Returns:
      The row of the case, and one row "operation" for each of the longest operations if `profiled`.

    Raises:
      UserError: the worker fails, e.g. because the device has too little memory, or takes too long.
    """
    end = time.monotonic() + limit
    config = arguments.sized(flag_values.config, case["size"], case["batch"])
    task, _, objective = case["what"].partition(" ")
    config = measurement.with_objective(config, objective.lower()) if objective else config
    module, variables, options = _competitor(flag_values, case)
    with tempfile.TemporaryDirectory() as directory, workers.Worker(module, variables) as worker:

        def ask(**request):
            return worker.ask(limit=end - time.monotonic(), **request)

        request = {"task": task, "config": config.to_dict(), "batch": measurement.save_examples(config, directory)}
        first = ask(do="prepare", options=options | {"profile": profiled}, **request)
        slowest = max(ask(do="steps", count=measurement.WARM_UP)["seconds"])
        count = max(1, min(flag_values.steps, int((end - time.monotonic()) / 3 / slowest)))
        row = {**case, "settings": first["settings"], "device": first["device"]}
        row |= report.times(ask(do="steps", count=count)["seconds"], images=case["batch"])
        row |= {"compile_s": max(first["first_s"] - row["min_s"], 0.0), "peak_mib": ask(do="memory")["peak_mib"]}
        row["gflops"] = _operations(config, task) / row["min_s"] / 1e9
        if peak := cards.bfloat16_peak(first["device"]):
            row |= {"peak_tflops": peak, "share_of_peak": row["gflops"] / peak / 1e3}
        if not profiled:
            return [row]
        try:
            longest = ask(do="profile", count=min(PROFILED_STEPS, count))["operations"]
        except errors.UserError as error:  # The step was measured all the same.
            longest = [{"failed": str(error)}]
    return [row, *({"what": "operation", **operation} for operation in longest)]


def _competitor(flag_values, case):
    """Returns the module of the worker, its environment variables, and the options of its `make`."""
    precision, dtype = DTYPES[case["dtype"]]
    variables = workers.environment(flag_values.malloc)
    if case["by"] == "ours":
        variables |= {"JAX_DEFAULT_MATMUL_PRECISION": precision} if precision else {}
        return workers.OURS, variables, {"dtype": dtype}
    options = {"channels_last": True, "fused": True, "autocast": dtype == "bfloat16"}
    return workers.TORCH, variables, options | {"compile": TORCH_COMPILE[case["by"]]}


def _operations(config, task):
    """Returns the operations of a batch."""
    size, batch = config.data.size, config.train.batch_size
    if task == "forward":
        return batch * operations.forward(config.model, size)
    return batch * operations.step(config.model, size, bool(config.loss.vgg16_weights))


def training(data: str, workdir: str, further: str, limit: float) -> list[dict]:
    """Trains the network for photographs by experiments/photographs.py, and stops it after the limit.

    Args:
      data: folder of photographs.
      workdir: the run directory, which keeps the trained weights.
      further: further flags of the command, as in a shell.
      limit: seconds until the run is asked to stop.

    Returns:
      One row "training" for each evaluation: `minutes` since the start, compilation included, `step`, and `psnr` in dB.

    Raises:
      UserError: the run ended with an error, or without an evaluation.
    """
    command = [sys.executable, "-m", "pconv_jax.main", "--config=experiments/photographs.py"]
    # The config evaluates more rarely than fits into a benchmark.
    command += [f"--config.data.path={data}", "--config.train.checkpoint_every=200", f"--workdir={workdir}"]
    start = time.monotonic()
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([*command, *shlex.split(further)], **pipes)
    stop, kill = (
        threading.Timer(seconds, process.send_signal, [number])
        for seconds, number in ((limit, signal.SIGTERM), (limit + GRACE_SECONDS, signal.SIGKILL))
    )
    rows, last = [], ""
    with process:
        stop.start()
        kill.start()
        for line in process.stderr:
            last = line.strip() or last
            if match := SCORE.search(line):
                minutes = (time.monotonic() - start) / 60
                rows.append({"what": "training", "step": int(match[1]), "psnr": float(match[2]), "minutes": minutes})
        stop.cancel()
        process.wait()
        kill.cancel()
    if not rows:
        raise errors.UserError(f"no evaluation within {limit:.0f} s; the last line was: {last}")
    return rows


def input_rate(data: str | None, size: int, out: str, limit: float) -> list[dict]:
    """Measures the input pipeline with as many threads as cores, and with as many processes.

    Args:
      data: folder of photographs; None for those in scikit-image's wheel.
      size: pixels per side of an example.
      out: directory of the results.
      limit: seconds for both measurements.

    Returns:
      The rows of `python -m pconv_jax.benchmark data`: first the pipeline and its parts with threads, then the pipeline
      with processes.

    Raises:
      UserError: a measurement failed.
      subprocess.TimeoutExpired: it took too long.
    """
    cores, rows, end = report.machine()["cores"], [], time.monotonic() + limit
    source = ["--config.data.source=folder", f"--config.data.path={data}"] if data else []
    for keys in ({"threads": cores}, {"threads": 2, "workers": cores}):
        command = [sys.executable, "-m", "pconv_jax.benchmark", "data", "--config=experiments/default.py", *source]
        command += [f"--config.data.size={size}", "--config.train.batch_size=64", "--repeats=3", "--batches=8"]
        command += ["--config.model.depth=1"]  # The network is not used, so any size is fine.
        command += [f"--config.data.{key}={value}" for key, value in keys.items()] + [f"--out={out}"]
        variables = os.environ | {"JAX_PLATFORMS": "cpu"}  # The GPU's memory is for the other parts.
        limits = {"timeout": max(end - time.monotonic(), 1), "env": variables}
        process = subprocess.run(command, capture_output=True, text=True, check=False, **limits)
        if process.returncode:
            raise errors.UserError(process.stderr.strip().splitlines()[-1])
        with open(os.path.join(out, "benchmark.json"), encoding="utf-8") as file:
            measured = json.load(file)["rows"]
        rows += [row for row in measured if not rows or row["what"] == "pipeline"]
    return rows
