"""Tests of interrupted runs: signals stop a run with its state saved, and damaged checkpoints are noticed."""

import errno
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
from pconv_jax.data import pipeline
from pconv_jax.evaluation import inputs
from pconv_jax.training import build, checkpoints, parallel, preemption, reporting, rundir

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Returns an undisturbed run of four steps, and its last state on the host."""
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


@pytest.mark.parametrize(
    ("step", "number"), [(1, signal.SIGTERM), (2, signal.SIGTERM), (3, signal.SIGTERM), (2, signal.SIGINT)]
)
def test_a_signal_saves_and_the_run_goes_on(finished, tmp_path, monkeypatch, capfd, number, step):
    """After a signal at any step the state is saved, and the continued run ends with the same bits."""
    before = signal.getsignal(number)
    signal_at(monkeypatch, step, number)
    with pytest.raises(preemption.Stopped, match=f"stopped by {number.name} after step {step} of 4, which is saved"):
        train.train(runs.tiny(), str(tmp_path / "run"))
    monkeypatch.undo()
    assert signal.getsignal(number) is before
    assert f"{number.name}: stops as soon as all is saved" in capfd.readouterr().err
    assert max(int(p.name) for p in (tmp_path / "run" / "checkpoints").iterdir()) == step
    after = train.train(runs.tiny(), str(tmp_path / "run"))
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(after), finished[1])


def test_a_signal_in_the_evaluation_of_a_checkpoint(finished, tmp_path, monkeypatch):
    """The evaluation is cut short, the checkpoint ranks last, and the continued run ends with the same bits."""
    batches = pipeline.evaluation_batches

    def interrupted(*arguments, **options):
        for batch in batches(*arguments, **options):
            os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    monkeypatch.setattr(pipeline, "evaluation_batches", interrupted)
    with pytest.raises(preemption.Stopped, match="stopped by SIGTERM after step 2 of 4, which is saved"):
        train.train(runs.tiny(), str(tmp_path / "run"))
    monkeypatch.undo()
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["2"]
    assert "eval_psnr" not in (tmp_path / "run" / "metrics.jsonl").read_text()
    after = train.train(runs.tiny(), str(tmp_path / "run"))
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(after), finished[1])


def test_a_signal_in_the_last_evaluation(finished, tmp_path, monkeypatch):
    """The parameters are saved by then, so the run stops between two batches, and the same call only evaluates."""
    workdir, batches = tmp_path / "run", inputs.batches

    def signalled(*arguments):
        for count, batch in enumerate(batches(*arguments)):
            if count == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    monkeypatch.setattr(inputs, "batches", signalled)
    config = runs.tiny(**{"eval.examples": 20})
    left = "stopped by SIGTERM in the last evaluation; all 4 steps are saved, only the evaluation is left"
    with pytest.raises(preemption.Stopped, match=left):
        train.train(config, str(workdir))
    monkeypatch.undo()
    assert not (workdir / "eval").exists()
    monkeypatch.setattr(parallel, "map_step", None)  # no step is compiled any more
    after = train.train(config, str(workdir))
    assert json.loads((workdir / "eval" / "last.json").read_text())["step"] == 4
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(after.params), finished[1].params)


def test_a_second_signal_ends_at_once():
    """A second signal ends a process at once that is still busy after the first."""
    code = (
        "import time\nfrom pconv_jax.training import preemption\n"
        "with preemption.requests() as signals:\n    print('ready', flush=True)\n    time.sleep(60)\n    time.sleep(60)"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stderr.readline().startswith(b"SIGTERM: stops as soon as all is saved")
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait() == 128 + signal.SIGINT


def test_a_signal_whose_message_cannot_be_written():
    """If Ctrl-C also ends `tee` in `.. 2>&1 | tee log`, the run still saves and ends with its exit code."""
    code = (
        "import time\nfrom pconv_jax.training import preemption\n"
        "with preemption.requests() as signals:\n    print('ready', flush=True)\n"
        "    while not signals:\n        time.sleep(0.05)\n    print('saved', flush=True)\n"
        "    preemption.leave(preemption.Stopped('stopped'))"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, **pipes) as process:
        assert process.stdout.readline() == b"ready\n"
        process.stderr.close()
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == b"saved\n"
        assert process.wait() == preemption.EXIT_CODE


def test_a_signal_before_the_first_step(tmp_path, monkeypatch):
    """A signal before the first step, e.g. while images are listed, stops the run before it compiles or saves."""
    check = build.check_masks
    monkeypatch.setattr(parallel, "map_step", None)
    monkeypatch.setattr(build, "check_masks", lambda config: (check(config), os.kill(os.getpid(), signal.SIGTERM)))
    with pytest.raises(preemption.Stopped, match="stopped by SIGTERM before step 1 of 4"):
        train.train(runs.tiny(), str(tmp_path / "run"))
    assert (tmp_path / "run" / "config.json").exists() and not list((tmp_path / "run" / "checkpoints").iterdir())


def test_threads_get_no_signals():
    """In another thread than the main one, training leaves the signal handlers alone."""
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
def test_a_damaged_checkpoint_is_moved_to_damaged(finished, tmp_path, caplog, damage):
    """A damaged checkpoint is reported and moved to damaged/, and the one before is used."""
    workdir = copy_of(finished, tmp_path)
    damage(workdir / "checkpoints" / "4")
    with checkpoints.open_manager(str(workdir)) as manager:
        state = checkpoints.resume(manager, build.state_shapes(runs.tiny()))
        assert manager.latest_step() == 2
    assert int(state.step) == 2
    messages = [record.getMessage() for record in caplog.records]
    assert any("checkpoint 4 is damaged (" in message and "\n" not in message for message in messages)
    assert any(f"checkpoint 4 was moved to {workdir}/damaged/4" in message for message in messages)
    assert [p.name for p in (workdir / "checkpoints").iterdir()] == ["2"]


def test_a_run_goes_on_from_the_checkpoint_before(finished, tmp_path):
    """A run continues from the checkpoint before, twice, with the same bits, and no file in damaged/ is replaced."""
    workdir = copy_of(finished, tmp_path)
    for _ in range(2):
        flipped(workdir / "checkpoints" / "4")
        after = train.train(runs.tiny(), str(workdir))
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(after), finished[1])
    assert sorted(p.name for p in (workdir / "damaged").iterdir()) == ["4", "4.1"]
    assert sorted(p.name for p in (workdir / "checkpoints").iterdir()) == ["2", "4"]


def test_a_changed_array_is_noticed(finished, tmp_path):
    """An array that can be read but was changed is noticed by its digest."""
    abstract = build.state_shapes(runs.tiny())
    with checkpoints.open_manager(str(tmp_path / "other")) as manager:
        state = finished[1]
        arguments = checkpoints.ocp.args.StandardSave(state)
        manager.save(4, args=arguments, custom_metadata={"sha256": "0" * 64})
        manager.wait_until_finished()
        with pytest.raises(checkpoints.Damaged, match=r"4 is damaged \(its arrays do not have the SHA-256"):
            checkpoints.restore(manager, abstract)


def test_nothing_is_moved_when_all_are_damaged(finished, tmp_path):
    """If all checkpoints are damaged, none is moved, and the user has to decide."""
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
    """Without room for a checkpoint nothing of it is written, and the error has the missing room and the step."""
    usage = types.SimpleNamespace(free=1000)
    save = checkpoints.save

    def full_after_two(manager, state, *psnr):
        if int(state.step) > 2:
            monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
        save(manager, state, *psnr)

    monkeypatch.setattr(checkpoints, "save", full_after_two)
    with pytest.raises(OSError, match=r"no room for checkpoint 4 \(0 MiB, 0 free\): .* goes on from step 2"):
        train.train(runs.tiny(), str(tmp_path / "run"))
    monkeypatch.undo()
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["2"]
    after = train.train(runs.tiny(), str(tmp_path / "run"))
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(after), finished[1])


@pytest.mark.parametrize("step", [2, 4])
def test_a_disk_that_fills_while_a_checkpoint_is_written(finished, tmp_path, monkeypatch, step):
    """If the disk fills while orbax writes in the background, one line reports it, also for the last checkpoint."""
    write, workdir = checkpoints.ocp.StandardCheckpointHandler.async_save, tmp_path / "run"

    async def full(self, directory, *arguments, **options):
        pending = await write(self, directory, *arguments, **options)
        if f"{step}.orbax" not in str(directory):
            return pending
        text = f"RESOURCE_EXHAUSTED: Error writing x: Failed to write 9 bytes: {os.strerror(errno.ENOSPC)}\nmore"
        return [*pending, types.SimpleNamespace(result=lambda **_: fail(text))]

    def fail(text):
        raise ValueError(text)

    monkeypatch.setattr(checkpoints.ocp.StandardCheckpointHandler, "async_save", full)
    before = step - 2
    message = rf"checkpoint {step} could not be written \(No space left on device; \d+ MiB free\): those before it are"
    with pytest.raises(
        rundir.NotWritten, match=rf"{message} whole; make room, .* goes on from step {before}"
    ) as messages:
        train.train(runs.tiny(), str(workdir))
    assert "\n" not in str(messages.value) and messages.value.errno == errno.ENOSPC
    monkeypatch.undo()
    whole = [p.name for p in (workdir / "checkpoints").iterdir() if p.name.isdigit()]
    assert whole == [str(before)] * (before > 0)
    if before:
        after = train.train(runs.tiny(), str(workdir))
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(after), finished[1])


def test_a_disk_that_fills_while_something_else_is_written(tmp_path):
    """A disk that fills while metrics, pictures or events are written is reported with what to do.

    tensorboardX, whose thread has ended with its error, is not waited for.
    """
    messages = "No space left on device: make room, and the same command goes on"
    with pytest.raises(rundir.NotWritten, match=messages), rundir.explain_full_disk(str(tmp_path)):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    messages = "TensorBoard's events could not be written"
    with pytest.raises(OSError, match=messages), reporting.MetricsLog(str(tmp_path), 0) as log:
        log._events.file_writer.event_writer._worker.stop()
        for step in range(50):
            log.write(step, {"loss": 1.0})


def test_what_killed_saves_left_is_removed(finished, tmp_path, caplog):
    """Training removes what killed saves have left, and reports it in one line.

    Evaluation holds no lock and leaves it, because another process may be writing it. Other files are left alone.
    """
    workdir = copy_of(finished, tmp_path)
    left = [workdir / "checkpoints" / name for name in ("6.orbax-checkpoint-tmp", "8.orbax-checkpoint-tmp-1234")]
    for path in (*left, workdir / "checkpoints" / "my own"):
        (path / "default").mkdir(parents=True)
    checkpoints.restore_chosen(str(workdir), build.state_shapes(runs.tiny()), "last")
    assert all(path.exists() for path in left)
    caplog.set_level("INFO")
    assert int(train.train(runs.tiny(), str(workdir)).step) == 4
    assert sorted(os.listdir(workdir / "checkpoints")) == ["2", "4", "my own"]
    messages = [record.getMessage() for record in caplog.records if "unfinished" in record.getMessage()]
    names = ", ".join(path.name for path in left)
    assert messages == [f"removed 2 unfinished checkpoint(s): {names}"]


@pytest.mark.parametrize("which", ["last", "best"])
def test_evaluation_takes_the_next_when_training_removes_a_checkpoint(finished, tmp_path, monkeypatch, which):
    """If training removes the listed checkpoint, evaluation reads the newest; a damaged one stays an error."""
    workdir, restore = copy_of(finished, tmp_path), checkpoints.restore
    shutil.move(workdir / "checkpoints" / "4", tmp_path / "next")

    def overtaken(manager, abstract_state, step):
        if step == 2:
            shutil.move(tmp_path / "next", workdir / "checkpoints" / "4")
            shutil.rmtree(workdir / "checkpoints" / "2")
        return restore(manager, abstract_state, step)

    monkeypatch.setattr(checkpoints, "restore", overtaken)
    abstract = build.state_shapes(runs.tiny())
    assert int(checkpoints.restore_chosen(str(workdir), abstract, which).step) == 4
    truncated(workdir / "checkpoints" / "4")
    with pytest.raises(checkpoints.Damaged, match="checkpoint 4 is damaged"):
        checkpoints.restore_chosen(str(workdir), abstract, which)


def run_once(workdir, **options):
    """Starts a process that trains 300 steps with a checkpoint at every other step."""
    settings = {"train.steps": 300, "train.checkpoint_every": 2, "train.sample_every": 300, "eval.examples": 8}
    command = [sys.executable, "-m", "pconv_jax.main", "--config=tests/tiny_experiment.py", f"--workdir={workdir}"]
    command += [f"--config.{key}={value}" for key, value in settings.items()]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, env=runs.environment(1), text=True, **pipes)


def finish(workdir):
    """Trains to the end and returns the SHA-256 of the parameters."""
    with run_once(workdir) as process:
        messages = process.stderr.read()
    assert process.returncode == 0, messages
    return json.loads((workdir / "eval" / "last.json").read_text())["parameters_sha256"]


def interrupted(workdir, number, times, seed):
    """Starts a run again and again, signals it each time, and returns the exit codes.

    A signal is sent some milliseconds after one to four checkpoints have been begun, so that many signals arrive
    while one is written. Some of the SIGKILLs are sent while the run starts. Counting checkpoints and not seconds
    makes the test independent of the speed of the machine.
    """
    rng, codes = np.random.default_rng(seed), []
    for index in range(times):
        begun, pause = int(rng.integers(1, 5)), rng.uniform(0, 0.1)
        if number == signal.SIGKILL and index % 5 == 4:
            begun, pause = 0, rng.uniform(0, 3)
        with run_once(workdir) as process:
            while begun:
                line = process.stderr.readline()
                begun -= not line or "PSNR of the composite" in line
            time.sleep(pause)
            process.send_signal(number)
            process.stderr.read()
        codes.append(process.returncode)
    return codes


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Returns the SHA-256 of the parameters of an undisturbed run."""
    return finish(tmp_path_factory.mktemp("undisturbed") / "run")


@pytest.mark.slow
@pytest.mark.xdist_group("signals")  # shares `undisturbed`
@pytest.mark.parametrize(
    ("number", "times", "code"), [(signal.SIGKILL, 20, -signal.SIGKILL), (signal.SIGTERM, 6, preemption.EXIT_CODE)]
)
def test_signals_at_random_instants_change_nothing(undisturbed, tmp_path, number, times, code):
    """Signals at random times do not change the parameters at the end."""
    codes = interrupted(tmp_path / "run", number, times, seed=int(number))
    print(f"exit codes {codes}, newest checkpoint {checkpoints._newest(tmp_path / 'run' / 'checkpoints')}")
    assert codes == [code] * times
    after = finish(tmp_path / "run")
    print(f"sha256 {after}, undisturbed {undisturbed}")
    assert after == undisturbed
    assert not list((tmp_path / "run" / "checkpoints").glob("*tmp*"))
