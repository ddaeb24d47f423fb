"""Tables of scores by method, hole-area bucket and border, made from records alone, as JSON, CSV and Markdown."""

import csv
import io
import json
import os

import numpy as np

from pconv_jax.data import pipeline
from pconv_jax.evaluation import intervals, perceptual, references, scores
from pconv_jax.training import rundir

ALL = "all"
BORDERS = {ALL: "All holes", "off": "Holes off the border", "touching": "Holes that touch the border"}

TITLES = {
    "psnr": "PSNR, dB (higher is better)",
    "ssim": "SSIM (higher)",
    "l1_percent": "L1, % (lower)",
    "lpips": "LPIPS (lower)",
    "fid": "FID (lower)",
    "hole_psnr": "PSNR of the hole alone, dB (higher)",
    "raw_psnr": "PSNR of the raw output, dB (higher)",
}
DIGITS = {"psnr": 2, "ssim": 4, "l1_percent": 2, "lpips": 4, "fid": 2, "hole_psnr": 2, "raw_psnr": 2}
_FIRST = ("psnr", "ssim", "l1_percent", perceptual.LPIPS, perceptual.FID)  # The columns that papers report.
_MORE = ("hole_psnr", "raw_psnr")


def summarise(records: list[dict], fid: perceptual.Fid | None = None) -> list[dict]:
    """Computes means and their intervals by method, bucket and border, and over all examples.

    Args:
      records: records of `scores.score`.
      fid: measure that has seen the composites of the same methods, if FID was asked for.

    Returns:
      Rows with `method, bucket, border, count` and, for each metric, `<metric>, <metric>_low, <metric>_high`. The
      interval is None for a single example. With `fid`, rows have `fid` too, None where it is not defined.
    """
    rows, metrics = [], measured(records)
    for method, method_records in _by_method(records).items():
        values = _values(method_records)
        for bucket, border, members in _cells(method_records):
            row = {"method": method, "bucket": bucket_name(bucket), "border": border, "count": int(members.sum())}
            means = values[members].mean(axis=0)
            low, high = intervals.bootstrap(values[members]) if row["count"] > 1 else ([None] * len(means),) * 2
            for name, *triple in zip(metrics, means, low, high, strict=True):
                keys = (name, f"{name}_low", f"{name}_high")
                row |= {key: x if x is None else float(x) for key, x in zip(keys, triple, strict=True)}
            rows.append(row if fid is None else row | {perceptual.FID: fid.distance(method, members)})
    return rows


def measured(records: list[dict]) -> tuple[str, ...]:
    """Returns the metrics that the records have."""
    return tuple(name for name in (*scores.METRICS, perceptual.LPIPS) if records and name in records[0])


def compare(records: list[dict]) -> list[dict]:
    """Compares the first method with each of the others on the same examples.

    Returns:
      Rows with `method, other, bucket, metric, count` and the `difference, low, high, p` of `intervals.paired`.

    Raises:
      ValueError: the methods were not scored on the same examples.
    """
    rows, methods = [], _by_method(records)
    first, *others = methods
    names = [record["name"] for record in methods[first]]
    for other in others:
        if [record["name"] for record in methods[other]] != names:
            raise ValueError(f"{first} and {other} were scored on different examples: they cannot be paired")
        mine, theirs = _values(methods[first]), _values(methods[other])
        for bucket, border, members in _cells(methods[first]):
            if border != ALL:
                continue
            for column, metric in enumerate(measured(records)):
                paired = intervals.paired(mine[members, column], theirs[members, column])
                row = {"method": first, "other": other, "bucket": bucket_name(bucket), "metric": metric}
                row |= {"count": int(members.sum()), "difference": paired.difference}
                rows.append(row | {"low": paired.low, "high": paired.high, "p": paired.p})
    return rows


