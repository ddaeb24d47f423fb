"""Measures the same work in several worker processes: this package in one or two dtypes, and PyTorch in three forms.

A row of results is a dict whose keys `report` describes.
"""

import contextlib
import dataclasses
import functools
import os
import tempfile

import numpy as np
from absl import logging

from pconv_jax.benchmark import operations, report, workers
from pconv_jax.data import masks
from pconv_jax.training import example_settings

WARM_UP = 2  # Steps after the first that are not counted: the process still allocates memory in them.


@dataclasses.dataclass(frozen=True)
class Competitor:
    """An implementation that is measured in a worker process of its own.

    Attributes:
      module: the worker's module, `workers.OURS` or `workers.TORCH`.
      dtype: type of its features, "float32" or "bfloat16".
      options: options of the worker's `make`.
    """

    module: str
    dtype: str
    options: dict


@dataclasses.dataclass(frozen=True)
class Setup:
    """The conditions of a measurement, the same for all competitors.

    Attributes:
      steps: number of steps that are timed per competitor, at least.
      turn: number of steps that a competitor computes before the next one takes over.
      malloc: "keep" or "system", the allocator's settings; see `workers.environment`.
      at_once: True keeps all workers alive and lets them take turns; False starts and ends them one after another,
        for work that does not fit into memory several times.
      devices: number of devices that a CPU simulates.
    """

    steps: int = 10
    turn: int = 1
    malloc: str = "keep"
    at_once: bool = True
    devices: int = 1


def choose_competitors(config, with_torch: bool, try_compile: bool = True) -> dict[str, Competitor]:
    """Returns the implementations to compare, by name, in the order in which they take their first turn.

    Args:
      config: experiment config, whose `model.dtype` "ours" computes in.
      with_torch: also measure PyTorch: as published repositories run it ("torch_eager"), with its fastest settings
        ("torch_best"), and with those in bfloat16 ("torch_best_bf16"); and this package in bfloat16 ("ours_bf16").
      try_compile: let "torch_best" and "torch_best_bf16" also try `torch.compile` and use the faster variant.

    Raises:
      UserError: pyTorch is asked for and is not installed.
    """
    competitors = {"ours": Competitor(workers.OURS, config.model.dtype, {})}
    if with_torch:
        workers.check_torch()
        eager = {"channels_last": False, "fused": False, "autocast": False, "compile": "no"}
        best = {**eager, "channels_last": True, "fused": True, "compile": "try" if try_compile else "no"}
        competitors["torch_eager"] = Competitor(workers.TORCH, "float32", eager)
        competitors["torch_best"] = Competitor(workers.TORCH, "float32", best)
        competitors["torch_best_bf16"] = Competitor(workers.TORCH, "bfloat16", {**best, "autocast": True})
        if config.model.dtype != "bfloat16":
            competitors["ours_bf16"] = Competitor(workers.OURS, "bfloat16", {"dtype": "bfloat16"})
    return competitors


def measure(what: str, task: str, config, competitors: dict[str, Competitor], setup: Setup) -> list[dict]:
    """Times a task for every competitor, and a large convolution as the peak rate that each one reaches.

    Args:
      what: name of the task in the rows, e.g. "train L1".
      task: "train" or "forward".
      config: validated experiment config, with `train.batch_size` examples of `data.size` pixels per side.
      competitors: competitors by name, as `choose_competitors` returns them.
      setup: conditions of the measurement.

    Returns:
      One row per competitor for the task, then one per competitor for its large convolution.

    Raises:
      UserError: a worker cannot do the task, or its process ended.
    """
    if not setup.at_once and len(competitors) > 1:
        return [
            row
            for name, competitor in competitors.items()
            for row in measure(what, task, config, {name: competitor}, setup)
        ]
    size, batch = config.data.size, config.train.batch_size
    needed = batch * (operations.forward(config.model, size) if task == "forward" else _step_operations(config))
    title = f"{what}, {size} px, batch {batch}"
    rows, peaks = [], []
    with contextlib.ExitStack() as stack:
        path, ready = save_examples(config, stack.enter_context(tempfile.TemporaryDirectory())), {}
        for name, competitor in competitors.items():
            logging.info("%s: preparing %s", title, name)
            variables = workers.environment(setup.malloc, setup.devices)
            worker = stack.enter_context(workers.Worker(competitor.module, variables))
            request = {"task": task, "config": config.to_dict(), "batch": path, "options": competitor.options}
            ready[name] = (worker, worker.ask(do="prepare", **request))
            worker.ask(do="steps", count=WARM_UP)
        calls = {name: functools.partial(_time_steps, worker) for name, (worker, _) in ready.items()}
        times = workers.in_turn(calls, setup.steps, setup.turn, title)
        memory = {name: worker.ask(do="memory")["peak_mib"] for name, (worker, _) in ready.items()}
        for name, (worker, first) in ready.items():
            dtype, options = competitors[name].dtype, competitors[name].options
            row = {"what": what, "size": size, "batch": batch, "by": name, "dtype": dtype}
            settings = first["settings"] if setup.at_once else f"{first['settings']}, not in turn"
            row |= {"settings": settings, **report.times(times[name], images=batch)}
            if options.get("compile") != "try":  # Such a process has held two networks, so its peak is not comparable.
                row["peak_mib"] = memory[name]
            row["compile_s"] = max(first["first_s"] - row["min_s"], 0.0)
            rows.append(row | {"gflops": needed / row["min_s"] / 1e9})
            peaks.append(large_convolution(worker, name, dtype))
    results = (f"{row['by']} {1e3 * row['min_s']:.1f} ms (median {1e3 * row['median_s']:.1f})" for row in rows)
    logging.info("%s: %s", title, ", ".join(results))
    return rows + peaks


