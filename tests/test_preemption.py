"""Signals stop a run after its step, with the state saved; checkpoints that a disk damages are noticed."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import types

import jax
import numpy as np
import pytest

import runs
from pconv_jax import train
from pconv_jax.training import checkpoint, preemption, reporting, state

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An undisturbed run of four steps, and its last state on the host."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    return workdir, jax.device_get(train.train(runs.tiny(), str(workdir)))


def signal_at(monkeypatch, step, number):
    """Sends a signal to this process when a step has been dispatched."""
    append, count = reporting.Progress.waited, []

    def waited(self, seconds):
        count.append(1)
        if len(count) == step:
            os.kill(os.getpid(), number)
        append(self, seconds)

    monkeypatch.setattr(reporting.Progress, "waited", waited)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_signal_saves_and_the_run_goes_on(finished, tmp_path, monkeypatch, capfd, number, step):
    """After any step, due for a checkpoint or not: nothing is lost, and the run ends with the same bits."""
    before = signal.getsignal(number)
    signal_at(monkeypatch, step, number)
    with pytest.raises(preemption.Stopped, match=f"stopped by {number.name} after step {step} of 4, which is saved"):
        train.train(runs.tiny(), str(tmp_path / "run"))
    monkeypatch.undo()
    assert signal.getsignal(number) is before
    assert f"{number.name}: saves after this step and stops" in capfd.readouterr().err
    assert max(int(p.name) for p in (tmp_path / "run" / "checkpoints").iterdir()) == step
    after = train.train(runs.tiny(), str(tmp_path / "run"))
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(after), finished[1])


def test_after_the_last_step_there_is_nothing_to_stop(finished, tmp_path, monkeypatch):
    """The run ends as it would have, with its evaluation."""
    signal_at(monkeypatch, 4, signal.SIGTERM)
    after = train.train(runs.tiny(), str(tmp_path / "run"))
    assert int(after.step) == 4 and (tmp_path / "run" / "eval" / "last.json").exists()


def test_a_second_signal_ends_at_once():
    """A process that has one signal behind it and is still busy."""
    code = (
        "import time\nfrom pconv_jax.training import preemption\n"
        "with preemption.requests() as signals:\n    print('ready', flush=True)\n    time.sleep(60)\n    time.sleep(60)"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stderr.readline().startswith(b"SIGTERM: saves after this step")
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 128 + signal.SIGINT


def test_threads_get_no_signals():
    """As a library in somebody's thread, training leaves signals alone."""
    before, seen = signal.getsignal(signal.SIGTERM), []

    def body():
        with preemption.requests() as signals:
            seen.append((signals, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [([], before)]


def copy_of(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    return tmp_path / "run"


def largest_file(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def truncated(folder):
    file = largest_file(folder)
    os.truncate(file, file.stat().st_size // 2)


def emptied(folder):
    largest_file(folder).write_bytes(b"")


def flipped(folder):
    file = largest_file(folder)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def without_arrays(folder):
    for name in ("d", "manifest.ocdbt", "ocdbt.process_0"):
        path = folder / "default" / name
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()


def without_names(folder):
    (folder / "default" / "_METADATA").write_text("{")


def removed(folder):
    shutil.rmtree(folder / "default")


@pytest.mark.parametrize("damage", [truncated, emptied, flipped, without_arrays, without_names, removed])
def test_a_damaged_checkpoint_is_put_aside(finished, tmp_path, caplog, damage):
    """Reported, kept for whoever wants to look, and the one before is used."""
    workdir = copy_of(finished, tmp_path)
    damage(workdir / "checkpoints" / "4")
    with checkpoint.manager(str(workdir)) as checkpoints:
        now = checkpoint.resume(checkpoints, state.shapes(runs.tiny()))
        assert checkpoints.latest_step() == 2
    assert int(now.step) == 2
    messages = [record.getMessage() for record in caplog.records]
    assert any("checkpoint 4 is damaged (" in message and "\n" not in message for message in messages)
    assert any(f"checkpoint 4 is now {workdir}/damaged/4" in message for message in messages)
    assert [p.name for p in (workdir / "checkpoints").iterdir()] == ["2"]


def test_a_run_goes_on_from_the_checkpoint_before(finished, tmp_path):
    """The same bits in the end, twice: what was put aside before is not written over."""
    workdir = copy_of(finished, tmp_path)
    for _ in range(2):
        flipped(workdir / "checkpoints" / "4")
        after = train.train(runs.tiny(), str(workdir))
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(after), finished[1])
    assert sorted(p.name for p in (workdir / "damaged").iterdir()) == ["4", "4.1"]
    assert sorted(p.name for p in (workdir / "checkpoints").iterdir()) == ["2", "4"]


def test_a_changed_array_is_noticed(finished, tmp_path):
    """Readable, and not what was saved: the digest knows."""
    abstract = state.shapes(runs.tiny())
    with checkpoint.manager(str(tmp_path / "other")) as checkpoints:
        now = finished[1]
        arguments = checkpoint.ocp.args.StandardSave(now)
        checkpoints.save(4, args=arguments, custom_metadata={"sha256": "0" * 64})
        checkpoints.wait_until_finished()
        with pytest.raises(checkpoint.Damaged, match=r"4 is damaged \(its arrays do not have the SHA-256"):
            checkpoint.restore(checkpoints, abstract)


def test_nothing_is_moved_when_all_are_damaged(finished, tmp_path):
    """Then it is for a person to decide."""
    workdir = copy_of(finished, tmp_path)
    for step in ("2", "4"):
        truncated(workdir / "checkpoints" / step)
    with pytest.raises(ValueError, match=r"all checkpoints in .* are damaged \(4, 2\): restore one from a copy"):
        train.train(runs.tiny(), str(workdir))
    assert sorted(p.name for p in (workdir / "checkpoints").iterdir()) == ["2", "4"]


def test_evaluate_names_a_damaged_checkpoint(finished, tmp_path):
    workdir = copy_of(finished, tmp_path)
    truncated(workdir / "checkpoints" / "4")
    command = [sys.executable, "-m", "pconv_jax.evaluate", f"--run={workdir}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and re.search(r"^error: checkpoint 4 is damaged \(", done.stderr, re.MULTILINE)


def test_a_full_disk_leaves_what_is_there(finished, tmp_path, monkeypatch):
    """Before anything of a checkpoint is written: how much is missing, and where the run goes on."""
    usage = types.SimpleNamespace(free=1000)
    save = checkpoint.save

    def full_after_two(checkpoints, now, *psnr):
        if int(now.step) > 2:
            monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
        save(checkpoints, now, *psnr)

    monkeypatch.setattr(checkpoint, "save", full_after_two)
    with pytest.raises(OSError, match=r"no room for checkpoint 4 \(0 MiB, 0 free\): .* goes on from step 2"):
        train.train(runs.tiny(), str(tmp_path / "run"))
    monkeypatch.undo()
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["2"]
    after = train.train(runs.tiny(), str(tmp_path / "run"))
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(after), finished[1])


def command_line(workdir, steps, every):
    flags = [f"--config.train.steps={steps}", f"--config.train.checkpoint_every={every}"]
    return [sys.executable, "-m", "pconv_jax.main", "--config=tests/tiny_experiment.py", *flags, f"--workdir={workdir}"]


def sha256(workdir):
    return json.loads((workdir / "eval" / "last.json").read_text())["parameters_sha256"]


def interrupted(workdir, steps, every, number, times, seed):
    """Starts a run again and again, and signals it at random instants after it began to train; the exit codes."""
    rng, codes = np.random.default_rng(seed), []
    while len(codes) < times:
        command = command_line(workdir, steps, every)
        with subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            for line in process.stderr:
                if "first step after" in line:
                    break
            time.sleep(rng.exponential(0.4))
            process.send_signal(number)
            process.stderr.read()
        codes.append(process.returncode)
        if codes[-1] == 0:
            break
    return codes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "times", "code"), [(signal.SIGKILL, 20, -signal.SIGKILL), (signal.SIGTERM, 6, preemption.EXIT_CODE)]
)
def test_signals_at_random_instants_change_nothing(tmp_path, number, times, code):
    """A checkpoint every other step, so that many signals fall into the writing of one: the same parameters."""
    steps, every = 400, 2
    done = subprocess.run(command_line(tmp_path / "whole", steps, every), cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    codes = interrupted(tmp_path / "run", steps, every, number, times, seed=int(number))
    assert codes == [code] * times
    done = subprocess.run(command_line(tmp_path / "run", steps, every), cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sha256(tmp_path / "run") == sha256(tmp_path / "whole")
