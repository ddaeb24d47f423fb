"""Tests of the sweep command: its output, refusals, and resuming after a kill."""

import dataclasses
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from absl import flags

import networks
import runs
import sweeps
from pconv_jax import sweep
from pconv_jax.evaluation import evaluator
from pconv_jax.sweeping import comparison, pictures, processes
from pconv_jax.training import build, parallel, rundir

ROOT = pathlib.Path(__file__).resolve().parents[1]

FILE = """
from tests import runs

SEEDS = (0, 1)
SMOKE = {"train.steps": 2}

def get_config():
    return runs.tiny()

def get_variants(config):
    return VARIANTS
"""


def sweep_file(directory, variants, text=FILE):
    """Returns arguments for a sweep file and a directory for its runs."""
    directory.joinpath("mine.py").write_text(text.replace("VARIANTS", repr(variants)))
    return [f"--config={directory}/mine.py", f"--workdir={directory}/sweep"]


def files(directory):
    return sorted(path.relative_to(directory) for path in directory.rglob("*"))


def test_dry_run_prints_the_commands_and_writes_nothing(server, tmp_path):
    """A dry run prints one command line per run and marks the finished ones."""
    arguments = [*sweep_file(tmp_path, sweeps.VARIANTS), "--config.train.steps=3", "--config.data.path="]
    plan = sweeps.tiny(tmp_path / "sweep", overrides={"train.steps": 3, "data.path": ""})
    sweeps.finish(plan.runs[4], [20.0])
    before = files(tmp_path)
    code, printed = server(tmp_path, "sweep", [*arguments, "--dry-run"])
    lines = [line for line in printed.splitlines() if " -m " in line]
    assert code == 0 and files(tmp_path) == before, printed
    words = [shlex.split(line, comments=True) for line in lines]
    expected = [f"--config={tmp_path}/mine.py", *plan.runs[1].arguments[1:]]
    assert words[1] == [sys.executable, "-m", "pconv_jax.main", *expected]
    assert [line.endswith("  # finished") for line in lines] == [False] * 4 + [True, False]
    code, printed = server(tmp_path, "sweep", [*arguments, "--dry-run", "--nocompilation_cache"])
    assert code == 0 and printed.count(" --nocompilation_cache") == 6, printed
    code, printed = server(tmp_path, "sweep", [*arguments, "--count"])
    assert (code, printed) == (0, "6\n")
    code, printed = server(tmp_path, "sweep", [*arguments, "--only=4"])
    assert (code, printed) == (0, "zero seed 1 is finished\n")