def bucket_name(bucket: int | str) -> str:
    """Returns the name of a bucket, such as "(10%, 20%]" for bucket 1."""
    if bucket == ALL:
        return ALL
    low, high = pipeline.BUCKETS[bucket]
    return f"({low:.0%}, {high:.0%}]"


def markdown(rows: list[dict], metrics=_FIRST, border: str = ALL, with_intervals: bool = False) -> str:
    """Formats one Markdown table per metric: a line per method, a column per bucket, counts in the header.

    Args:
      rows: rows of `summarise`.
      metrics: metrics to show; those without values are left out, and so are empty buckets.
      border: one of `BORDERS`.
      with_intervals: whether cells show the interval.

    Returns:
      The tables, each followed by an empty line.
    """
    rows = [row for row in rows if row["border"] == border]
    text = []
    for metric in metrics:
        counts = {row["bucket"]: row["count"] for row in rows if row.get(metric) is not None}
        if not counts:
            continue
        text.append(f"| {TITLES[metric]} | " + " | ".join(f"{bucket} n={n}" for bucket, n in counts.items()) + " |")
        text.append("|---" * (len(counts) + 1) + "|")
        for method in dict.fromkeys(row["method"] for row in rows):
            by_bucket = {row["bucket"]: row for row in rows if row["method"] == method}
            cells = [_cell(by_bucket[b], metric, with_intervals) if b in by_bucket else "" for b in counts]
            text.append(f"| {method} | " + " | ".join(cells) + " |")
        text.append("")
    return "\n".join(text)


def markdown_compared(rows: list[dict], metric: str) -> str:
    """Formats the differences in one metric as a Markdown table: a line per other method, a column per bucket.

    Args:
      rows: rows of `compare`.
      metric: the metric.

    Returns:
      The table, or "" if there are no differences in this metric.
    """
    rows = [row for row in rows if row["metric"] == metric]
    if not rows:
        return ""
    counts = {row["bucket"]: row["count"] for row in rows}
    text = [
        f"| {TITLES[metric]}: {rows[0]['method']} minus | " + " | ".join(f"{b} n={n}" for b, n in counts.items()) + " |"
    ]
    text.append("|---" * (len(counts) + 1) + "|")
    for other in dict.fromkeys(row["other"] for row in rows):
        by_bucket = {row["bucket"]: row for row in rows if row["other"] == other}
        cells = [difference_cell(by_bucket[bucket], DIGITS[metric]) for bucket in counts]
        text.append(f"| {other} | " + " | ".join(cells) + " |")
    return "\n".join([*text, ""])


