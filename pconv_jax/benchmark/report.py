"""What a benchmark hands over: rows of times, as a table, and as benchmark.csv, benchmark.json and benchmark.md.

A row is a dict. `what` was measured, at `size` pixels per side and `batch` examples, done `by` whom, in `dtype`, with
which `settings`; `compile_s` are the seconds that the first call took longer than the fastest; `min_s`, `median_s` and
`p90_s` seconds of wall time per batch, `cpu_min_s` and `cpu_median_s` of CPU time; images per second are those of the
medians; `peak_mib` is the largest memory, of the device or (on a CPU) resident in the process. `gflops` are the
operations that `operations` counts over the minimum, `share_of_peak` relative to what a large convolution reaches.
Keys that do not apply are absent; a subject may add others.
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

from pconv_jax.training import rundir

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
    """The columns of a row that come from repeated measurements of the same work.

    Args:
      wall: seconds of each repeat.
      cpu: seconds of CPU time of each repeat, all threads together; None if it was not measured.
      images: that each repeat made; None if the work is not counted in images.
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
    """A Markdown table of the columns that any row has; seconds as milliseconds, settings of all rows above it."""
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
    """A table in Markdown whose first line is its head, aligned for the eye."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    lines = [lines[0], ["-" * width for width in widths], *lines[1:]]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def machine() -> dict:
    """The processor, the cores that this process may use, and how busy they are with other things."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.platform(),
        "load": os.getloadavg()[0],
    }


def check(directory: str):
    """Raises ValueError if nothing can be written to a directory, before anything is measured."""
    if os.path.exists(directory) and not os.path.isdir(directory):
        raise ValueError(f"--out={directory} is a file; needs a directory")


def write(directory: str, rows: list[dict], where: dict, text: str | None = None):
    """Writes benchmark.csv and benchmark.json, and benchmark.md where there is a text.

    Args:
      directory: made if need be.
      rows: as above.
      where: `machine()` as it was before the measurements.
      text: the table in Markdown.
    """
    os.makedirs(directory, exist_ok=True)
    extra = sorted({name for row in rows for name in row} - set(COLUMNS))
    file = io.StringIO()
    writer = csv.DictWriter(file, [*COLUMNS, *extra], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    rundir.write_atomically(os.path.join(directory, "benchmark.csv"), file.getvalue())
    content = {"machine": where, "versions": versions(), "rows": rows}
    rundir.write_atomically(os.path.join(directory, "benchmark.json"), json.dumps(content, indent=2) + "\n")
    if text is not None:
        rundir.write_atomically(os.path.join(directory, "benchmark.md"), f"{origin(where)}\n\n{text}\n")


def versions() -> dict[str, str]:
    """Of the libraries, PyTorch among them where it is installed."""
    found = rundir.versions()
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        found["torch"] = importlib.metadata.version("torch")
    return found


def origin(where: dict) -> str:
    """A sentence about machine, date and command, to stand above a table."""
    of = versions()
    libraries = ", ".join(f"{name} {of[name]}" for name in ("jax", "jaxlib", "torch") if name in of)
    command = shlex.join(["python", "-m", "pconv_jax.benchmark", *sys.argv[1:]])
    return f"{where['processor']}, {where['cores']} cores, {libraries}, {time.strftime('%Y-%m-%d')}: `{command}`."


def check_marks(path: str, subject: str):
    """Raises ValueError unless a Markdown file has the two marks of a subject."""
    _between(path, subject)


def update(path: str, subject: str, text: str):
    """Puts a text between the marks `<!-- SUBJECT -->` and `<!-- /SUBJECT -->` of a Markdown file."""
    before, after = _between(path, subject)
    rundir.write_atomically(path, f"{before}\n{text}\n{after}")


def _between(path, subject):
    """What stands up to the first mark, and from the second on."""
    marks = f"<!-- {subject} -->", f"<!-- /{subject} -->"
    with open(path, encoding="utf-8") as file:
        content = file.read()
    start, end = (content.find(mark) for mark in marks)
    if not 0 <= start < end:
        raise ValueError(f"{path} lacks the lines {marks[0]} and {marks[1]}, between which the table goes")
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
