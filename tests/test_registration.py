"""A new kind of source and a new term of the loss are one entry in a table each."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]


def test_a_registered_source_and_loss_term_train(tmp_path):
    """The rules of the config accept both; the run trains on the source, and the term counts by its weight."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    environment.pop("XLA_FLAGS", None)
    command = [sys.executable, "tests/toy_kinds.py", str(tmp_path / "run")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "data.json").read_text())["train"] == "3 images of noise"
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert row["step"] == 2 and row["weighted/mean"] == pytest.approx(0.5 * row["mean"]) and row["mean"] > 0
    weighted = [value for name, value in row.items() if name.startswith("weighted/")]
    assert row["loss"] == pytest.approx(sum(weighted), rel=1e-5) and len(weighted) == 4
