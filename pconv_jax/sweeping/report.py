"""The report of a sweep: Markdown, CSV and figures."""

import os

from pconv_jax.evaluation import intervals, tables
from pconv_jax.sweeping import comparison, pictures, plan, results
from pconv_jax.training import rundir

NAME = "report"

_HEADINGS = {"psnr": "PSNR, dB", "ssim": "SSIM", "l1_percent": "L1, %", "hole_psnr": "PSNR of the hole, dB"}


def write(sweep: plan.Plan, scores: comparison.Scores, failed: list[tuple[plan.Run, str]]) -> str:
    """Writes `report.md`, `report.csv`, `report_differences.csv`, `report_differences.png` and `report_curves.png`.

    The image grid `report_sheet.png` needs the networks and is written by the command.

    Args:
      sweep: the sweep.
      scores: its scores.
      failed: failed runs with their reasons, as far as they are known.

    Returns:
      The path of the Markdown file.
    """
    path = os.path.join(sweep.directory, NAME)
    rows = comparison.means(scores, sweep.variants)
    compared = comparison.differences(scores, sweep.variants)
    rundir.write_atomically(f"{path}.csv", tables.to_csv(rows))
    if compared:
        rundir.write_atomically(f"{path}_differences.csv", tables.to_csv(compared))
        rundir.write_atomically(f"{path}_differences.png", pictures.differences(sweep, scores, compared))
    rundir.write_atomically(f"{path}_curves.png", pictures.curves(sweep))
    rundir.write_atomically(f"{path}.md", markdown(sweep, scores, rows, compared, failed))
    return f"{path}.md"


def markdown(sweep: plan.Plan, scores: comparison.Scores, rows, compared, failed) -> str:
    """Formats the Markdown file.

    Args:
      sweep: the sweep.
      scores: its scores.
      rows: rows of `comparison.means`.
      compared: rows of `comparison.differences`.
      failed: failed runs with their reasons.

    Returns:
      The text of the file.
    """
    steps = sorted({run.steps for run in sweep.runs})
    text = [
        f"# {sweep.name}",
        "",
        f"{sweep.file}: {len(sweep.variants) - 1} variants and the baseline, {' or '.join(map(str, steps))} steps. "
        f"Every network is scored on the same {scores.fingerprint}.",
        *([f"Of its variants these were asked for: {', '.join(sweep.chosen)}."] if sweep.chosen else []),
        "",
        *_means(sweep, rows),
        *_differences(compared),
    ]
    lines = [f"- {line}" for line in unfinished(sweep, scores, failed).values()]
    text += ["## Not finished, and not in the tables", "", *lines, ""] if lines else []
    if sweep.left_out:
        text += ["## Left out", "", *(f"- {name}: {reason}" for name, reason in sweep.left_out.items()), ""]
    for picture, what in (("sheet", "The same images under every variant, first seed"), ("curves", "Learning curves")):
        text += [f"## {what}", "", f"![{what}]({NAME}_{picture}.png)", ""]
    return "\n".join(text)


def short(rows: list[dict]) -> str:
    """Formats the table of means for the screen, from rows of `comparison.means`."""
    return "\n".join(_table(rows, {}))


def _over_seeds(row, digits):
    if row["seeds_low"] is None:
        return "none (n = 1)"
    return f"[{row['seeds_low']:+.{digits}f}, {row['seeds_high']:+.{digits}f}]"


def unfinished(sweep: plan.Plan, scores: comparison.Scores, failed) -> dict[str, str]:
    """Describes each run that is not in the tables: why it failed, or its last step and the last line of its log.

    Args:
      sweep: the sweep.
      scores: its scores.
      failed: failed runs with their reasons.

    Returns:
      One line per run, by the name of the run.
    """
    reasons = {run.name: reason for run, reason in failed}
    lines = {}
    for index, run in enumerate(sweep.runs):
        if run.seed in scores.runs.get(run.variant, {}):
            continue
        if run.name in reasons:
            state = f"failed, {reasons[run.name]} (log: {run.log})"
        else:
            log = f"task {index} of the array, if there was one"  # SLURM names the logs of an array's tasks.
            if os.path.exists(run.log):
                log = f"its log {run.log} says: {results.last_error(run.log)}"
            state = f"at step {results.step(run)} of {run.steps}, {log}"
        lines[run.name] = f"{run.name}: {state}"
    return lines


def _means(sweep, rows):
    seeds = {len(row["seeds"].split()) for row in rows if row["seeds"]}
    interval_note = (
        f"in brackets the {intervals.LEVEL:.0%} Student interval over seeds (n = number of seeds)"
        if max(seeds) > 1
        else "one seed has no interval over seeds (n = 1)"
    )
    changes = {
        variant: ", ".join(f"{key}={value}" for key, value in changed.items())
        for variant, changed in sweep.changes.items()
    }
    head = f"Mean over seeds of the mean over examples; {interval_note}. Baselines without learning have no seed."
    return [f"## Scores\n\n{head}\n", *_table(rows, changes), ""]


def _table(rows, changes):
    """Formats one line per variant."""
    with_changes = bool(changes)
    head = ["variant", *(["changes"] if with_changes else []), "seeds", *_HEADINGS.values()]
    lines = [_line(head), _line(["---"] * len(head))]
    for row in rows:
        cells = [row["variant"], *([changes.get(row["variant"], "")] if with_changes else [])]
        cells.append(f"n={len(row['seeds'].split())}" if row["seeds"] else "")
        for metric in comparison.METRICS:
            digits, low, high = tables.DIGITS[metric], row[f"{metric}_low"], row[f"{metric}_high"]
            interval = "" if low is None else f" [{low:.{digits}f}, {high:.{digits}f}]"
            cells.append(f"{row[metric]:.{digits}f}{interval}")
        lines.append(_line(cells))
    return lines


def _differences(compared):
    if not compared:
        return ["No variant has a finished run with a seed of a finished baseline: no differences.", ""]
    examples = compared[0]["examples"]
    text = [
        "## Minus the baseline, paired by seed and by example",
        "",
        f"Over examples: n = {examples} examples, each the mean over the seeds that both have; {intervals.LEVEL:.0%} "
        "bootstrap interval, and p of the two-sided Wilcoxon signed-rank test, not corrected for the number of "
        "comparisons. It is about these networks on other crops and masks. Over seeds: Student's interval, n = number "
        "of seeds (none for one seed). It is about other trainings, and is the one to use for conclusions about a "
        "variant. The PSNR of the hole alone differs by the same number of dB, since valid pixels are equal.",
        "",
    ]
    head = ["variant", "seeds", "PSNR, dB, over examples", "PSNR, dB, over seeds"]
    others = ("ssim", "l1_percent")
    head += [f"{_HEADINGS[metric]}, over {what}" for metric in others for what in ("examples", "seeds")]
    text += [_line(head), _line(["---"] * len(head))]
    for variant in dict.fromkeys(row["variant"] for row in compared):
        by_metric = {row["metric"]: row for row in compared if row["variant"] == variant}
        cells = [variant, f"n={len(by_metric['psnr']['seeds'].split())}"]
        for metric in ("psnr", *others):
            digits = tables.DIGITS[metric]
            cells += [tables.difference_cell(by_metric[metric], digits), _over_seeds(by_metric[metric], digits)]
        text.append(_line(cells))
    return [*text, "", f"![Differences]({NAME}_differences.png)", ""]


def _line(cells):
    return "| " + " | ".join(cells) + " |"
