"""What a benchmark hands over: rows of times, as a table, and as benchmark.csv and benchmark.json.

A row is a dict. `what` was measured, at `size` pixels per side and `batch` examples, done `by` whom, with which
`settings`; `min_s`, `median_s` and `p90_s` are seconds of wall time per batch, `cpu_min_s` and `cpu_median_s` seconds
of CPU time; the rates are those of the medians. Keys that do not apply are absent; a subject may add others.
"""

import csv
import io
import json
import os
import platform

import numpy as np

from pconv_jax.training import rundir

COLUMNS = (
    "what",
    "size",
    "batch",
    "by",
    "settings",
    "min_s",
    "median_s",
    "p90_s",
    "cpu_min_s",
    "cpu_median_s",
    "images_per_s",
    "images_per_cpu_s",
)


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
    lines = [[name.removesuffix("_s") + " ms" if _seconds(name) else name.replace("_per_", "/") for name in names]]
    lines += [[_cell(name, row.get(name)) for name in names] for row in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(names))]
    lines.insert(1, ["-" * width for width in widths])
    return above + "\n".join(
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


def write(directory: str, rows: list[dict], where: dict):
    """Writes benchmark.csv and benchmark.json; `where` is `machine()` as it was before the measurements."""
    os.makedirs(directory, exist_ok=True)
    extra = sorted({name for row in rows for name in row} - set(COLUMNS))
    text = io.StringIO()
    writer = csv.DictWriter(text, [*COLUMNS, *extra], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    rundir.write_atomically(os.path.join(directory, "benchmark.csv"), text.getvalue())
    content = {"machine": where, "versions": rundir.versions(), "rows": rows}
    rundir.write_atomically(os.path.join(directory, "benchmark.json"), json.dumps(content, indent=2) + "\n")


def _seconds(name):
    return name.endswith("_s") and "_per_" not in name


def _cell(name, value):
    if value is None:
        return ""
    if _seconds(name):
        return f"{value * 1e3:.3f}"
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _processor():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