def with_objective(config, objective: str):
    """Sets whether a config's training loss uses VGG16 features, and returns the config.

    Args:
      config: experiment config, which is changed.
      objective: "l1" for the loss terms without VGG16; "full" for all, with the config's weights file or, if it
        names none, random weights.
    """
    file = config.loss.vgg16_weights or operations.RANDOM_VGG16
    config.loss.vgg16_weights = file if objective == "full" else ""
    return config


def with_shares(rows: list[dict]) -> list[dict]:
    """Adds `share_of_peak` to the rows, and keeps only the fastest large convolution of each competitor.

    The peak is the rate of the fastest large convolution in the same dtype, whichever competitor computed it.

    Returns:
      All other rows in their order, then one row per competitor for its large convolution.
    """
    peaks, fastest = {}, {}
    for row in (row for row in rows if row["what"] == operations.LARGE.name):
        name, dtype = row["by"], row["dtype"]
        peaks[dtype] = max(row["gflops"], peaks.get(dtype, 0.0))
        fastest[name] = max(row, fastest.get(name, row), key=lambda row: row["gflops"])
    others = [row for row in rows if row["what"] != operations.LARGE.name] + list(fastest.values())
    return [row | {"share_of_peak": row["gflops"] / peaks[row["dtype"]]} if "gflops" in row else row for row in others]


def save_examples(config, directory: str) -> str:
    """Writes `examples(config)` to a file and returns the file's path.

    Args:
      config: validated experiment config.
      directory: the directory of the file.
    """
    path = os.path.join(directory, "batch.npz")
    np.savez(path, **examples(config))
    return path


def examples(config) -> dict[str, np.ndarray]:
    """Returns a training batch of noise with masks of the config, the same for all competitors."""
    size, count = config.data.size, config.train.batch_size
    family, rng = example_settings.train_masks(config), np.random.default_rng(config.seed)
    return {
        "image": rng.integers(0, 256, (count, size, size, config.model.channels), np.uint8),
        "mask": np.stack([masks.draw(family, config.seed, 0, index, (size, size)) for index in range(count)]),
        "skipped": np.zeros(count, np.int32),
    }


def large_convolution(worker: workers.Worker, name: str, dtype: str) -> dict:
    """Times the large convolution in a worker.

    Args:
      worker: a running worker process.
      name: the competitor's name.
      dtype: "float32" or "bfloat16".

    Returns:
      The row of the large convolution.
    """
    layer = operations.LARGE
    answer = worker.ask(do="convolution", dtype=dtype, size=layer.size, channels=layer.low)
    row = {"what": layer.name, "size": layer.size, "batch": answer["batch"], "by": name, "dtype": dtype}
    row |= {"settings": f"3 x 3, {layer.low} channels", **report.times(answer["seconds"])}
    return row | {"gflops": answer["batch"] * layer.forward / row["min_s"] / 1e9}


def _step_operations(config):
    return operations.step(config.model, config.data.size, bool(config.loss.vgg16_weights))


def _time_steps(worker, count):
    return worker.ask(do="steps", count=count)["seconds"]
