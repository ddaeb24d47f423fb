"""Figures of a sweep: differences to the baseline, learning curves, and the same images filled by every variant."""

import io

import matplotlib.figure
import matplotlib.ticker
import numpy as np

from pconv_jax.evaluation import image_grids, inputs, tables
from pconv_jax.sweeping import comparison, plan, results

_CURVES = {"eval_psnr": "PSNR of the composite, dB", "hole": "hole loss", "valid": "valid loss"}
_CHARACTER = 8  # Approximate width of a character in an image grid, in pixels.


def differences(sweep: plan.Plan, scores: comparison.Scores, rows: list[dict], metric: str = "psnr") -> bytes:
    """Draws each variant's difference to the baseline with its interval over examples, and a dot per seed.

    Args:
      sweep: the sweep.
      scores: scores of the sweep.
      rows: rows of `comparison.differences`.
      metric: one of `comparison.METRICS`.

    Returns:
      The bytes of a PNG.
    """
    rows = [row for row in rows if row["metric"] == metric]
    figure = matplotlib.figure.Figure(figsize=(7.5, 1.2 + 0.3 * len(rows)), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    colours = _colours(sweep)
    for place, row in enumerate(rows):
        low, high = (row["difference"] if row[key] is None else row[key] for key in ("low", "high"))
        errors = [[row["difference"] - low], [high - row["difference"]]]
        colour = colours[row["variant"]]
        axes.errorbar(row["difference"], place, xerr=errors, marker="|", markersize=12, capsize=3, color=colour)
        dots = comparison.seed_differences(scores, row["variant"], metric)
        axes.scatter(dots, [place] * len(dots), s=14, color=colour, alpha=0.6, linewidths=0)
    axes.axvline(0, color="black", linewidth=1)
    axes.set_yticks(range(len(rows)), [row["variant"] for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel(f"{tables.TITLES[metric].partition(' (')[0]}: minus the baseline (bar: over examples; dots: seeds)")
    axes.grid(alpha=0.3, axis="x")
    return _png(figure)


def curves(sweep: plan.Plan) -> bytes:
    """Draws PSNR and raw losses over the steps as a PNG, with a row of plots per group and the baseline in each.

    Thin lines are seeds and thick lines their means. Unfinished runs are drawn up to their last logged step.
    """
    logged = {variant: [] for variant in sweep.variants}
    for run in sweep.runs:
        logged[run.variant].append(results.metrics(run))
    size = (4.6 * len(_CURVES), 2.8 * len(sweep.groups))
    figure = matplotlib.figure.Figure(figsize=size, dpi=100, layout="constrained")
    axes = figure.subplots(len(sweep.groups), len(_CURVES), squeeze=False, sharex=True, sharey="col")
    colours = _colours(sweep)
    for row, (group, variants) in enumerate(sweep.groups.items()):
        for column, (name, title) in enumerate(_CURVES.items()):
            plot = axes[row, column]
            for variant in (plan.BASELINE, *variants):
                _curve(plot, [_series(lines, name) for lines in logged[variant]], variant, colours[variant])
            if name != "eval_psnr":
                plot.set_yscale("log")
                plot.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
                plot.yaxis.set_major_formatter("{x:g}")
                plot.yaxis.set_minor_formatter("")
            plot.set_title(f"{group}: {title}", fontsize=9)
            plot.grid(alpha=0.3, which="both")
        if axes[row, 0].lines:
            axes[row, 0].legend(fontsize=7)
    for plot in axes[-1]:
        plot.set_xlabel("step")
    return _png(figure)


def image_grid(examples: list[inputs.Example], outputs: dict[str, np.ndarray]) -> np.ndarray:
    """Draws an image grid with one row per example: masked, original, and the composite of each variant.

    Args:
      examples: the examples to show.
      outputs: by variant, the predictions of its network for them, uint8 `[N, H, W, C]`.

    Returns:
      uint8 `[H, W, 3]`.
    """
    rows = []
    for index, example in enumerate(examples):
        masked = np.where(example.mask, example.image, 255).astype(np.uint8)
        filled = [np.where(example.mask, example.image, output[index]) for output in outputs.values()]
        rows.append([masked, example.image, *filled])
    fits = max(image_grids.SHOWN_SIDE, examples[0].image.shape[1]) // _CHARACTER
    columns = ["masked", "original", *(name if len(name) <= fits else f"{name[: fits - 2]}.." for name in outputs)]
    return image_grids.grid(rows, columns=columns, labels=[f"{example.about['hole_area']:.0%}" for example in examples])


def _series(lines, name):
    """Returns `(steps, values)` of one metric in a log."""
    points = [(values["step"], values[name]) for values in lines if name in values]
    return np.array(points, np.float64).reshape(-1, 2).T


def _curve(axes, series, label, colour):
    """Draws thin lines, and their mean at each step over the lines that have a value there."""
    steps = np.unique(np.concatenate([s for s, _ in series])) if series else np.empty(0)
    if not steps.size:
        return
    if len(series) > 1:
        for own_steps, values in series:
            axes.plot(own_steps, values, color=colour, linewidth=0.5, alpha=0.5)
    means = [np.mean([values[own == step][-1] for own, values in series if step in own]) for step in steps]
    axes.plot(steps, means, color=colour, linewidth=1.5, label=label)


def _colours(sweep):
    """Returns black for the baseline, and the colours of the cycle for the variants of each group."""
    colours = {variant: f"C{place % 10}" for group in sweep.groups.values() for place, variant in enumerate(group)}
    return {plan.BASELINE: "black", **colours}


def _png(figure):
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()
