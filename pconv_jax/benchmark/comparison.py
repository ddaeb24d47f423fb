"""How many times as long others take, from rows of the same work by several opponents."""

from pconv_jax.benchmark import operations, report

OURS, BF16 = "ours", "_bf16"


def show(rows: list[dict]) -> str:
    """The table of all rows and, with an opponent, the ratios above it."""
    compared = ratios(rows)
    return f"{compared}\n\n{report.table(rows)}" if compared else report.table(rows)


def ratios(rows: list[dict]) -> str:
    """Markdown: time of the other / our time by the minimum, by the median in brackets; memory ours / theirs.

    An opponent in bfloat16 is compared with ours in bfloat16, where that was measured.
    """
    all_of_them = dict.fromkeys(row["by"] for row in rows)
    others = [name for name in all_of_them if name not in (OURS, OURS + BF16)]
    half = OURS + BF16 in all_of_them
    work = dict.fromkeys(_work(row) for row in rows if row["what"] != operations.LARGE.name)
    if not others:
        return ""
    names = [name.replace("_", " ") for name in others]
    told = [name for name in others if any(row["by"] == name and "peak_mib" in row for row in rows)]
    of_memory = [f"memory, ours / {name.replace('_', ' ')}" for name in told]
    if half:
        names = [f"{name} / ours bf16" if name.endswith("bf16") else name for name in names]
    lines = [["time of the other / ours", "ours ms", *(["ours bf16 ms"] if half else []), *names, *of_memory]]
    for key in work:
        by = {row["by"]: row for row in rows if _work(row) == key}
        ours = by[OURS]
        cells = [f"{key[0]}, {key[1]} px, batch {key[2]}", _milliseconds(ours)]
        cells += [_milliseconds(by.get(OURS + BF16))] if half else []
        cells += [
            _times(by.get(other), by.get(OURS + BF16, ours) if other.endswith(BF16) else ours) for other in others
        ]
        lines.append(cells + [_memory(by.get(other, {}), ours) for other in told])
    return report.markdown(lines)


def _work(row):
    return row["what"], row["size"], row["batch"]


def _milliseconds(row):
    return f"{row['min_s'] * 1e3:.0f} ({row['median_s'] * 1e3:.0f})" if row else ""


def _times(other, ours):
    if other is None:
        return ""
    return f"{other['min_s'] / ours['min_s']:.2f} ({other['median_s'] / ours['median_s']:.2f})"


def _memory(other, ours):
    return f"{ours['peak_mib'] / other['peak_mib']:.2f}" if "peak_mib" in other else ""
