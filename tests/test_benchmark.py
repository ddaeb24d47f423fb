"""Tests of the benchmark of the input pipeline, of its messages, and of the files that every benchmark writes."""

import csv
import json
import os
import pathlib
import subprocess
import sys

import pytest

import pictures
from pconv_jax.benchmark import report

ROOT = pathlib.Path(__file__).resolve().parents[1]


def benchmark(*arguments):
    """Runs the command in a process of its own and returns the completed process."""
    command = [sys.executable, "-m", "pconv_jax.benchmark", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_data(tmp_path):
    """For a folder of JPEGs and overridden keys, there is one row for the pipeline and one for each part of it."""
    for index in range(3):
        (tmp_path / f"{index}.jpg").write_bytes(pictures.encode(pictures.noise(index, 40, 60), ".jpg"))
    overrides = (f"--config.data.path={tmp_path}", "--config.data.size=128", "--config.masks.kind=boxes")
    size = ("--repeats=3", "--batches=2", f"--out={tmp_path / 'new' / 'out'}")
    process = benchmark("data", "--config=experiments/folder.py", *overrides, *size)
    assert process.returncode == 0, process.stderr
    assert "3 of 3" in process.stderr
    out = tmp_path / "new" / "out"
    assert sorted(os.listdir(out)) == ["benchmark.csv", "benchmark.json"]
    content = json.loads((out / "benchmark.json").read_text())
    assert content["machine"]["cores"] >= 1 and content["versions"]["opencv"]
    rows = content["rows"]
    assert [row["what"] for row in rows] == ["pipeline", "decode", "crop and resize", "mask"]
    for row in rows:
        assert row["size"] == 128 and row["batch"] == (8 if row["what"] == "pipeline" else 1)
        assert 0 < row["min_s"] <= row["median_s"] <= row["p90_s"] and 0 < row["cpu_min_s"] <= row["cpu_median_s"]
        assert row["images_per_s"] == pytest.approx(row["batch"] / row["median_s"])
        assert row["images_per_cpu_s"] == pytest.approx(row["batch"] / row["cpu_median_s"])
        assert row["settings"] == f"2 images of {tmp_path}, masks boxes 0.01 to 0.6"  # One of the three is held out.
    with open(out / "benchmark.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [{name: str(row.get(name, "")) for name in table[0]} for row in rows] == table
    assert all(f"| {row['what']} " in process.stdout for row in rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no benchmark is named; choose one of\n  data "),
        (("speed",), '"speed" is no benchmark; choose one of\n  data '),
        (("data", "--config=experiments/folder.py", "--config.data.siez=64"), "did you mean data.size"),
        (("data", "--config=experiments/folder.py"), 'data.source is "folder" and data.path is empty'),
        (("data", "--config=experiments/quickstart.py", "--out=README.md"), "--out=README.md is a file; needs a dir"),
        (("train", "--sizes=64,0"), "--sizes=64,0; needs positive integers, e.g. --sizes=256,512"),
        (("op", "--sizes=64", "--layers=enc9"), "--layers=enc9; needs some of enc1, enc2, enc3, enc4, enc5, dec5,"),
    ],
)
def test_wrong_arguments_are_named(arguments, message, server, tmp_path):
    """A mistake ends the command with one line before anything is measured or written."""
    code, printed = server(tmp_path, "benchmark", arguments)
    assert code == 1 and message in printed and "Traceback" not in printed
    assert "warming up" not in printed and "preparing" not in printed


def test_times():
    """A row has minimum, median and the 90th percentile; rates are those of the medians, and absent without images."""
    wall = [0.1 * k for k in (3, 1, 2, 5, 4)]
    row = report.times(wall, [2 * w for w in wall], images=6)
    assert row["min_s"] == pytest.approx(0.1) and row["median_s"] == pytest.approx(0.3)
    assert row["p90_s"] == pytest.approx(0.46)
    assert row["images_per_s"] == pytest.approx(20) and row["images_per_cpu_s"] == pytest.approx(10)
    assert report.times(wall).keys() == {"min_s", "median_s", "p90_s"}


def test_files_and_table_of_rows_that_differ(tmp_path):
    """Keys that a row lacks give empty cells, further keys come last, and a directory that is a file is refused."""
    rows = [
        {"what": "a", "compile_s": 1.25, "median_s": 0.25, "share_of_peak": 0.5},
        {"what": "b", "size": 64, "speedup": 1.5},
    ]
    report.write(str(tmp_path), rows, {"cores": 2})
    assert (tmp_path / "benchmark.csv").read_text().splitlines() == [
        "what,size,batch,by,dtype,settings,compile_s,min_s,median_s,p90_s,cpu_min_s,cpu_median_s,images_per_s,"
        "images_per_cpu_s,peak_mib,gflops,share_of_peak,speedup",
        "a,,,,,,1.25,,0.25,,,,,,,,0.5,",
        "b,64,,,,,,,,,,,,,,,,1.5",
    ]
    assert json.loads((tmp_path / "benchmark.json").read_text())["rows"] == rows
    assert [[cell.strip() for cell in line.split("|")[1:-1]] for line in report.table(rows).splitlines()] == [
        ["what", "size", "compile s", "median ms", "share of peak"],
        ["-" * width for width in (4, 4, 9, 9, 13)],
        ["a", "", "1.2", "250.000", "0.50"],
        ["b", "64", "", "", ""],
    ]
    with pytest.raises(ValueError, match="is a file; needs a directory"):
        report.check(str(tmp_path / "benchmark.csv"))
