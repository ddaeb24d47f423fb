"""The example notebooks run from the first cell to the last, without a notebook server."""

import contextlib
import io
import json
import pathlib
import re

import pytest

NOTEBOOKS = sorted((pathlib.Path(__file__).parents[1] / "examples").glob("*.ipynb"))


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
