"""Tables of scores: per method and hole-area bucket, as JSON, CSV and Markdown, made from the records alone."""

import csv
import io
import json
import os

import numpy as np

from pconv_jax.data import pipeline
from pconv_jax.evaluation import scores
from pconv_jax.training import rundir

ALL = "all"


def summarise(records: list[dict]) -> list[dict]:
    """Means per method and bucket, and over all: rows of `method, bucket, count, l1_percent, psnr, ssim`."""
    rows = []
    for method in dict.fromkeys(record["method"] for record in records):
        of_method = [record for record in records if record["method"] == method]
        for bucket in [*range(len(pipeline.BUCKETS)), ALL]:
            members = [r for r in of_method if bucket in (ALL, r["bucket"])]
            if members:
                means = {name: float(np.mean([r[name] for r in members])) for name in scores.METRICS}
                rows.append({"method": method, "bucket": bucket_name(bucket), "count": len(members), **means})
    return rows


def bucket_name(bucket: int | str) -> str:
    """1 -> "(10%, 20%]"."""
    if bucket == ALL:
        return ALL
    low, high = pipeline.BUCKETS[bucket]
    return f"({low:.0%}, {high:.0%}]"


def markdown(rows: list[dict]) -> str:
    """One table per metric: a line per method, a column per bucket, the counts in the header."""
    titles = {"psnr": "PSNR, dB (higher is better)", "ssim": "SSIM (higher)", "l1_percent": "L1, % (lower)"}
    digits = {"psnr": 2, "ssim": 4, "l1_percent": 2}
    counts = {row["bucket"]: row["count"] for row in rows}
    text = []
    for metric, title in titles.items():
        text.append(f"| {title} | " + " | ".join(f"{bucket} n={n}" for bucket, n in counts.items()) + " |")
        text.append("|---" * (len(counts) + 1) + "|")
        for method in dict.fromkeys(row["method"] for row in rows):
            values = {row["bucket"]: row[metric] for row in rows if row["method"] == method}
            cells = [f"{values[bucket]:.{digits[metric]}f}" if bucket in values else "" for bucket in counts]
            text.append(f"| {method} | " + " | ".join(cells) + " |")
        text.append("")
    return "\n".join(text)


def write(directory: str, name: str, records: list[dict], about: dict):
    """Writes `<name>.json` (`about`, the rows, every record), `<name>.csv` (the rows) and `<name>.md`."""
    rows = summarise(records)
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, name)
    content = {**about, "rows": rows, "records": records}
    rundir.write_atomically(f"{path}.json", json.dumps(content, indent=1) + "\n")
    table = io.StringIO()
    writer = csv.DictWriter(table, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    rundir.write_atomically(f"{path}.csv", table.getvalue())
    rundir.write_atomically(f"{path}.md", markdown(rows))
