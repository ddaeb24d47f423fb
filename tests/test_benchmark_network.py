"""Tests of the benchmarks of networks: counted operations, worker processes that take turns, and tables of ratios."""

import csv
import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import runs
from experiments import default
from pconv_jax import errors
from pconv_jax.benchmark import arguments, comparison, measurement, operations, ours, report, workers
from pconv_jax.ops.cpu import onednn
from pconv_jax.training import build

ROOT = pathlib.Path(__file__).resolve().parents[1]
TINY = ("--config.model.width=4", "--config.model.max_width=8", "--config.model.kernels=(3,)")
KEYS = {"what", "size", "batch", "by", "dtype", "settings", "compile_s", "min_s", "median_s", "p90_s", "images_per_s"}
KEYS |= {"peak_mib", "gflops", "share_of_peak"}


def test_operations_by_hand():
    """For two levels at 16 x 16, the count is twice the products per output position times the number of positions.

    A training step has the forward pass and two gradients per layer, without those by the image.
    """
    model = runs.tiny().model
    model.update(kernels=(5, 3), width=4, max_width=6)
    Layer = operations.Layer
    assert operations.layers(model, 16) == [
        Layer("enc1", 5, 2, 3, 0, 4, 8),
        Layer("enc2", 3, 2, 4, 0, 6, 4),
        Layer("dec2", 3, 1, 6, 4, 4, 8),
        Layer("dec1", 3, 1, 4, 3, 3, 16),
    ]
    enc1, enc2, dec2, dec1 = 2 * 25 * 3 * 4 * 64, 2 * 9 * 4 * 6 * 16, 2 * 9 * 10 * 4 * 64, 2 * 9 * 7 * 3 * 256
    assert operations.forward(model, 16) == enc1 + enc2 + dec2 + dec1 == 188_160
    image_gradient = enc1 + 2 * 9 * 3 * 3 * 256
    assert operations.step(model, 16, with_vgg=False) == 3 * 188_160 - image_gradient == 484_608
    first, second = 2 * 9 * (3 * 64 + 64 * 64) * 256, 2 * 9 * (64 * 128 + 128 * 128) * 64
    third = 2 * 9 * (128 * 256 + 2 * 256 * 256) * 16
    assert operations.vgg16(16) == first + second + third
    assert operations.step(model, 16, with_vgg=True) == 484_608 + 5 * operations.vgg16(16)


@pytest.mark.parametrize(("size", "depth", "kind"), [(256, 7, "partial"), (512, 8, "zero"), (96, 5, "mask_channel")])
def test_layers_are_those_of_the_network(size, depth, kind):
    """The counted layers have the names and kernel shapes of the parameters; the paper's network needs 18.94 GFLOP."""
    config = default.get_config()
    config.model.kind = kind
    config = arguments.sized(config, size, 2)
    assert config.model.depth == depth
    model, image = build.unet_model(config), jnp.zeros((1, size, size, 3))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), image, jnp.ones((1, size, size, 1))))["params"]
    layers = operations.layers(config.model, size)
    assert {layer.name: (*[layer.kernel_size] * 2, layer.low + layer.skip, layer.outputs) for layer in layers} == {
        name: block["conv"]["kernel"].shape for name, block in shapes.items()
    }
    if size == 256:
        assert operations.forward(config.model, size) / 1e9 == pytest.approx(18.94, abs=0.01)


@pytest.mark.parametrize(("size", "depth"), [(128, 6), (1024, 8), (48, 4), (36, 2), (31, 1)])
def test_depth_follows_size(size, depth):
    """The depth leaves a bottleneck of 2 x 2 or more, and a size that cannot be halved at all is refused."""
    if size % 2:
        with pytest.raises(ValueError, match=f"{size}x{size}; needs multiples of 2"):
            arguments.sized(default.get_config(), size, 1)
    else:
        assert arguments.sized(default.get_config(), size, 1).model.depth == depth


