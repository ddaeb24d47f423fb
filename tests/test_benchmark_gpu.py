"""Tests of the benchmark of a GPU, which measure a CPU at toy size."""

import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pictures
from experiments import default
from pconv_jax import errors
from pconv_jax.benchmark import cards, gpu, gpu_parts, profiling, workers

ROOT = pathlib.Path(__file__).resolve().parents[1]
TINY = ("--config.model.width=4", "--config.model.max_width=8", "--config.model.kernels=(3,)")
TRAINING = {
    "data.size": 16,
    "data.eval_fraction": 0.4,
    "model.depth": 2,
    "model.width": 4,
    "train.pyramid_levels": 1,
    "train.batch_size": 4,
    "train.steps": 4,
    "train.checkpoint_every": 2,
    "train.sample_every": 4,
    "train.samples": 2,
    "optim.warmup_steps": 1,
    "optim.cooldown_steps": 1,
    "eval.examples": 6,
    "eval.batch_size": 8,
}


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A10", 125),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("NVIDIA GeForce RTX 4090", 165),
        ("Tesla V100-SXM2-16GB", None),
        ("cpu", None),
    ],
)
def test_cards_are_recognised(name, peak):
    """The names that drivers report are found in the table, and a name in it is not taken for a shorter one."""
    assert cards.bfloat16_peak(name) == peak


def test_cases_close_to_the_first_come_first():
    """The first values make the first case, and cases that differ from it in one respect follow."""
    cases = gpu.cases(default.get_config(), [256, 512], [16, 64], list(gpu_parts.DTYPES))
    keys = ("what", "size", "batch", "dtype")
    assert [cases[0][key] for key in keys] == ["train full", 256, 16, "bfloat16"] and len(cases) == 36
    differences = [sum(case[key] != cases[0][key] for key in keys) for case in cases]
    assert differences == sorted(differences) and differences[:7] == [0] + [1] * 6


@pytest.mark.parametrize(
    ("size", "dtypes", "message"),
    [
        (256, ["float16"], "--dtypes=float16; needs some of bfloat16, tf32"),
        (31, ["tf32"], "31x31; needs multiples of 2"),
    ],
)
def test_wrong_cases_are_refused(size, dtypes, message):
    """An unknown dtype, or a size that the network cannot compute, is an error before anything is measured."""
    with pytest.raises(errors.UserError, match=message):
        gpu.cases(default.get_config(), [size], [2], dtypes)


def test_a_failing_part_is_recorded_and_the_rest_goes_on(monkeypatch):
    """Errors, timeouts and a lack of time become rows with a reason; all rows are passed on after each part."""
    clock, written = [0.0], []
    monkeypatch.setattr(gpu.time, "monotonic", lambda: clock[0])

    def fails(error, seconds):
        def call(limit):
            clock[0] += seconds
            raise error

        return call

    def works(limit):
        return [{"what": "fine", "limit": limit}]

    memory = errors.UserError("ours: RESOURCE_EXHAUSTED: Out of memory\nmore")
    planned = [
        ("case", {"what": "large"}, fails(memory, 20)),
        ("input", {"what": "slow"}, fails(subprocess.TimeoutExpired("python", 10), 10)),
        ("case", {"what": "fine"}, works),
        ("torch", {"what": "torch"}, fails(OSError("lost"), 67)),
        ("case", {"what": "late"}, works),
    ]
    rows = gpu.run(planned, 100, lambda added, rows: written.append((list(added), len(rows))))
    assert [row["what"] for row in rows] == ["large", "slow", "fine", "torch", "late"]
    assert rows[0]["failed"] == "ours: RESOURCE_EXHAUSTED: Out of memory"
    assert "timed out after 10 seconds" in rows[1]["failed"] and rows[2] == {"what": "fine", "limit": 35}
    assert rows[4]["failed"] == "no time was left"
    assert written == [([row], index + 1) for index, row in enumerate(rows)]
    assert "- not measured: torch: OSError: lost\n- not measured: late: no time was left" in gpu.show(rows)


def test_an_answer_that_takes_too_long_is_an_error():
    """A worker is asked with a time limit, and ended after it."""
    with (
        workers.Worker(workers.OURS, workers.environment("keep")) as worker,
        pytest.raises(errors.UserError, match='ours: no answer to "steps" within 0 s'),
    ):
        worker.ask(limit=0.0, do="steps", count=1)


