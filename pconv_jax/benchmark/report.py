"""Formats the rows of a benchmark as a Markdown table, and writes them as benchmark.csv, .json and .md.

A row is a dict with these keys; those that do not apply are absent, and a benchmark may add others.

- `what` was measured, at `size` pixels per side and `batch` examples, `by` which competitor, in which `dtype`, and with
  which `settings`, a text.
- `compile_s`: seconds that the first call took longer than the fastest one.
- `min_s`, `median_s`, `p90_s`: wall time per batch in seconds. `cpu_min_s`, `cpu_median_s`: CPU time likewise.
- `images_per_s`, `images_per_cpu_s`: rates at the medians.
- `peak_mib`: the largest device memory in MiB or, on a CPU, the largest resident memory of the process.
- `gflops`: the operations that `operations` counts, divided by the minimum; `share_of_peak`: that rate relative to the
  rate of a large convolution.
"""

import contextlib
import csv
import importlib.metadata
import io
import json
import os
import platform
import shlex
import sys
import time

import numpy as np

from pconv_jax import errors
from pconv_jax.training import rundir, versions

COLUMNS = (
    "what",
    "size",
    "batch",
    "by",
    "dtype",
    "settings",
    "compile_s",
    "min_s",
    "median_s",
    "p90_s",
    "cpu_min_s",
    "cpu_median_s",
    "images_per_s",
    "images_per_cpu_s",
    "peak_mib",
    "gflops",
    "share_of_peak",
)
DIGITS = {"compile_s": 1, "images_per_s": 1, "images_per_cpu_s": 1, "peak_mib": 0, "gflops": 1, "share_of_peak": 2}
NAMES = {"peak_mib": "peak MiB", "gflops": "GFLOP/s", "share_of_peak": "share of peak", "compile_s": "compile s"}


def times(wall: list[float], cpu: list[float] | None = None, images: int | None = None) -> dict[str, float]:
    """Summarises repeated measurements of the same work as entries of a row.

    Args:
      wall: wall time of each repeat in seconds.
      cpu: CPU time of each repeat in seconds, summed over threads; None if it was not measured.
      images: number of images per repeat; None if the work is not counted in images.
    """
    row = {"min_s": min(wall), "median_s": float(np.median(wall)), "p90_s": float(np.quantile(wall, 0.9))}
    if cpu is not None:
        row |= {"cpu_min_s": min(cpu), "cpu_median_s": float(np.median(cpu))}
    if images is not None:
        row["images_per_s"] = images / row["median_s"]
        if row.get("cpu_median_s"):
            row["images_per_cpu_s"] = images / row["cpu_median_s"]
    return row


def table(rows: list[dict]) -> str:
    """Returns a Markdown table of the columns that any row has.

    Times are given in milliseconds. Settings that are the same in all rows stand above the table.
    """
    names = [name for name in COLUMNS if any(row.get(name) is not None for row in rows)]
    settings = {row.get("settings") for row in rows}
    above = ""
    if len(settings) == 1 and "settings" in names:
        names.remove("settings")
        above = f"{settings.pop()}\n\n"
    lines = [[_heading(name) for name in names]]
    lines += [[_cell(name, row.get(name)) for name in names] for row in rows]
    return above + markdown(lines)


def markdown(lines: list[list[str]]) -> str:
    """Returns an aligned Markdown table of cells, whose first line is the head."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    lines = [lines[0], ["-" * width for width in widths], *lines[1:]]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def machine() -> dict:
    """Returns the processor's name, the number of cores that this process may use, the system, and the load average."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.platform(),
        "load": os.getloadavg()[0],
    }


def check(directory: str):
    """Checks that results can be written to a directory, before anything is measured.

    Raises:
      UserError: the path is a file.
    """
    if os.path.exists(directory) and not os.path.isdir(directory):
        raise errors.UserError(f"--out={directory} is a file; needs a directory")


def write(directory: str, rows: list[dict], machine_info: dict, text: str | None = None):
    """Writes benchmark.csv, benchmark.json and, if there is a text, benchmark.md.

    Args:
      directory: where the files are written; created if it does not exist.
      rows: see the module's docstring.
      machine_info: the result of `machine()` before the measurements.
      text: the table in Markdown.
    """
    os.makedirs(directory, exist_ok=True)
    extra = sorted({name for row in rows for name in row} - set(COLUMNS))
    file = io.StringIO()
    writer = csv.DictWriter(file, [*COLUMNS, *extra], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    rundir.write_atomically(os.path.join(directory, "benchmark.csv"), file.getvalue())
    content = {"machine": machine_info, "versions": installed_versions(), "rows": rows}
    rundir.write_atomically(os.path.join(directory, "benchmark.json"), json.dumps(content, indent=2) + "\n")
    if text is not None:
        rundir.write_atomically(os.path.join(directory, "benchmark.md"), f"{origin(machine_info)}\n\n{text}\n")


def installed_versions() -> dict[str, str]:
    """Returns the installed versions of the libraries by name, with that of PyTorch if it is installed."""
    installed = versions.libraries()
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        installed["torch"] = importlib.metadata.version("torch")
    return installed


def origin(machine_info: dict) -> str:
    """Returns a sentence with machine, library versions, date and command, to stand above a table."""
    installed = installed_versions()
    libraries = ", ".join(f"{name} {installed[name]}" for name in ("jax", "jaxlib", "torch") if name in installed)
    command = shlex.join(["python", "-m", "pconv_jax.benchmark", *sys.argv[1:]])
    hardware = f"{machine_info['processor']}, {machine_info['cores']} cores"
    return f"{hardware}, {libraries}, {time.strftime('%Y-%m-%d')}: `{command}`."


def check_marks(path: str, benchmark: str):
    """Checks that a Markdown file has the two marks between which a benchmark's table goes.

    Args:
      path: the Markdown file.
      benchmark: name of the benchmark.

    Raises:
      UserError: a mark is missing.
    """
    _around_marks(path, benchmark)


def update(path: str, benchmark: str, text: str):
    """Replaces what stands between the marks `<!-- BENCHMARK -->` and `<!-- /BENCHMARK -->` of a Markdown file.

    Args:
      path: the Markdown file.
      benchmark: name of the benchmark.
      text: the table.

    Raises:
      UserError: a mark is missing.
    """
    before, after = _around_marks(path, benchmark)
    rundir.write_atomically(path, f"{before}\n{text}\n{after}")


def _around_marks(path, benchmark):
    """Returns the text of the file up to the end of the first mark, and that from the second mark on."""
    marks = f"<!-- {benchmark} -->", f"<!-- /{benchmark} -->"
    with open(path, encoding="utf-8") as file:
        content = file.read()
    start, end = (content.find(mark) for mark in marks)
    if not 0 <= start < end:
        raise errors.UserError(f"{path} lacks the lines {marks[0]} and {marks[1]}, between which the table goes")
    return content[: start + len(marks[0])], content[end:]


def _seconds(name):
    return name.endswith("_s") and name not in DIGITS


def _heading(name):
    return NAMES.get(name) or (name.removesuffix("_s") + " ms" if _seconds(name) else name.replace("_per_", "/"))


def _cell(name, value):
    if value is None:
        return ""
    if _seconds(name):
        return f"{value * 1e3:.3f}"
    return f"{value:.{DIGITS.get(name, 1)}f}" if isinstance(value, float) else str(value)


def _processor():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