def test_workers_take_turns():
    """Workers compute in the order A B C, C B A, A B C, some steps at a time, and at least the number asked for."""
    calls = []

    def call(name):
        def steps(count):
            calls.append((name, count))
            return [float(len(calls))] * count

        return steps

    times = workers.in_turn({name: call(name) for name in "ABC"}, steps=5, turn=2, progress="test")
    assert calls == [(name, 2) for name in "ABCCBAABC"]
    assert times == {"A": [1, 1, 6, 6, 7, 7], "B": [2, 2, 5, 5, 8, 8], "C": [3, 3, 4, 4, 9, 9]}


def test_shares_and_ratios():
    """Rates are relative to the fastest large convolution of the same dtype, and times relative to ours.

    The large convolutions come last, the fastest one of each competitor.
    """
    large = {"what": operations.LARGE.name, "size": 64, "batch": 4}
    work = {"what": "train L1", "size": 256, "batch": 2}
    rows = [
        {**work, "by": "ours", "dtype": "float32", "min_s": 1.0, "median_s": 2.0, "gflops": 50.0, "peak_mib": 300.0},
        {**large, "by": "ours", "dtype": "float32", "gflops": 80.0},
        {
            **work,
            "by": "torch_eager",
            "dtype": "float32",
            "min_s": 1.5,
            "median_s": 2.5,
            "gflops": 30.0,
            "peak_mib": 400.0,
        },
        {**work, "what": "start"},
        {**large, "by": "torch_eager", "dtype": "float32", "gflops": 100.0},
        {**large, "by": "ours", "dtype": "float32", "gflops": 90.0},
        {**large, "by": "torch_best_bf16", "dtype": "bfloat16", "gflops": 500.0},
    ]
    shared = measurement.with_shares(rows)
    assert [(row["what"], row["by"], row["share_of_peak"]) for row in shared if "by" in row] == [
        ("train L1", "ours", 0.5),
        ("train L1", "torch_eager", 0.3),
        (large["what"], "ours", 0.9),
        (large["what"], "torch_eager", 1.0),
        (large["what"], "torch_best_bf16", 1.0),
    ]
    lines = comparison.ratios([row for row in shared if row["what"] != "start"]).splitlines()
    assert [[cell.strip() for cell in line.split("|")[1:-1]] for line in (lines[0], lines[2])] == [
        ["time of the other / ours", "ours ms", "torch eager", "torch best bf16", "memory, ours / torch eager"],
        ["train L1, 256 px, batch 2", "1000 (2000)", "1.50 (1.25)", "", "0.75"],
    ]
    assert len(lines) == 3 and not comparison.ratios(rows[:1])


def test_bfloat16_is_compared_with_bfloat16():
    """A competitor in bfloat16 is compared with ours in bfloat16 where that was measured, and else with ours."""
    work = {"what": "train L1", "size": 256, "batch": 2}
    times = {"ours": 1.0, "torch_best": 3.0, "torch_best_bf16": 2.0, "ours_bf16": 0.5}
    rows = [{**work, "by": by, "min_s": seconds, "median_s": 2 * seconds} for by, seconds in times.items()]

    def cells(rows):
        lines = comparison.ratios(rows).splitlines()
        return [[cell.strip() for cell in line.split("|")[1:-1]] for line in (lines[0], lines[2])]

    assert cells(rows) == [
        ["time of the other / ours", "ours ms", "ours bf16 ms", "torch best", "torch best bf16 / ours bf16"],
        ["train L1, 256 px, batch 2", "1000 (2000)", "500 (1000)", "3.00 (3.00)", "4.00 (4.00)"],
    ]
    assert cells(rows[:3])[1] == ["train L1, 256 px, batch 2", "1000 (2000)", "3.00 (3.00)", "2.00 (2.00)"]


