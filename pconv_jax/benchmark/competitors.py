"""Rows of a benchmark from workers that compute the same thing: ours in one or two forms, and PyTorch in three."""

import contextlib
import dataclasses
import functools
import os
import tempfile

import numpy as np
from absl import logging

from pconv_jax.benchmark import operations, report, workers
from pconv_jax.data import masks
from pconv_jax.training import validation

WARM = 2  # steps after the first that do not count: the heap still grows


@dataclasses.dataclass(frozen=True)
class Opponent:
    """Who computes: the module of the worker, the type of its features, and its options."""

    module: str
    dtype: str
    options: dict


@dataclasses.dataclass(frozen=True)
class How:
    """How is measured.

    Attributes:
      steps: of each, at least.
      turn: steps at a time.
      malloc: `workers.environment`.
      at_once: all workers wait beside each other and take turns; otherwise one after another is started and ended,
        where memory does not hold them all.
      devices: that a CPU is to simulate.
    """

    steps: int = 10
    turn: int = 1
    malloc: str = "keep"
    at_once: bool = True
    devices: int = 1


def opponents(config, with_torch: bool, try_compile: bool = True) -> dict[str, Opponent]:
    """By name, in the order of the first turn; PyTorch at its strongest is tried with torch.compile, too, or not.

    Raises:
      ValueError: PyTorch is wanted and not installed.
    """
    found = {"ours": Opponent(workers.OURS, config.model.dtype, {})}
    if with_torch:
        workers.check_torch()
        eager = {"channels_last": False, "fused": False, "autocast": False, "compile": "no"}
        best = {**eager, "channels_last": True, "fused": True, "compile": "try" if try_compile else "no"}
        found["torch_eager"] = Opponent(workers.TORCH, "float32", eager)
        found["torch_best"] = Opponent(workers.TORCH, "float32", best)
        found["torch_best_bf16"] = Opponent(workers.TORCH, "bfloat16", {**best, "autocast": True})
        if config.model.dtype != "bfloat16":
            found["ours_bf16"] = Opponent(workers.OURS, "bfloat16", {"dtype": "bfloat16"})
    return found


def measure(what: str, subject: str, config, who: dict[str, Opponent], how: How) -> list[dict]:
    """One row per opponent, and one for each opponent's large convolution.

    Args:
      what: name of the rows.
      subject: "train" or "forward".
      config: validated; `train.batch_size` examples of `data.size`.
      who: `opponents`.
      how: as above.

    Raises:
      ValueError: a worker refused or ended.
    """
    if not how.at_once and len(who) > 1:
        return [row for by, one in who.items() for row in measure(what, subject, config, {by: one}, how)]
    size, batch = config.data.size, config.train.batch_size
    needed = batch * (operations.forward(config.model, size) if subject == "forward" else _step(config))
    title = f"{what}, {size} px, batch {batch}"
    rows, peaks = [], []
    with contextlib.ExitStack() as stack:
        path, ready = save_examples(config, stack.enter_context(tempfile.TemporaryDirectory())), {}
        for by, one in who.items():
            logging.info("%s: %s gets ready", title, by)
            worker = stack.enter_context(workers.Worker(one.module, workers.environment(how.malloc, how.devices)))
            request = {"subject": subject, "config": config.to_dict(), "batch": path, "options": one.options}
            ready[by] = (worker, worker.ask(do="prepare", **request))
            worker.ask(do="steps", count=WARM)
        calls = {by: functools.partial(_steps, worker) for by, (worker, _) in ready.items()}
        times = workers.in_turn(calls, how.steps, how.turn, title)
        memory = {by: worker.ask(do="memory")["peak_mib"] for by, (worker, _) in ready.items()}
        for by, (worker, first) in ready.items():
            row = {"what": what, "size": size, "batch": batch, "by": by, "dtype": who[by].dtype}
            settings = first["settings"] if how.at_once else f"{first['settings']}, not in turn"
            row |= {"settings": settings, **report.times(times[by], images=batch)}
            if who[by].options.get("compile") != "try":  # then the process has held two programs and two networks
                row["peak_mib"] = memory[by]
            row["compile_s"] = max(first["first_s"] - row["min_s"], 0.0)
            rows.append(row | {"gflops": needed / row["min_s"] / 1e9})
            peaks.append(large(worker, by, who[by].dtype))
    found = (f"{row['by']} {1e3 * row['min_s']:.1f} ms (median {1e3 * row['median_s']:.1f})" for row in rows)
    logging.info("%s: %s", title, ", ".join(found))
    return rows + peaks


def with_objective(config, objective: str):
    """The config without VGG16 ("l1"), or with it ("full"): with its own file of weights, or random ones."""
    file = config.loss.vgg16_weights or operations.RANDOM_VGG16
    config.loss.vgg16_weights = file if objective == "full" else ""
    return config


def with_shares(rows: list[dict]) -> list[dict]:
    """The rows with `share_of_peak`, and of the large convolutions the fastest of each opponent, last.

    The peak is that of the fastest large convolution in the same type, whoever computed it.
    """
    peaks, fastest = {}, {}
    for row in (row for row in rows if row["what"] == operations.LARGE.name):
        by, dtype = row["by"], row["dtype"]
        peaks[dtype] = max(row["gflops"], peaks.get(dtype, 0.0))
        fastest[by] = max(row, fastest.get(by, row), key=lambda row: row["gflops"])
    others = [row for row in rows if row["what"] != operations.LARGE.name] + list(fastest.values())
    return [row | {"share_of_peak": row["gflops"] / peaks[row["dtype"]]} if "gflops" in row else row for row in others]


def save_examples(config, directory: str) -> str:
    """Writes `examples` to a file in a directory; its path."""
    path = os.path.join(directory, "batch.npz")
    np.savez(path, **examples(config))
    return path


def examples(config) -> dict[str, np.ndarray]:
    """A training batch of noise with the masks of the config: the same for whoever is measured."""
    size, count = config.data.size, config.train.batch_size
    family, rng = validation.train_masks(config), np.random.default_rng(config.seed)
    return {
        "image": rng.integers(0, 256, (count, size, size, config.model.channels), np.uint8),
        "mask": np.stack([masks.draw(family, config.seed, 0, index, (size, size)) for index in range(count)]),
        "skipped": np.zeros(count, np.int32),
    }


def _step(config):
    return operations.step(config.model, config.data.size, bool(config.loss.vgg16_weights))


def _steps(worker, count):
    return worker.ask(do="steps", count=count)["seconds"]


def large(worker, by: str, dtype: str) -> dict:
    """The row of the large convolution, by a worker."""
    answer = worker.ask(do="convolution", dtype=dtype, size=operations.LARGE.size, channels=operations.LARGE.low)
    layer, batch = operations.LARGE, answer["batch"]
    row = {"what": layer.name, "size": layer.size, "batch": batch, "by": by, "dtype": dtype}
    row |= {"settings": f"3 x 3, {layer.low} channels", **report.times(answer["seconds"])}
    return row | {"gflops": batch * layer.forward / row["min_s"] / 1e9}