def test_a_lack_of_device_memory_is_an_answer(tmp_path):
    """A worker that runs out of device memory answers with the reason, and can be asked again."""
    np.savez(tmp_path / "batch.npz", image=np.zeros(1))
    program = (
        "from pconv_jax.benchmark import serving\n"
        "def make(*_):\n    raise RuntimeError('RESOURCE_EXHAUSTED: Out of memory')\n"
        "serving.serve(make, None)"
    )
    request = {"do": "prepare", "task": "train", "config": {}, "batch": str(tmp_path / "batch.npz"), "options": {}}
    lines = f"{json.dumps(request)}\n" * 2
    command = [sys.executable, "-c", program]
    process = subprocess.run(command, cwd=ROOT, input=lines, capture_output=True, text=True, check=True)
    answers = [json.loads(line) for line in process.stdout.splitlines()]
    assert answers == [{"error": "RuntimeError: RESOURCE_EXHAUSTED: Out of memory"}] * 2


@pytest.mark.parametrize(
    ("op_name", "source"),
    [
        ("jit(step)/jvp(UNet)/enc1/conv/conv_general_dilated", "UNet/enc1/conv/conv_general_dilated"),
        ("jit(step)/transpose(jvp(UNet))/dec2/conv/mul", "gradient of UNet/dec2/conv/mul"),
        ("", ""),
    ],
)
def test_sources_are_layers(op_name, source):
    """JAX's path of an operation is reduced to layer and function; what a gradient is made of is named so."""
    assert profiling.source(op_name) == source


def test_the_longest_operation_is_found():
    """In a program of one large and one small product, the large one takes most of the time."""

    @jax.jit
    def step(x):
        with jax.named_scope("large"):
            y = x @ x
        with jax.named_scope("small"):
            return y, x[:8, :8] @ x[:8, :8]

    x = jnp.ones((512, 512))
    program = step.lower(x).compile()
    jax.block_until_ready(program(x))
    rows = profiling.largest(lambda: jax.block_until_ready(program(x)), program.as_text(), 2, limit=2)
    assert rows[0]["source"] == "large/dot_general" and rows[0]["share"] > 0.5
    assert rows[0]["min_s"] > rows[-1]["min_s"] > 0 and len(rows) <= 2


@pytest.mark.slow
def test_the_whole_command(tmp_path):
    """All parts run at toy size, and the results are written as lines and as tables."""
    photographs, out = tmp_path / "photographs", tmp_path / "out"
    photographs.mkdir()
    for index in range(12):
        (photographs / f"{index}.jpg").write_bytes(pictures.encode(pictures.noise(index, 80, 96), ".jpg"))
    further = " ".join(f"--config.{key}={value}" for key, value in TRAINING.items())
    size = ("--sizes=16", "--batches=2", "--dtypes=tf32", "--steps=2", "--minutes=120", "--notorch_compile")
    data = (f"--data={photographs}", f"--train_flags={further}", f"--out={out}")
    command = [sys.executable, "-m", "pconv_jax.benchmark", "gpu", *size, *data, *TINY]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert not [row for row in rows if "failed" in row]
    assert rows == json.loads((out / "benchmark.json").read_text())["rows"]
    assert process.stdout.strip() in (out / "benchmark.md").read_text()
    ours = [row for row in rows if row.get("by") == "ours" and row["what"] in gpu.WORKS]
    assert [(row["what"], row["dtype"]) for row in ours] == [(work, "tf32") for work in gpu.WORKS]
    for row in ours:
        assert row["device"] == "cpu" and row["gflops"] > 0 and row["peak_mib"] > 0 and "share_of_peak" not in row
    operations = [row for row in rows if row["what"] == "operation"]
    assert len(operations) == 10 and any("conv" in row["source"] for row in operations)
    scores = [row for row in rows if row["what"] == "training"]
    assert [row["step"] for row in scores] == [2, 4] and scores[0]["minutes"] < scores[1]["minutes"]
    assert (out / "training" / "checkpoints" / "4").is_dir()
    assert [row["what"] for row in rows if row.get("by") is None and "pipeline" in row["what"]] == ["pipeline"] * 2
    assert "cpu: dense bfloat16 peak unknown" in process.stdout