# By fault: variants or the text of a file, further arguments, and what is told.
REFUSED = {
    "no get_variants": ("def get_config():\n    pass\nSEEDS = (0,)\n", [], r"mine.py|did you forget a return"),
    "no variants and no seeds": (
        FILE.replace("get_variants", "variants").replace("SEEDS", "S"),
        [],
        "mine.py has no get_variants and no SEEDS: start from experiments/ablation.py",
    ),
    "raises": (FILE.replace("VARIANTS", "1 / 0"), [], r"mine.py, line 11: ZeroDivisionError: division by zero"),
    "unknown variant": (sweeps.VARIANTS, ["--variants=zer"], "the variant zer is unknown; needs some of zero, no_hole"),
    "unknown key": ({"a": {"x": {"model.kidn": 1}}}, [], "variant x: unknown key model.kidn: did you mean model.kind"),
    "wrong value": ({"a": {"x": {"model.depth": 0}}}, [], "variant x: model.depth is 0; needs an integer from 1"),
    "a name twice": ({"a": {"x": {}}, "b": {"x": {}}}, [], "variant x is there 2 times"),
    "no variant": ({}, [], r"get_variants\(\) gives no variant"),
    "other inputs": ({"a": {"x": {"eval.seed": 1}}}, [], "variant x: eval.seed is not for variants"),
    "wrong seed": (sweeps.VARIANTS, ["--seeds=0,one"], "seed 'one'; needs an integer"),
    "one seed for all": (sweeps.VARIANTS, ["--config.seed=5"], "config.seed is set by the sweep, .*: give --seeds=5"),
    "wrong override": (sweeps.VARIANTS, ["--config.train.steps=0"], "baseline of .*mine.py does not work:\n  train.st"),
    "no smoke": (FILE.replace("SMOKE", "S"), ["--smoke"], "has no SMOKE, the overrides for --smoke"),
    "nothing to report": (sweeps.VARIANTS, ["--report"], "no run of .*sweep is finished: nothing to report"),
    "no such task": (sweeps.VARIANTS, ["--only=6"], "--only=6 of 6 runs; needs 0 to 5"),
    "a single run": (sweeps.VARIANTS, [], "sweep is the directory of a single run: choose another --workdir"),
    "other runs": (
        sweeps.VARIANTS,
        ["--config.optim.lr=0.5"],
        r"another config \(optim.lr: 0.001 there, 0.5 now\): choose another --workdir",
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_sweeps_are_refused(fault, server, tmp_path):
    """A refusal is one line or list with exit code 1 and no traceback, and nothing is run or written."""
    content, more, message = REFUSED[fault]
    arguments = sweep_file(tmp_path, *(({}, content) if isinstance(content, str) else (content,)))
    if fault == "a single run":
        rundir.claim(str(tmp_path / "sweep"), runs.tiny(), {})
    if fault == "other runs":
        sweeps.finish(sweeps.tiny(tmp_path / "sweep").runs[2], [20.0])
    before = files(tmp_path)
    code, printed = server(tmp_path, "sweep", [*arguments, *more])
    assert re.search(message, printed), printed
    assert code == 1 and "Traceback" not in printed and "\nerror: " in f"\n{printed}", printed
    assert [path for path in files(tmp_path) if "__pycache__" not in path.parts] == before


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections
@pytest.mark.parametrize(
    ("finished", "failed", "stopped", "code", "reported"),
    [(2, 0, 0, 0, True), (1, 1, 0, 1, True), (0, 2, 0, 1, False), (1, 1, 1, 75, False), (0, 0, 2, 75, False)],
)
def test_how_a_sweep_ends(finished, failed, stopped, code, reported, tmp_path, monkeypatch, capsys):
    """The command ends with its exit code, every failure with its log, and a report unless it was stopped."""
    made, reports = sweeps.tiny(tmp_path), []
    outcome = processes.Outcome(
        made.runs[:finished],
        [(run, "exit code 1: error: it broke") for run in made.runs[2 : 2 + failed]],
        made.runs[4 : 4 + stopped],
    )
    flag_values = flags.FlagValues()
    sweep.define_flags(flag_values)
    monkeypatch.setattr(sweep, "_plan", lambda _: made)
    monkeypatch.setattr(sweep, "_report", lambda *_: reports.append(True))
    monkeypatch.setattr(sweep.compilation_cache, "enable", lambda _: None)
    monkeypatch.setattr(processes, "run_all", lambda *_: outcome)
    flag_values(["sweep", f"--config={ROOT}/experiments/ablation.py"])
    assert sweep.main(flag_values) == code and bool(reports) == reported
    printed = capsys.readouterr().err
    assert printed.count("failed: ") == failed and (f"runs left: {stopped}," in printed) == (stopped > 0)
    for run, _ in outcome.failed:
        assert f"failed: {run.name}, exit code 1: error: it broke\n  log: {run.log}\n" in printed


def test_a_report_is_made_on_one_gpu(tmp_path, monkeypatch, capsys):
    """The report sees one GPU as the runs did, and lists the runs it lacks once."""
    made, seen = sweeps.tiny(tmp_path), []
    sweeps.finish(made.runs[0], [20.0, 21.0])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setattr(
        sweep,
        "_image_grid",
        lambda *_: (seen.append(os.environ["CUDA_VISIBLE_DEVICES"]), np.zeros((2, 2, 3), np.uint8))[1],
    )
    sweep._report(made, [(made.runs[1], "it broke")], ["3", "5"])
    assert seen == ["3"]
    printed = capsys.readouterr().out
    lacking = [line.split(": ")[1] for line in printed.splitlines() if line.startswith("not in the tables: ")]
    assert "1 of 6 runs finished" in printed and lacking == [run.name for run in made.runs[2:]]


def test_the_sheet_shows_the_networks_that_were_scored(tmp_path):
    """The grid shows the networks of the last checkpoints on the images that were scored."""
    made = sweeps.tiny(tmp_path, seeds=(0,))
    run = made.runs[0]
    best = networks.random_state(run.config).replace(step=np.int32(2))
    last = best.replace(step=np.int32(4), params=jax.tree.map(lambda x: 0.5 * x, best.params))
    networks.save_run(run.workdir, run.config, [(best, 30.0), (last, 20.0)])
    evaluation_set = build.evaluation_set(run.config, build.image_sources(run.config)[1])
    evaluation = evaluator.Evaluator(build.unet_model(run.config), evaluation_set, run.config.eval.batch_size)
    last = parallel.replicate(last)
    evaluation.report(last, run.workdir, "last")
    examples = [evaluation.inputs[index] for index in range(sweep.SHOWN)]
    expected = pictures.image_grid(examples, {"baseline": evaluation.network(last)(examples)})
    scores_read = comparison.read(made)
    np.testing.assert_array_equal(sweep._image_grid(made, scores_read), expected)
    with pytest.raises(ValueError, match=r"the evaluation images are not those that .* was scored on"):
        sweep._image_grid(made, dataclasses.replace(scores_read, names=("another",) * 10))


def scores(run):
    return json.loads((run / "eval" / "last.json").read_text())


@pytest.mark.slow
def test_a_sweep_is_killed_and_goes_on(tmp_path):
    """After SIGTERM (exit code 75) the same command finishes and reports; a third one runs nothing."""
    variants = {"convolution": {"zero": {"model.kind": "zero"}}}
    changes = ["--config.train.steps=100", "--config.train.checkpoint_every=50", "--config.train.log_every=2"]
    arguments = [*sweep_file(tmp_path, variants), *changes, "--config.train.sample_every=100", "--seeds=0"]
    command = [sys.executable, "-m", "pconv_jax.sweep", *arguments]
    environment = {**os.environ, "XLA_FLAGS": ""}
    run = tmp_path / "sweep" / "baseline" / "seed_0"
    slow = [word.replace("pconv_jax.sweep", "tests.slow_sweep") for word in command]
    with subprocess.Popen(slow, cwd=ROOT, env=environment) as process:
        try:
            while not (run / "metrics.jsonl").exists() or not (run / "metrics.jsonl").read_text():
                assert process.poll() is None
                time.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            assert process.wait() == 75
        finally:
            process.kill()
    assert not (tmp_path / "sweep" / "zero").exists()
    assert "stopped by SIGTERM after step" in run.with_suffix(".log").read_text()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "resumed at step" in run.with_suffix(".log").read_text()
    assert "2 of 2 runs finished, 0 failed, 100% of all steps" in done.stderr
    assert "| zero | n=1 |" in done.stdout
    folder = tmp_path / "sweep"
    text = (folder / "report.md").read_text()
    assert "none (n = 1)" in text and all((folder / name).exists() for name in re.findall(r"\]\((.+?)\)", text))
    assert scores(run)["step"] == 100
    logs = {path: path.read_bytes() for path in folder.glob("*/*.log")}
    again = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 0 and logs == {path: path.read_bytes() for path in folder.glob("*/*.log")}
    assert (folder / "report.md").read_text() == text and "2 of 2 runs are finished already" in again.stderr
