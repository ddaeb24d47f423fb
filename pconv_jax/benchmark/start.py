"""Measures the seconds from the command to the first finished training step, with an empty and a filled program cache.

    python -m pconv_jax.benchmark start [--repeats=3] [--config=experiments/quickstart.py]

Starts `./launch.sh train` in processes of their own and ends each after its first step. A "cold" start has an empty
cache directory (XDG_CACHE_HOME); a "warm" start has the compiled programs that the cold start left there. One start
before them is not counted: it brings the files of the libraries into the system's memory.
"""

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time

from absl import flags, logging
from ml_collections import config_flags

from pconv_jax import errors
from pconv_jax.benchmark import arguments, report, workers

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FIRST_STEP = re.compile(r"first step after ([\d.]+) s")  # A line that training logs.


def define_flags(flag_values: flags.FlagValues):
    """Adds the flags of `python -m pconv_jax.benchmark start`."""
    arguments.define_output(flag_values)
    about = "Number of starts of each kind; the table has their minimum and median."
    flags.DEFINE_integer("repeats", 3, about, lower_bound=1, flag_values=flag_values)


def main(flag_values: flags.FlagValues):
    """Measures, prints the table, and writes the files."""
    arguments.run("start", measure, flag_values)


def measure(config, flag_values: flags.FlagValues) -> list[dict]:
    """Measures cold and warm starts.

    Args:
      config: experiment config.
      flag_values: parsed flags.

    Returns:
      One row for cold and one for warm starts; see `report`. `first_step_s` is the median time that training reports
      for its first step alone.

    Raises:
      UserError: this is no checkout, or the run ended before its first step.
    """
    launch = os.path.join(ROOT, "launch.sh")
    if not os.path.isfile(launch):
        raise errors.UserError(f"{launch} is missing: this benchmark measures ./launch.sh train; run it in a checkout")
    times = {"cold": [], "warm": []}
    for repeat in range(flag_values.repeats + 1):
        with tempfile.TemporaryDirectory() as directory:
            for kind in times if repeat else ("cold",):
                total, step = first_step(flag_values, launch, directory, kind)
                logging.info("%s, %s: %.1f s", f"start {repeat}" if repeat else "not counted", kind, total)
                if repeat:
                    times[kind].append((total, step))
    shared = {"size": config.data.size, "batch": config.train.batch_size, "by": "ours", "dtype": config.model.dtype}
    rows = []
    for kind, pairs in times.items():
        totals, steps = zip(*pairs, strict=True)
        row = {"what": f"start {kind}", **shared, "settings": f"./launch.sh train, {config.name}"}
        rows.append(row | report.times(list(totals)) | {"first_step_s": sorted(steps)[len(steps) // 2]})
    return rows


def first_step(flag_values: flags.FlagValues, launch: str, directory: str, name: str) -> tuple[float, float]:
    """Starts a training run and ends it after its first step.

    Args:
      flag_values: parsed flags; --config and --malloc are used.
      launch: path of launch.sh.
      directory: cache directory of the run, and parent of its run directory.
      name: name of the run directory, which must not exist.

    Returns:
      Seconds from the command to the end of the first step, and those of the step alone as training reports them.

    Raises:
      UserError: the run ended before its first step.
    """
    file = config_flags.get_config_filename(flag_values["config"])
    overrides = [argument for argument in sys.argv if argument.lstrip("-").startswith("config.")]
    command = [launch, "train", file, *overrides, f"--workdir={directory}/{name}"]
    ours = ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE", *workers.KEEP_MEMORY)
    variables = {name: value for name, value in os.environ.items() if name not in ours}
    variables |= {"PCONV_PYTHON": sys.executable, "PCONV_MALLOC": flag_values.malloc, "XDG_CACHE_HOME": directory}
    start = time.perf_counter()
    process = subprocess.Popen(command, env=variables, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    with contextlib.ExitStack() as stack:
        stack.callback(process.wait)
        stack.callback(process.kill)
        lines = []
        for line in process.stderr:
            lines.append(line)
            if match := FIRST_STEP.search(line):
                return time.perf_counter() - start, float(match[1])
    raise errors.UserError(f"the run ended before its first step: {''.join(lines[-3:]).strip()}")
