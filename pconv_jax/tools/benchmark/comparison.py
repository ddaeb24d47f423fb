"""How many times as long others take, from rows of the same work by several opponents."""

from pconv_jax.tools.benchmark import operations, report

OURS = "ours"


def show(rows: list[dict]) -> str:
    """The table of all rows and, with an opponent, the ratios above it."""
    compared = ratios(rows)
    return f"{compared}\n\n{report.table(rows)}" if compared else report.table(rows)


def ratios(rows: list[dict]) -> str:
    """Markdown: time of the other / our time by the minimum, by the median in brackets; memory ours / theirs."""
    others = list(dict.fromkeys(row["by"] for row in rows if row["by"] != OURS))
    work = dict.fromkeys(_work(row) for row in rows if row["what"] != operations.LARGE.name)
    if not others:
        return ""
    names = [name.replace("_", " ") for name in others]
    told = [name for name in others if any(row["by"] == name and "peak_mib" in row for row in rows)]
    of_memory = [f"memory, ours / {name.replace('_', ' ')}" for name in told]
    lines = [["time of the other / ours", "ours ms", *names, *of_memory]]
    for key in work:
        by = {row["by"]: row for row in rows if _work(row) == key}
        ours = by[OURS]
        cells = [f"{key[0]}, {key[1]} px, batch {key[2]}", f"{ours['min_s'] * 1e3:.0f} ({ours['median_s'] * 1e3:.0f})"]
        cells += [_times(by.get(other), ours) for other in others]
        lines.append(cells + [_memory(by.get(other, {}), ours) for other in told])
    return report.markdown(lines)


def _work(row):
    return row["what"], row["size"], row["batch"]


def _times(other, ours):
    if other is None:
        return ""
    return f"{other['min_s'] / ours['min_s']:.2f} ({other['median_s'] / ours['median_s']:.2f})"


def _memory(other, ours):
    return f"{ours['peak_mib'] / other['peak_mib']:.2f}" if "peak_mib" in other else ""
