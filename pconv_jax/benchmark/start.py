"""Seconds from the command to the first finished step of a training run, without compiled programs and with them.

    python -m pconv_jax.benchmark start [--repeats=3] [--config=experiments/quickstart.py]

Starts `./launch.sh train` in processes of their own and ends each after its first step: "cold" with an empty cache
directory of the user (XDG_CACHE_HOME), "warm" with the one that the cold start has filled with compiled programs. The
files of the libraries are in the system's memory in both, from a start before that is not counted.
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

from pconv_jax.benchmark import arguments, report, workers

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FIRST_STEP = re.compile(r"first step after ([\d.]+) s")  # what train.py logs


def define_flags(flag_values: flags.FlagValues):
    """Adds the flags of `python -m pconv_jax.benchmark start`."""
    arguments.define_output(flag_values)
    flags.DEFINE_integer(
        "repeats",
        3,
        "Starts of each kind, of which minimum and median are told.",
        lower_bound=1,
        flag_values=flag_values,
    )


def main(flag_values: flags.FlagValues):
    """Measures, prints the table, and writes the files."""
    arguments.run("start", measure, flag_values)


def measure(config, flag_values: flags.FlagValues) -> list[dict]:
    """Two rows, cold and warm; `first_step_s` is what of the median start training spends in its first step.

    Raises:
      ValueError: the run ends before its first step.
    """
    launch = os.path.join(ROOT, "launch.sh")
    if not os.path.isfile(launch):
        raise ValueError(f"{launch} is not there: start measures ./launch.sh train, so run it in a checkout")
    times = {"cold": [], "warm": []}
    for repeat in range(flag_values.repeats + 1):
        with tempfile.TemporaryDirectory() as directory:
            for kind in times if repeat else ("cold",):
                found = first_step(flag_values, launch, directory, kind)
                logging.info("%s, %s: %.1f s", f"start {repeat}" if repeat else "not counted", kind, found[0])
                if repeat:
                    times[kind].append(found)
    shared = {"size": config.data.size, "batch": config.train.batch_size, "by": "ours", "dtype": config.model.dtype}
    rows = []
    for kind, found in times.items():
        totals, steps = zip(*found, strict=True)
        row = {"what": f"start {kind}", **shared, "settings": f"./launch.sh train, {config.name}"}
        rows.append(row | report.times(list(totals)) | {"first_step_s": sorted(steps)[len(steps) // 2]})
    return rows


def first_step(flag_values: flags.FlagValues, launch: str, directory: str, name: str) -> tuple[float, float]:
    """Seconds until the first step of a run is done, and those of the step alone.

    Args:
      flag_values: parsed flags, of which --config and --malloc are used.
      launch: path of launch.sh.
      directory: the user's cache directory, and where the run `name` is written.
      name: of a run directory that is not there yet.
    """
    file = config_flags.get_config_filename(flag_values["config"])
    overrides = [argument for argument in sys.argv if argument.lstrip("-").startswith("config.")]
    command = [launch, "train", file, *overrides, f"--workdir={directory}/{name}"]
    ours = ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE", *workers.KEEP_MEMORY)
    variables = {name: value for name, value in os.environ.items() if name not in ours}
    variables |= {"PCONV_PYTHON": sys.executable, "PCONV_MALLOC": flag_values.malloc, "XDG_CACHE_HOME": directory}
    started = time.perf_counter()
    process = subprocess.Popen(command, env=variables, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    with contextlib.ExitStack() as stack:
        stack.callback(process.wait)
        stack.callback(process.kill)
        lines = []
        for line in process.stderr:
            lines.append(line)
            if match := FIRST_STEP.search(line):
                return time.perf_counter() - started, float(match[1])
    raise ValueError(f"the run ended before its first step: {''.join(lines[-3:]).strip()}")