@pytest.mark.slow
def test_rows_of_a_worker():
    """A real worker of a tiny network gives complete and consistent rows, and an error that names its cause."""
    config = arguments.sized(runs.tiny(), 16, 4)
    competitors = measurement.choose_competitors(config, with_torch=False)
    setup = measurement.Setup(steps=3)
    rows = measurement.with_shares(measurement.measure("train L1", "train", config, competitors, setup))
    assert [row["what"] for row in rows] == ["train L1", "large convolution"]
    check_rows(rows)
    assert rows[0].keys() == KEYS
    assert rows[0]["gflops"] == pytest.approx(4 * operations.step(config.model, 16, False) / rows[0]["min_s"] / 1e9)
    assert rows[0]["settings"] == "conv_impl xla, float32" and rows[0]["peak_mib"] > 100
    config.loss.vgg16_weights = "nowhere.npz"
    with pytest.raises(errors.UserError, match=r"ours: .*no VGG16 weights at nowhere\.npz"):
        measurement.measure("train full", "train", config, competitors, measurement.Setup(steps=1))


def test_the_implementation_that_ran_is_recorded(monkeypatch):
    """Where oneDNN is not usable, or the device is no CPU, the settings name what ran and what was configured."""
    model = runs.tiny(**{"model.conv_impl": "onednn"}).model
    monkeypatch.setattr(onednn, "usable", lambda dtype: True)
    assert ours.implementation(model) == "onednn"
    monkeypatch.setattr(onednn, "usable", lambda dtype: False)
    assert ours.implementation(model) == "auto (configured: onednn)"
    monkeypatch.setattr(ours.jax, "default_backend", lambda: "gpu")
    assert ours.implementation(model) == "xla (configured: onednn)"
    model.conv_impl = "xla"
    assert ours.implementation(model) == "xla"


def check_rows(rows):
    """Checks that times are positive and ordered, and that rates follow from them."""
    for row in rows:
        assert 0 < row["min_s"] <= row["median_s"] <= row["p90_s"]
        assert row.get("compile_s", 1) >= 0 and row.get("peak_mib", 1) > 0
        if "images_per_s" in row:
            assert row["images_per_s"] == pytest.approx(row["batch"] / row["median_s"])
        if "gflops" in row:
            assert row["gflops"] > 0 and row["share_of_peak"] > 0


def test_a_worker_that_ends_is_reported():
    """The error has the exit code of the worker, and refers to its messages."""
    environment = workers.environment("keep")
    with (
        workers.Worker("pconv_jax.no_such_module", environment) as worker,
        pytest.raises(errors.UserError, match="code 1: see its messages above"),
    ):
        worker.ask(do="steps", count=1)


def test_missing_torch_is_reported(monkeypatch):
    """The error has the command that installs PyTorch, and the file that the command names exists."""
    monkeypatch.setattr(workers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        errors.UserError, match=r"needs PyTorch: \S+ -m pip install -r pconv_jax/benchmark/requirements"
    ):
        measurement.choose_competitors(default.get_config(), with_torch=True)
    line = (ROOT / workers.REQUIREMENTS).read_text()
    assert re.match(r"torch>=[\d.]+,<[\d.]+ +# ", line)


def test_allocator_as_launched(monkeypatch):
    """Workers get the allocator settings that launch.sh exports, or none of them, and the simulated devices."""
    exported = re.search(r"export (MALLOC_.*)", (ROOT / "launch.sh").read_text())[1].split()
    assert dict(variable.split("=") for variable in exported) == workers.KEEP_MEMORY
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    assert workers.KEEP_MEMORY.items() <= workers.environment("keep").items()
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    assert not workers.KEEP_MEMORY.keys() & workers.environment("system").keys()
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=4 --xla_dump_to=here")
    flags = workers.environment("keep", devices=3)["XLA_FLAGS"].split()
    assert flags == ["--xla_dump_to=here", "--xla_force_host_platform_device_count=3"]


def test_table_goes_between_marks(tmp_path):
    """The rest of the file stays as it is, and a file without the marks is refused."""
    path = tmp_path / "performance.md"
    path.write_text("above\n<!-- train -->\nold\n<!-- /train -->\nbelow\n")
    report.check_marks(path, "train")
    report.update(path, "train", "| new |")
    assert path.read_text() == "above\n<!-- train -->\n| new |\n<!-- /train -->\nbelow\n"
    with pytest.raises(ValueError, match="lacks the lines <!-- forward --> and <!-- /forward -->"):
        report.check_marks(path, "forward")


