"""Measures how many examples the input pipeline of a config delivers, per second and per second of CPU time.

    python -m pconv_jax.benchmark data --config=experiments/folder.py --config.data.path=DIR

The pipeline is the one that training uses, in the same process or worker processes, while nothing else consumes the
batches. Decoding, cropping with resizing, and drawing masks are then timed by themselves, on one thread.
"""

import itertools
import multiprocessing
import os
import time

import numpy as np
from absl import flags, logging

from pconv_jax import command_line
from pconv_jax.benchmark import report
from pconv_jax.data import masks, pipeline
from pconv_jax.training import build, example_settings, validation

PARTS = ("decode", "crop and resize", "mask")


def define_flags(flag_values: flags.FlagValues):
    """Adds the flags of `python -m pconv_jax.benchmark data`."""
    command_line.define_config(flag_values)
    about = "Number of measurements; the table has their minimum and median."
    flags.DEFINE_integer("repeats", 10, about, lower_bound=1, flag_values=flag_values)
    flags.DEFINE_integer("batches", 20, "Batches per measurement.", lower_bound=1, flag_values=flag_values)
    about = "Directory for benchmark.csv and benchmark.json; by default only the table is printed."
    flags.DEFINE_string("out", None, about, flag_values)


def main(flag_values: flags.FlagValues):
    """Measures, prints the table, and writes the files.

    Raises:
      UserError: the config does not work, or its data cannot be read.
    """
    config, machine = flag_values.config, report.machine()
    validation.validate(config)
    if flag_values.out:
        report.check(flag_values.out)
    rows = measure(config, flag_values.repeats, flag_values.batches)
    print(report.table(rows))
    if flag_values.out:
        report.write(flag_values.out, rows, machine)


def measure(config, repeats: int, batches: int) -> list[dict]:
    """Measures the whole pipeline and its parts.

    Args:
      config: validated experiment config; its `data`, `masks` and `train.batch_size` are used.
      repeats: number of measurements, after one that warms up and is not counted.
      batches: number of batches per measurement; the parts are timed on as many examples.

    Returns:
      One row for the pipeline, whose times are per batch, and one for each of `PARTS`, whose times are per example; see
      `report`.

    Raises:
      UserError: the images or the masks of the config cannot be read.
    """
    source, _ = build.image_sources(config)
    build.check_masks(config)
    batch, size = config.train.batch_size, config.data.size
    wall, cpu = _pipeline(config, source, repeats, batches)
    shared = {"size": size, "settings": _settings(config, source)}
    by = f"{config.data.workers} workers, " if config.data.workers else ""
    by += f"{config.data.threads} threads"
    rows = [{"what": "pipeline", "batch": batch, "by": by, **shared, **report.times(wall, cpu, batch)}]
    parts = [_parts(config, source, batch * batches) for _ in _announced("parts", repeats)][1:]
    for name, passes in zip(PARTS, np.moveaxis(parts, 2, 0), strict=True):
        wall, cpu = passes.T.tolist()
        rows.append({"what": name, "batch": 1, "by": "1 thread", **shared, **report.times(wall, cpu, 1)})
    return rows


def _pipeline(config, source, repeats, batches):
    """Returns wall time and CPU time per batch in seconds, of each repeat; None for a CPU time that cannot be read."""
    stream = build.train_batches(config, source, start=0)
    wall, cpu = [], []
    for _ in _announced("pipeline", repeats):
        start, start_cpu = time.perf_counter(), _cpu_seconds()
        for _ in itertools.islice(stream, batches):
            pass
        wall.append((time.perf_counter() - start) / batches)
        end_cpu = _cpu_seconds()
        cpu.append(None if end_cpu is None else (end_cpu - start_cpu) / batches)
    stream.close()
    return wall[1:], None if None in cpu else cpu[1:]


def _parts(config, source, examples):
    """Returns the mean seconds per example, `[2, parts]`: wall time and CPU time of each of `PARTS`."""
    view, family = example_settings.train_view(config), example_settings.train_masks(config)
    total = np.zeros((2, len(PARTS)))
    for index in range(examples):
        rng = np.random.default_rng([config.seed, index])
        times = [(time.perf_counter(), time.thread_time())]
        image, _ = source[index % len(source)]
        times.append((time.perf_counter(), time.thread_time()))
        pipeline.crop(image, view, rng)
        times.append((time.perf_counter(), time.thread_time()))
        masks.draw(family, config.seed, 0, index, (view.size, view.size))
        times.append((time.perf_counter(), time.thread_time()))
        total += np.diff(np.array(times), axis=0).T
    return total / examples


def _announced(what, repeats):
    """Yields once for a repeat that warms up and then for each repeat, and logs them."""
    for repeat in range(repeats + 1):
        logging.info("%s: %s", what, f"{repeat} of {repeats}" if repeat else "warming up")
        yield repeat


def _cpu_seconds():
    """Returns the CPU time of this process and its worker processes so far; None if /proc does not report it."""
    used = time.process_time()
    for worker in multiprocessing.active_children():
        try:
            with open(f"/proc/{worker.pid}/stat", encoding="utf-8") as file:
                fields = file.read().rpartition(")")[2].split()  # the name before it may contain spaces
        except OSError:
            return None
        used += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # user, system
    return used


def _settings(config, source):
    data, drawn = config.data, config.masks
    images = data.path or (f"{data.name} {data.train_split}" if data.name else data.source)
    text = f"{len(source)} images of {images}, masks {drawn.kind} {drawn.area[0]:g} to {drawn.area[1]:g}"
    return text + (", decoded images cached" if data.cache else "")
