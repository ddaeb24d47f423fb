"""The example notebooks run from the first cell to the last, without a notebook server, and so do the scripts."""

import contextlib
import importlib.util
import io
import json
import pathlib
import re

import cv2
import pytest

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


def run(notebook):
    """Executes the code cells of a notebook in one namespace and returns what they print."""
    cells = json.loads(notebook.read_text())["cells"]
    printed, namespace = io.StringIO(), {}
    with contextlib.redirect_stdout(printed):
        for number, cell in enumerate(cells):
            if cell["cell_type"] == "code":
                exec(compile("".join(cell["source"]), f"{notebook.name}, cell {number}", "exec"), namespace)
    return printed.getvalue()


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(notebook):
    """Every notebook runs, and its trained network fills the hole better than the mean colour does."""
    network, mean = map(float, re.search(r"network (\S+) dB, mean colour (\S+) dB", run(notebook)).groups())
    assert network > mean + 1


def test_there_is_a_notebook():
    """The test above has something to run."""
    assert NOTEBOOKS


def test_the_figure_of_filled_photographs_is_drawn(tmp_path, monkeypatch):
    """A row has the masked photograph, the filled one and the original, which differ in the hole alone."""
    spec = importlib.util.spec_from_file_location("fill_photographs", EXAMPLES / "fill_photographs.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    monkeypatch.setattr(example, "ROWS", (("chelsea", "scratches", (0.02, 0.05), 0),))
    monkeypatch.setattr(example, "WIDTH", 451)
    example.main(tmp_path / "figure.png")
    masked, filled, original = (cv2.imread(tmp_path / "figure.png")[:, k * 451 : (k + 1) * 451] for k in range(3))
    hole = (masked != original).any(axis=-1)
    assert 0.01 < hole.mean() <= 0.05 and (filled == original)[~hole].all()
    assert (abs(filled.astype(int) - original)[hole]).mean() < 20 < abs(masked.astype(int) - original)[hole].mean()
