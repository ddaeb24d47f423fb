"""The report of an evaluation: tables and pictures, written at the end of training and by the command `evaluate`."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pconv_jax.evaluation import image_grids, inputs, perceptual, scores, tables
from pconv_jax.training import rundir


def write(
    path: str,
    title: str,
    records: list[dict[str, Any]],
    about: Mapping[str, Any],
    examples: Sequence[inputs.Example],
    fill: scores.Fill,
    *,
    grid_rows: int,
    with_figures: bool = False,
    with_references: bool = False,
    fid: perceptual.Fid | None = None,
    notes: Sequence[str] = (),
) -> tuple[list[dict], list[dict]]:
    """Writes the files of an evaluation and prints the short table.

    The files are `<path>.{json,csv,md,png}`, `<path>_examples.csv` and, with two methods or more,
    `<path>_compared.csv`; with figures also `<path>_psnr.png` and `<path>_errors.png`.

    Args:
      path: path of the files without their endings.
      title: heading of the tables, without the number of examples.
      records: result of `scores.score`, one record per method and example.
      about: provenance for the JSON file: step, config, hashes, versions.
      examples: the evaluation set that was scored.
      fill: the first method, whose results are shown in the pictures.
      grid_rows: number of examples in the image grid.
      with_figures: whether to draw PSNR over hole area and the error maps, which needs Matplotlib.
      with_references: whether the Markdown file ends with published scores.
      fid: measure that has seen the same methods' composites, if FID was asked for.
      notes: remarks below the tables.

    Returns:
      `(rows, compared)`, the results of `tables.summarise` and `tables.compare`.

    Raises:
      OSError: A file cannot be written.
    """
    directory, name = os.path.split(path)
    title = f"{title}, {len(examples)} composites"
    rows, compared = tables.write(
        directory, name, title, records, about, with_references=with_references, fid=fid, notes=tuple(notes)
    )
    print(f"\n{title}\n\n{tables.markdown(rows)}")
    for note in notes:
        print(f"{note}\n")
    image_grids.save(f"{path}.png", sample_grid(examples, fill, grid_rows))
    if with_figures:
        _write_figures(path, records, rows, examples, fill)
    return rows, compared


def sample_grid(examples: Sequence[inputs.Example], fill: scores.Fill, count: int) -> np.ndarray:
    """Draws the first examples of an evaluation set as an image grid.

    Args:
      examples: the evaluation set.
      fill: the method whose results are shown.
      count: number of examples, at most; one row each.

    Returns:
      uint8 `[H, W, 3]`: masked, prediction, composite and original side by side.
    """
    shown = [examples[index] for index in range(min(count, len(examples)))]
    return image_grids.samples(*scores.stack(shown), fill(shown) / 255)


def _write_figures(path, records, rows, examples, fill):
    from pconv_jax.evaluation import figures  # Matplotlib takes half a second to import, which training never needs.

    rundir.write_atomically(f"{path}_psnr.png", figures.psnr_over_area(records, rows))
    first = [record for record in records if record["method"] == records[0]["method"]]
    shown = figures.chosen(first)
    labels = [f"{label} {first[index]['psnr']:.1f} dB" for label, index in shown]
    shown_examples = [examples[index] for _, index in shown]
    raw = np.concatenate([fill([example]) for example in shown_examples])
    image_grids.save(f"{path}_errors.png", figures.errors(shown_examples, raw, labels))
