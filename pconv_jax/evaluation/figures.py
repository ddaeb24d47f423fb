"""Figures of an evaluation: PSNR over hole area, and error maps of the best, the median and the worst example."""

import io

import cv2
import matplotlib.figure
import numpy as np

from pconv_jax.evaluation import image_grids, inputs, tables

_FULL = 64  # Mean absolute error, in grey levels, from which on the error map has its brightest colour.


def psnr_over_area(records: list[dict], rows: list[dict]) -> bytes:
    """Draws one line per method through the buckets' mean PSNR at their mean hole area, with 95 % intervals.

    Args:
      records: records of `scores.score`.
      rows: rows of `tables.summarise`.

    Returns:
      The bytes of a PNG.
    """
    # A Figure without pyplot needs no display.
    figure = matplotlib.figure.Figure(figsize=(7.5, 4.8), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    methods = list(dict.fromkeys(record["method"] for record in records))
    for number, method in enumerate(methods):
        cells = [r for r in rows if r["method"] == method and r["border"] == tables.ALL and r["bucket"] != tables.ALL]
        areas = [_mean_area(records, method, row["bucket"]) for row in cells]
        means = np.array([row["psnr"] for row in cells])
        lows, highs = (
            np.array([row["psnr"] if row[key] is None else row[key] for row in cells])
            for key in ("psnr_low", "psnr_high")
        )
        # The methods are shifted sideways so that their intervals do not hide each other.
        areas = np.array(areas) * 100 + 0.35 * (number - (len(methods) - 1) / 2)
        axes.errorbar(areas, means, (means - lows, highs - means), marker="o", markersize=4, capsize=2, label=method)
    axes.set(xlabel="hole area, % of the image", ylabel="PSNR of the composite, dB")
    axes.grid(alpha=0.3)
    axes.legend()
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def chosen(records: list[dict]) -> list[tuple[str, int]]:
    """Returns `(label, index)` of the best, the median and the worst record of one method by PSNR."""
    order = sorted(range(len(records)), key=lambda index: (-records[index]["psnr"], index))
    return [("best", order[0]), ("median", order[len(order) // 2]), ("worst", order[-1])]


def errors(examples: list[inputs.Example], raw: np.ndarray, labels: list[str]) -> np.ndarray:
    """Draws an image grid with one row per example: masked, composite, error and original.

    Args:
      examples: the examples to show.
      raw: uint8 `[N, H, W, C]`, the predictions of a method for them.
      labels: labels of the rows.

    Returns:
      uint8 `[H, W, 3]`.
    """
    rows = []
    for example, output in zip(examples, raw, strict=True):
        filled = np.where(example.mask, example.image, output)
        masked = np.where(example.mask, example.image, 255).astype(np.uint8)
        rows.append([masked, filled, error_map(filled, example.image), example.image])
    return image_grids.grid(rows, columns=("masked", "composite", f"error (0 to {_FULL})", "original"), labels=labels)


def error_map(image: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Draws the mean absolute error over the channels, from black (no error) to bright (64 grey levels or more).

    Args:
      image: uint8 `[H, W, C]`.
      target: uint8 `[H, W, C]`.

    Returns:
      RGB, uint8 `[H, W, 3]`.
    """
    error = np.abs(image.astype(np.float32) - target).mean(axis=-1)
    level = np.round(np.clip(error / _FULL, 0, 1) * 255).astype(np.uint8)
    return cv2.cvtColor(cv2.applyColorMap(level, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)


def _mean_area(records, method, bucket):
    areas = [
        record["hole_area"]
        for record in records
        if record["method"] == method
        and record["bucket"] is not None
        and tables.bucket_name(record["bucket"]) == bucket
    ]
    return np.mean(areas)
