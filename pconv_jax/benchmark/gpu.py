"""Measures everything that matters on a GPU within some minutes, by one command.

    python -m pconv_jax.benchmark gpu --minutes=4 --out=runs/gpu [--data=DIR]

The parts, in this order: a training step in bfloat16, and the longest operations in its profile; the same step by
PyTorch with AMP and channels_last, where it is installed, without and with torch.compile; a training run on the
photographs of --data, with its score per minute; steps and forward passes over sizes, batches and dtypes, first those
that differ from the first step in one respect; the rate of the input pipeline. Each part has a time limit. A part that
fails is recorded, and the others go on. Results are written after each part: results.jsonl has them as they come.

`share_of_peak` is relative to the dense bfloat16 peak of the card (`cards`), whatever the dtype of the row.
"""

import functools
import importlib.util
import itertools
import json
import os
import time
from collections.abc import Callable

from absl import flags, logging

from pconv_jax import errors
from pconv_jax.benchmark import arguments, gpu_parts, report

WORKS = ("train full", "forward", "train L1")
LEAST_SECONDS = 5.0  # A part that has less is not started.
# The largest share of all time that a part may take.
SHARES = {"case": 0.35, "torch": 0.25, "training": 0.25, "input": 0.1}


def define_flags(flag_values: flags.FlagValues):
    """Adds the flags of `python -m pconv_jax.benchmark gpu`."""
    arguments.define(flag_values, sizes="256,512", batches="16,6,64", steps=20)
    arguments.define_torch(flag_values)
    flags.DEFINE_float("minutes", 4.0, "Time for all parts together.", lower_bound=0.1, flag_values=flag_values)
    known = ", ".join(gpu_parts.DTYPES)
    flags.DEFINE_list("dtypes", list(gpu_parts.DTYPES), f"Some of {known}.", flag_values=flag_values)
    about = "Folder of photographs, for the training run and for the input pipeline."
    flags.DEFINE_string("data", None, about, flag_values)
    about = "Further flags of the training run, e.g. '--config.data.workers=14'."
    flags.DEFINE_string("train_flags", "", about, flag_values)


def main(flag_values: flags.FlagValues):
    """Measures all parts, prints the tables, and writes results.jsonl, benchmark.md, benchmark.csv and benchmark.json.

    Raises:
      UserError: a flag does not fit, or the config cannot be measured.
    """
    out = flag_values.out or os.path.join("runs", "gpu")
    report.check(out)
    if flag_values.update:
        report.check_marks(flag_values.update, "gpu")
    planned, machine = parts(flag_values, out), report.machine() | {"malloc": flag_values.malloc}
    rows = run(planned, 60 * flag_values.minutes, functools.partial(_write, out, machine))
    print(show(rows))
    if flag_values.update:
        report.update(flag_values.update, "gpu", f"{report.origin(machine)}\n\n{show(rows)}")


def parts(flag_values: flags.FlagValues, out: str) -> list[tuple[str, dict, Callable[[float], list[dict]]]]:
    """Returns the parts of the benchmark in their order.

    Args:
      flag_values: parsed flags.
      out: directory of the results; the training run goes to its subdirectory `training`.

    Returns:
      For each part `(share, row, call)`: a key of `SHARES`, a row that names the part, and a function that takes the
      limit in seconds and returns the rows with results.

    Raises:
      UserError: a flag does not fit, or the config cannot be measured.
    """
    sizes, batches = (arguments.integers(flag_values, name) for name in ("sizes", "batches"))
    first, *others = cases(flag_values.config, sizes, batches, flag_values.dtypes)
    step = functools.partial(gpu_parts.step, flag_values)
    planned = [("case", first, functools.partial(step, first, profiled=True))]
    if importlib.util.find_spec("torch") is not None:
        for by, compiled in gpu_parts.TORCH_COMPILE.items():
            torch = {**first, "by": by, "dtype": "bfloat16"}
            if flag_values.torch_compile or compiled == "no":
                planned.append(("torch", torch, functools.partial(step, torch)))
    if flag_values.data:
        training = functools.partial(
            gpu_parts.training, flag_values.data, os.path.join(out, "training"), flag_values.train_flags
        )
        planned.append(("training", {"what": "training"}, training))
    planned += [("case", case, functools.partial(step, case)) for case in others]
    input_rate = functools.partial(gpu_parts.input_rate, flag_values.data, first["size"], os.path.join(out, "input"))
    return [*planned, ("input", {"what": "pipeline"}, input_rate)]


