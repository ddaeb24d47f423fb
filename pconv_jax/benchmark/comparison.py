"""Compares the rows of several competitors that did the same work: a table of ratios of time and memory."""

from pconv_jax.benchmark import operations, report

OURS, BF16 = "ours", "_bf16"


def show(rows: list[dict]) -> str:
    """Returns the Markdown table of all rows and, if there are other competitors, the table of ratios above it."""
    compared = ratios(rows)
    return f"{compared}\n\n{report.table(rows)}" if compared else report.table(rows)


def ratios(rows: list[dict]) -> str:
    """Returns a Markdown table of the other competitors' time divided by ours, and of our memory divided by theirs.

    A ratio of times is that of the minima, with that of the medians in brackets. A competitor in bfloat16 is compared
    with this package in bfloat16 where that was measured.

    Args:
      rows: see `report`. Rows of the large convolution are left out.

    Returns:
      One line per work, size and batch; the empty string if nobody but us was measured.
    """
    names = dict.fromkeys(row["by"] for row in rows)
    others = [name for name in names if name not in (OURS, OURS + BF16)]
    with_bf16 = OURS + BF16 in names
    if not others:
        return ""
    with_memory = [name for name in others if any(row["by"] == name and "peak_mib" in row for row in rows)]
    titles = [name.replace("_", " ") for name in others]
    if with_bf16:
        titles = [f"{title} / ours bf16" if title.endswith("bf16") else title for title in titles]
    titles += [f"memory, ours / {name.replace('_', ' ')}" for name in with_memory]
    lines = [["time of the other / ours", "ours ms", *(["ours bf16 ms"] if with_bf16 else []), *titles]]
    for work in dict.fromkeys(_work(row) for row in rows if row["what"] != operations.LARGE.name):
        by = {row["by"]: row for row in rows if _work(row) == work}
        ours = by[OURS]
        cells = [f"{work[0]}, {work[1]} px, batch {work[2]}", _milliseconds(ours)]
        cells += [_milliseconds(by.get(OURS + BF16))] if with_bf16 else []
        cells += [
            _time_ratio(by.get(other), by.get(OURS + BF16, ours) if other.endswith(BF16) else ours) for other in others
        ]
        lines.append(cells + [_memory_ratio(by.get(other, {}), ours) for other in with_memory])
    return report.markdown(lines)


def _work(row):
    return row["what"], row["size"], row["batch"]


def _milliseconds(row):
    return f"{row['min_s'] * 1e3:.0f} ({row['median_s'] * 1e3:.0f})" if row else ""


def _time_ratio(other, ours):
    if other is None:
        return ""
    return f"{other['min_s'] / ours['min_s']:.2f} ({other['median_s'] / ours['median_s']:.2f})"


def _memory_ratio(other, ours):
    return f"{ours['peak_mib'] / other['peak_mib']:.2f}" if "peak_mib" in other else ""