def markdown_references(metric: str) -> str:
    """Formats published scores in one metric as a Markdown table, each line with the data it was measured on."""
    names = [bucket_name(bucket) for bucket in range(len(pipeline.BUCKETS))]
    text = [f"| {TITLES[metric]} | data | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    for reference in references.PUBLISHED:
        if reference.metric == metric:
            digits = min(3, DIGITS[metric])  # SSIM was published with three digits.
            cells = [f"{reference.values[b]:.{digits}f}" if b in reference.values else "" for b in range(len(names))]
            text.append(f"| {reference.source} | {reference.data} | " + " | ".join(cells) + " |")
    return "\n".join([*text, ""])


def report(
    title: str, rows: list[dict], compared: list[dict], with_references: bool, notes: tuple[str, ...] = ()
) -> str:
    """Formats the Markdown file: the short table with its notes, then all tables with intervals.

    Args:
      title: heading of the file.
      rows: rows of `summarise`.
      compared: rows of `compare`.
      with_references: whether to append published scores.
      notes: remarks below the short table.

    Returns:
      The text of the file.
    """
    text = [f"# {title}", "", markdown(rows), *(f"{note}\n" for note in notes)]
    for border, heading in BORDERS.items():
        if any(row["border"] == border for row in rows):
            text += [f"## {heading}, with {intervals.LEVEL:.0%} bootstrap intervals", ""]
            text.append(markdown(rows, (*_FIRST, *_MORE) if border == ALL else _FIRST, border, with_intervals=True))
    if compared:
        text += ["## Differences on the same examples, with intervals", ""]
        text += ["p: two-sided Wilcoxon signed-rank test, not corrected for the number of comparisons.", ""]
        tables = (markdown_compared(compared, metric) for metric in _FIRST)
        text += [table for table in tables if table]
    if with_references:
        text += ["## Published, on other images, sizes and masks: not to be compared with the rows above", ""]
        text += [markdown_references(metric) for metric in ("psnr", "ssim")]
    return "\n".join(text)


def write(
    directory: str,
    name: str,
    title: str,
    records: list[dict],
    about: dict,
    with_references: bool = False,
    fid: perceptual.Fid | None = None,
    notes: tuple[str, ...] = (),
):
    """Writes the tables of an evaluation.

    The files are `<name>.json` (provenance, rows, records), `<name>.csv` (rows), `<name>_examples.csv` (records),
    `<name>.md`, and `<name>_compared.csv` if there is more than one method.

    Args:
      directory: directory to write to; it is made if it is absent.
      name: start of the file names.
      title: heading of the Markdown file.
      records: records of `scores.score`.
      about: provenance for the JSON file.
      with_references: whether the Markdown file ends with published scores.
      fid: measure that has seen the composites of the same methods, if FID was asked for.
      notes: remarks below the short table.

    Returns:
      `(rows, compared)`, the results of `summarise` and `compare`.

    Raises:
      OSError: A file cannot be written.
    """
    rows, compared = summarise(records, fid), compare(records)
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, name)
    content = {**about, "rows": rows, "compared": compared, "records": records}
    rundir.write_atomically(f"{path}.json", json.dumps(content, indent=1) + "\n")
    for suffix, table in (("", rows), ("_examples", records), ("_compared", compared)):
        if table:
            rundir.write_atomically(f"{path}{suffix}.csv", to_csv(table))
    rundir.write_atomically(f"{path}.md", report(title, rows, compared, with_references, notes))
    return rows, compared


def _by_method(records):
    methods = {}
    for record in records:
        methods.setdefault(record["method"], []).append(record)
    return methods


def _values(records):
    """Returns the scores as an array `[examples, metrics]`."""
    return np.array([[record[name] for name in measured(records)] for record in records], np.float64)


def _cells(records):
    """Yields `(bucket, border, members)` of every cell that is not empty; `members` is bool `[records]`."""
    buckets = np.array([-1 if record["bucket"] is None else record["bucket"] for record in records])
    touching = np.array([record["touches_border"] for record in records])
    everywhere = np.ones(len(records), bool)
    for bucket in [*range(len(pipeline.BUCKETS)), ALL]:
        for border, here in zip(BORDERS, (everywhere, ~touching, touching), strict=True):
            members = here & (everywhere if bucket == ALL else buckets == bucket)
            if members.any():
                yield bucket, border, members


def _cell(row, metric, with_interval):
    digits, low, high = DIGITS[metric], row.get(f"{metric}_low"), row.get(f"{metric}_high")
    text = f"{row[metric]:.{digits}f}"
    return f"{text} [{low:.{digits}f}, {high:.{digits}f}]" if with_interval and low is not None else text


def difference_cell(row: dict, digits: int) -> str:
    """Formats the difference, its interval and p of a row of `compare`.

    Args:
      row: row of `compare`.
      digits: decimal places of the difference and of the interval.

    Returns:
      For example "+0.66 [+0.38, +0.94] p=0.002".
    """
    interval = "" if row["low"] is None else f" [{row['low']:+.{digits}f}, {row['high']:+.{digits}f}]"
    return f"{row['difference']:+.{digits}f}{interval} p={row['p']:.1g}"


def to_csv(rows: list[dict]) -> str:
    """Formats rows with the same keys as CSV with a header."""
    table = io.StringIO()
    writer = csv.DictWriter(table, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue()
