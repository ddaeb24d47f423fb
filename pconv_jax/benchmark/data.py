"""How many examples the input pipeline of a config delivers, per second and per second of CPU time.

    python -m pconv_jax.benchmark data --config=experiments/folder.py --config.data.path=DIR

It is the pipeline that training uses, in the same process or processes, with nothing that consumes the batches beside
it. Then decoding, cropping with resizing, and drawing the mask are timed by themselves, on one thread.
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
from pconv_jax.training import build, validation

PARTS = ("decode", "crop and resize", "mask")


def define_flags(flag_values: flags.FlagValues):
    """Adds the flags of `python -m pconv_jax.benchmark data`."""
    command_line.define_config(flag_values)
    about = "Measurements, of which the table has minimum and median."
    flags.DEFINE_integer("repeats", 10, about, lower_bound=1, flag_values=flag_values)
    flags.DEFINE_integer("batches", 20, "Batches per measurement.", lower_bound=1, flag_values=flag_values)
    about = "Directory for benchmark.csv and benchmark.json; none: only a table."
    flags.DEFINE_string("out", None, about, flag_values)


def main(flag_values: flags.FlagValues):
    """Measures, prints the table, and writes the files.

    Raises:
      UserError: the config does not work, or its data cannot be read.
    """
    config, where = flag_values.config, report.machine()
    validation.validate(config)
    if flag_values.out:
        report.check(flag_values.out)
    rows = measure(config, flag_values.repeats, flag_values.batches)
    print(report.table(rows))
    if flag_values.out:
        report.write(flag_values.out, rows, where)


def measure(config, repeats: int, batches: int) -> list[dict]:
    """One row for the whole pipeline, in batches, and one for each of `PARTS`, in examples.

    Args:
      config: validated; its `data`, `masks` and `train.batch_size` say what is measured.
      repeats: how often, after one that warms up and is left out.
      batches: per repeat; the parts are timed on as many examples as there are in them.

    Raises:
      ValueError: the data or the masks of the config cannot be had.
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
    """Seconds of wall time and of CPU time per batch, of each repeat; no CPU time where it cannot be read."""
    stream = build.train_batches(config, source, start=0)
    wall, cpu = [], []
    for _ in _announced("pipeline", repeats):
        started, used = time.perf_counter(), _cpu_seconds()
        for _ in itertools.islice(stream, batches):
            pass
        wall.append((time.perf_counter() - started) / batches)
        now = _cpu_seconds()
        cpu.append(None if now is None else (now - used) / batches)
    stream.close()
    return wall[1:], None if None in cpu else cpu[1:]


def _parts(config, source, examples):
    """Mean seconds per example, `[wall or CPU, part]`, of decoding, cropping and mask drawing."""
    view, family = build.train_view(config), validation.train_masks(config)
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
    """Counts the repeats, and one before them that warms up, in the log."""
    for repeat in range(repeats + 1):
        logging.info("%s: %s", what, f"{repeat} of {repeats}" if repeat else "warming up")
        yield repeat


def _cpu_seconds():
    """CPU time of all threads of this process and of its worker processes so far; None where no /proc tells it."""
    used = time.process_time()
    for worker in multiprocessing.active_children():
        try:
            with open(f"/proc/{worker.pid}/stat", encoding="utf-8") as file:
                fields = file.read().rpartition(")")[2].split()  # the name before may hold anything
        except OSError:
            return None
        used += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # user, system
    return used


def _settings(config, source):
    data, drawn = config.data, config.masks
    images = data.path or (f"{data.name} {data.train_split}" if data.name else data.source)
    text = f"{len(source)} images of {images}, masks {drawn.kind} {drawn.area[0]:g} to {drawn.area[1]:g}"
    return text + (", decoded images cached" if data.cache else "")