@pytest.mark.parametrize("benchmark", ["against", "op", "scale", "start", "gpu"])
def test_the_document_has_a_place_for_each_table(benchmark):
    """docs/performance.md has the marks of every benchmark that writes to it."""
    report.check_marks(ROOT / "docs" / "performance.md", benchmark)


def run_benchmark(*arguments, out):
    """Runs the command in a process of its own, checks its files in `out`, and returns its rows."""
    command = [sys.executable, "-m", "pconv_jax.benchmark", *arguments, f"--out={out}"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    content = json.loads((out / "benchmark.json").read_text())
    with open(out / "benchmark.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(content["rows"])
    assert process.stdout.strip() in (out / "benchmark.md").read_text()
    assert content["machine"]["malloc"] == "keep"
    check_rows(content["rows"])
    return content["rows"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("forward", "--sizes=16", "--batches=2", "--steps=2"), ["forward"] + ["large convolution"]),
        (
            ("scale", "--sizes=16", "--at=16", "--batches=2", "--devices=2", "--steps=1"),
            ["train L1"] * 2 + ["large convolution"],
        ),
    ],
)
def test_commands(arguments, names, tmp_path):
    """The commands write rows with all keys, and simulate the devices that --devices asks for."""
    rows = run_benchmark(*arguments, *TINY, out=tmp_path)
    assert [row["what"] for row in rows] == names
    assert all(row.keys() == KEYS for row in rows[:-1])
    assert ("2 devices" in rows[-2]["settings"]) == (arguments[0] == "scale")


@pytest.mark.slow
def test_op(tmp_path):
    """There are four rows per layer, all with a rate but those of the mask and of the gradient by the image."""
    rows = run_benchmark("op", "--sizes=16", "--layers=enc1,dec1", "--steps=1", *TINY, out=tmp_path)
    parts = ["forward", "input gradient", "kernel gradient", "mask"]
    assert [row["what"] for row in rows[:8]] == [f"{name} {part}" for name in ("enc1", "dec1") for part in parts]
    assert [row["what"] for row in rows[8:]] == ["all masks", "large convolution"]
    lines = [line.split("|")[1].strip() for line in (tmp_path / "benchmark.md").read_text().splitlines() if "|" in line]
    assert lines[2:5] == ["enc1", "dec1", "sum"]
    assert [row["what"] for row in rows if "gflops" not in row] == [
        "enc1 input gradient",
        "enc1 mask",
        "dec1 mask",
        "all masks",
    ]


@pytest.mark.slow
def test_start(tmp_path):
    """The real command is started cold and warm, after a start that is not counted."""
    small = ("--config=experiments/quickstart.py", "--config.data.size=16", "--config.model.depth=2")
    rows = run_benchmark("start", "--repeats=1", *small, *TINY[:2], out=tmp_path)
    assert [row["what"] for row in rows] == ["start cold", "start warm"]
    assert all(0 < row["first_step_s"] < row["min_s"] for row in rows)


@pytest.mark.slow
def test_against_torch(tmp_path):
    """All competitors do the same work, without and with VGG16."""
    pytest.importorskip("torch", reason="needs PyTorch: pip install -r pconv_jax/benchmark/requirements.txt")
    rows = run_benchmark(
        "train", "--against=torch", "--notorch_compile", "--sizes=16", "--steps=1", *TINY, out=tmp_path
    )
    names = ["ours", "torch_eager", "torch_best", "torch_best_bf16", "ours_bf16"]
    assert [(row["what"], row["by"]) for row in rows] == [
        (what, name) for what in ("train L1", "train full", "large convolution") for name in names
    ]
    assert all(row.keys() == KEYS for row in rows[:10])
    assert np.all([("VGG16" in row["settings"]) == (row["what"] == "train full") for row in rows])
