"""Reads what the runs of a sweep have written so far: scores, logged metrics, the last step and errors."""

import json
import os

from pconv_jax.sweeping import plan
from pconv_jax.training import rundir


def scores(run: plan.Run) -> dict | None:
    """Returns the content of `eval/last.json` of a finished run, and None for an unfinished one.

    Raises:
      UserError: the run directory belongs to another config.
    """
    if not os.path.exists(os.path.join(run.workdir, rundir.CONFIG)):
        return None
    rundir.check_config(run.workdir, run.config)
    try:
        with open(os.path.join(run.workdir, "eval", "last.json"), encoding="utf-8") as file:
            content = json.load(file)
        config, step = content["config"], content["step"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    expected = json.loads(json.dumps(run.config.to_dict()))
    return content if (config, step) == (expected, run.steps) else None


def metrics(run: plan.Run) -> list[dict]:
    """Reads the lines of `metrics.jsonl` up to the first incomplete one."""
    lines = []
    try:
        with open(os.path.join(run.workdir, "metrics.jsonl"), encoding="utf-8", errors="replace") as file:
            for line in file:
                values = json.loads(line)
                values["step"] + 0
                lines.append(values)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return lines


def step(run: plan.Run) -> int:
    """Returns the last step that a run has logged, 0 if there is none."""
    return max((values["step"] for values in metrics(run)), default=0)


def last_error(path: str, start: int = 0) -> str:
    """Returns the last line of a log that reports an error, or else its last line.

    Args:
      path: the log.
      start: offset in bytes from which on to search.
    """
    try:
        with open(path, "rb") as file:
            file.seek(start)
            text = file.read().decode(errors="replace")
    except OSError as error:
        return f"no log ({error.strerror})"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error:") or "Error: " in line]
    return (errors or lines or ["nothing was printed"])[-1]