def cases(config, sizes: list[int], batches: list[int], dtypes: list[str]) -> list[dict]:
    """Returns the rows that name the cases, without results: first those with the fewest differences from the first.

    Args:
      config: experiment config.
      sizes: pixels per side; as of the following, the first value is that of the first case.
      batches: examples per step.
      dtypes: keys of `gpu_parts.DTYPES`.

    Raises:
      UserError: a dtype is unknown, or the config does not work at a size.
    """
    if not dtypes or set(dtypes) - gpu_parts.DTYPES.keys():
        raise errors.UserError(f"--dtypes={','.join(dtypes)}; needs some of {', '.join(gpu_parts.DTYPES)}")
    for size, batch in itertools.product(sizes, batches):
        arguments.sized(config, size, batch)
    values = list(itertools.product(WORKS, sizes, batches, dtypes))
    values = sorted(values, key=lambda value: sum(a != b for a, b in zip(value, values[0], strict=True)))
    return [
        {"what": work, "size": size, "batch": batch, "by": "ours", "dtype": dtype}
        for work, size, batch, dtype in values
    ]


def run(planned: list, seconds: float, write: Callable[[list[dict], list[dict]], None]) -> list[dict]:
    """Runs the parts one after another until the time is over.

    Args:
      planned: see `parts`.
      seconds: time for all parts together.
      write: called after each part with its rows and with all rows so far.

    Returns:
      The rows of all parts. A part that failed or was not started has the row that names it, with `failed`, the reason.
    """
    rows, end = [], time.monotonic() + seconds
    for share, row, call in planned:
        limit = min(SHARES[share] * seconds, end - time.monotonic())
        title = " ".join(str(value) for value in row.values())
        try:
            if limit < LEAST_SECONDS:
                raise errors.UserError("no time was left")
            logging.info("%s: at most %.0f s", title, limit)
            added = call(limit)
        except Exception as error:  # Time on a GPU is too short to lose the other parts, whatever this one raises.
            reason = str(error).strip().partition("\n")[0][:300]
            if not isinstance(error, errors.UserError):
                reason = f"{type(error).__name__}: {reason}"
            added = [{**row, "failed": reason}]
            logging.info("%s: %s", title, added[0]["failed"])
        rows += added
        write(added, rows)
    return rows


def show(rows: list[dict]) -> str:
    """Returns Markdown tables of the steps, of the longest operations, and of the training's scores; then what failed.

    Args:
      rows: the rows that `run` returns.
    """
    measured = [row for row in rows if "failed" not in row]
    operations = [row for row in measured if row["what"] == "operation"]
    scores = [row for row in measured if row["what"] == "training"]
    others = [row for row in measured if row["what"] not in ("operation", "training")]
    cards = {row["device"]: row.get("peak_tflops") for row in others if "device" in row}
    texts = [
        f"{name}: dense bfloat16 peak {f'{peak:g} TFLOP/s' if peak else 'unknown'}" for name, peak in cards.items()
    ]
    texts += [report.table(others)] if others else []
    if operations:
        lines = [["operation", "from", "ms per step", "share"]]
        for row in operations:
            lines.append([row["operation"], row["source"], f"{1e3 * row['min_s']:.3f}", f"{row['share']:.3f}"])
        texts.append(report.markdown(lines))
    if scores:
        lines = [["minutes", "step", "PSNR dB"]]
        lines += [[f"{row['minutes']:.2f}", str(row["step"]), f"{row['psnr']:.2f}"] for row in scores]
        texts.append(report.markdown(lines))
    failed = [row for row in rows if "failed" in row]
    texts.append("\n".join(f"- not measured: {_name(row)}: {row['failed']}" for row in failed))
    return "\n\n".join(text for text in texts if text)


def _name(row):
    return " ".join(str(row[key]) for key in ("what", "size", "batch", "by", "dtype") if key in row)


def _write(out, machine, added, rows):
    """Appends the new rows to results.jsonl, and writes the other files anew."""
    os.makedirs(out, exist_ok=True)
    with open(os.path.join(out, "results.jsonl"), "a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in added)
    report.write(out, rows, machine, show(rows))
