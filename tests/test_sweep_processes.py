"""Tests of a sweep's processes: skipped, failed and stopped runs, and GPUs. Runs are a few lines of Python."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

import sweeps
from pconv_jax.sweeping import processes, results

# A run that ends as it is told to. A finished one takes what `sweeps.finish` prepared.
STAND_IN = """
import os, pathlib, shutil, signal, sys, time
action, name, workdir, place = sys.argv[1:]
place = pathlib.Path(place)
if os.getpgrp() != os.getpid():
    sys.exit("in the sweep's process group: Ctrl-C would reach it twice")
with open(place / "started", "a") as file:
    file.write(f"{name} {os.environ.get('CUDA_VISIBLE_DEVICES', 'none')}\\n")

def until(condition):
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    sys.exit("waited in vain")

if action == "finish":
    shutil.copytree(place / "prepared" / name, workdir)
elif action == "fail":
    print("step 1 of 4\\nerror: it broke\\nbye")
    sys.exit(1)
elif action == "train":  # until it is asked to save and end
    signal.signal(signal.SIGTERM, lambda *_: sys.exit((place / f"{name} saved").touch() or 75))
    (place / f"{name} trains").touch()
    until(lambda: False)
elif action == "fail beside":  # while another run trains
    until(lambda: list(place.glob("* trains")))
    sys.exit(1)
elif action == "stop":  # stops the sweep, and saves when the signal is passed on
    signal.signal(signal.SIGTERM, lambda *_: sys.exit((place / f"{name} saved").touch() or 75))
    os.kill(os.getppid(), int(signal.SIGINT))
    until(lambda: False)
elif action == "die":  # stops the sweep, and has no signal handler yet
    os.kill(os.getppid(), int(signal.SIGINT))
    until(lambda: False)
elif action == "save":  # signalled by another program
    sys.exit(75)
elif action == "outlast":  # runs until the third run has started
    until(lambda: len((place / "started").read_text().splitlines()) == 3)
    shutil.copytree(place / "prepared" / name, workdir)
"""


@pytest.fixture
def sweep(tmp_path):
    """Returns three runs and the scores that each would write."""
    plan = sweeps.tiny(tmp_path / "sweep", seeds=(0,))
    for run in plan.runs:
        sweeps.finish(run, [20.0, 21.0], str(tmp_path / "prepared" / run.name))
    return plan


@pytest.fixture
def behave(monkeypatch, tmp_path):
    """Returns `behave(action, ..)`, which sets what the runs of a sweep do, in order."""
    monkeypatch.setattr(processes, "_POLL_SECONDS", 0.02)

    def set_commands(sweep, *actions):
        action_of = {run.name: action for run, action in zip(sweep.runs, actions, strict=True)}

        def command(run, more=()):
            return [sys.executable, "-S", "-c", STAND_IN, action_of[run.name], run.name, run.workdir, str(tmp_path)]

        monkeypatch.setattr(processes, "command", command)

    return set_commands


def started(tmp_path):
    path = tmp_path / "started"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return lines


def names(runs):
    return [run.name for run in runs]


def test_a_failure_does_not_stop_the_rest_and_what_is_finished_is_skipped(sweep, behave, tmp_path, monkeypatch):
    """A failed run is listed with its error and has a log; the same command tries it alone again."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "as it was")
    behave(sweep, "finish", "fail", "finish")
    outcome = processes.run_all(sweep.runs, [])
    assert names(outcome.finished) == ["baseline seed 0", "no_hole seed 0"] and not outcome.stopped
    assert [(run.name, reason) for run, reason in outcome.failed] == [("zero seed 0", "exit code 1: error: it broke")]
    log = pathlib.Path(sweep.runs[1].log)
    assert log == tmp_path / "sweep" / "zero" / "seed_0.log" and "step 1 of 4\nerror: it broke" in log.read_text()
    assert started(tmp_path) == [f"{name} as it was" for name in names(sweep.runs)]
    behave(sweep, "fail", "nothing", "fail")
    (_, reason), *_ = processes.run_all(sweep.runs, []).failed
    assert reason == "ended without its scores: nothing was printed"  # not the error of the time before
    assert started(tmp_path) == ["zero seed 0 as it was"] and "error: it broke" in log.read_text()
    behave(sweep, "fail", "finish", "fail")
    outcome = processes.run_all(sweep.runs, [])
    assert started(tmp_path) == ["zero seed 0 as it was"]
    assert len(outcome.finished) == 3 and not outcome.failed


def test_an_end_without_scores_is_a_failure(sweep, behave):
    behave(sweep, "nothing", "finish", "finish")
    outcome = processes.run_all(sweep.runs, [])
    assert [(run.name, why) for run, why in outcome.failed] == [
        ("baseline seed 0", "ended without its scores: nothing was printed")
    ]


def test_a_run_that_cannot_be_started_has_failed(sweep, behave):
    """A run that cannot be started is listed as failed, and the others run."""
    behave(sweep, "finish", "finish", "finish")
    pathlib.Path(sweep.runs[1].log).mkdir(parents=True)
    outcome = processes.run_all(sweep.runs, ["0"])
    assert names(outcome.finished) == ["baseline seed 0", "no_hole seed 0"] and not outcome.stopped
    ((failed, reason),) = outcome.failed
    assert failed is sweep.runs[1] and reason.startswith("cannot be started: [Errno 21] Is a directory")


def test_an_error_of_the_sweep_leaves_nothing_running(sweep, behave, tmp_path, monkeypatch):
    """After an error of the sweep, the running processes save and end before the error is raised."""
    behave(sweep, "train", "fail beside", "finish")
    monkeypatch.setattr(results, "last_error", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        processes.run_all(sweep.runs, ["0", "1"])
    assert (tmp_path / "baseline seed 0 saved").exists() and len(started(tmp_path)) == 2


def test_one_run_per_gpu(sweep, behave, tmp_path):
    """Two runs train at the same time on their own GPUs; the third takes the GPU that is free first."""
    behave(sweep, "outlast", "finish", "finish")
    outcome = processes.run_all(sweep.runs, ["3", "GPU-5"])
    assert len(outcome.finished) == 3, outcome
    *both, third = started(tmp_path)
    assert sorted(both) == ["baseline seed 0 3", "zero seed 0 GPU-5"] and third == "no_hole seed 0 GPU-5"


def test_a_signal_reaches_the_running_one_and_the_same_command_goes_on(sweep, behave, tmp_path):
    """Ctrl-C is passed on once; the run saves and ends with 75, no other begins, and handlers are restored."""
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    behave(sweep, "finish", "stop", "finish")
    outcome = processes.run_all(sweep.runs, [])
    assert names(outcome.finished) == ["baseline seed 0"] and not outcome.failed
    assert names(outcome.stopped) == ["zero seed 0", "no_hole seed 0"]
    assert len(started(tmp_path)) == 2 and (tmp_path / "zero seed 0 saved").exists()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    behave(sweep, "fail", "finish", "finish")
    outcome = processes.run_all(sweep.runs, [])
    assert len(outcome.finished) == 3 and len(started(tmp_path)) == 2


def test_a_run_that_a_signal_ends_can_go_on(sweep, behave, tmp_path):
    """A run that dies of the signal counts as stopped; one that was signalled by others does not stop the rest."""
    behave(sweep, "save", "die", "finish")
    outcome = processes.run_all(sweep.runs, [])
    assert names(outcome.stopped) == ["baseline seed 0", "zero seed 0", "no_hole seed 0"] and not outcome.failed
    assert len(started(tmp_path)) == 2


def test_no_run_begins_after_a_signal(sweep, behave, tmp_path, monkeypatch):
    """After a signal no run starts on a free GPU, and each signal is passed on once."""
    sent = []

    class Process:
        """A process that takes five polls to save."""

        returncode, looks = 75, 0

        def __init__(self, *_, **__):
            signal.raise_signal(signal.SIGTERM)

        def poll(self):
            self.looks += 1
            return self.returncode if self.looks > 5 else None

        def send_signal(self, number):
            sent.append(number)

    monkeypatch.setattr(processes, "_tied", list)
    monkeypatch.setattr(processes.subprocess, "Popen", Process)
    outcome = processes.run_all(sweep.runs, ["0", "1"])
    assert sent == [signal.SIGTERM] and len(outcome.stopped) == 3


@pytest.mark.skipif(not processes._tied(), reason="needs Linux and setpriv of util-linux")
def test_what_a_killed_sweep_was_training_saves_and_ends(tmp_path):
    """When the sweep is killed with SIGKILL, its running process gets SIGTERM from the system."""
    code = (
        "import sys, sweeps\nfrom pconv_jax.sweeping import processes\n"
        "runs = sweeps.tiny(sys.argv[1] + '/sweep', seeds=(0,)).runs[:1]\n"
        "words = [sys.executable, '-S', '-c', sys.argv[2], 'train', 'it', runs[0].workdir, sys.argv[1]]\n"
        "processes.command = lambda *_: words\n"
        "processes.run_all(runs, [])"
    )
    root = pathlib.Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")])}
    command = [sys.executable, "-c", code, str(tmp_path), STAND_IN]
    with subprocess.Popen(command, env=environment) as process:
        while not (tmp_path / "it trains").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    for _ in range(6000):  # at once; without the signal it ends by itself by then
        if (tmp_path / "it saved").exists():
            return
        time.sleep(0.01)
    pytest.fail("nobody told it")


@pytest.fixture
def with_cuda(monkeypatch):
    """Makes any installed module stand for JAX's CUDA plugin."""
    monkeypatch.setattr(processes, "_CUDA", ("jax_cuda13_plugin", "json"))


def test_gpus_that_jax_cannot_use(monkeypatch, caplog):
    """GPUs that JAX cannot use do not count, so that not as many runs as GPUs share the processor."""
    monkeypatch.setattr(processes, "_CUDA", ("jax_cuda0_plugin",))
    with caplog.at_level("WARNING"):
        assert processes.visible_gpus({"CUDA_VISIBLE_DEVICES": "0,1"}) == []
    assert "2 GPUs are not used because JAX is installed without CUDA: pip install jax[cuda13]" in caplog.text
    caplog.clear()
    assert processes.visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == [] and not caplog.text


@pytest.mark.parametrize(
    ("value", "gpus"),
    [("0,1", ["0", "1"]), ("2", ["2"]), ("GPU-a, MIG-b", ["GPU-a", "MIG-b"]), ("", []), ("-1", []), ("1,-1,2", ["1"])],
)
def test_visible_gpus(value, gpus, with_cuda):
    """CUDA_VISIBLE_DEVICES is read as CUDA reads it."""
    assert processes.visible_gpus({"CUDA_VISIBLE_DEVICES": value}) == gpus


def test_gpus_that_nvidia_smi_lists(tmp_path, monkeypatch, with_cuda):
    """Without the variable nvidia-smi lists the GPUs; there are none if it is absent or fails."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert processes.visible_gpus({}) == []
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 0\necho 1\n")
    program.chmod(0o755)
    assert processes.visible_gpus({}) == ["0", "1"]
    program.write_text("#!/bin/sh\necho no driver\nexit 9\n")
    assert processes.visible_gpus({}) == []


def test_progress(sweep):
    """Of 12 steps 4 were done at the start; 3 more in 10 s leave 5, which take 17 s. Failed runs do not count."""
    times = iter([100.0, 110.0])
    done, running, other = sweep.runs
    sweeps.finish(done, [20.0])
    progress = processes.Progress(sweep.runs, [done], lambda: next(times))
    sweeps.log(running, [{"step": 2}, {"step": 3}])
    outcome = processes.Outcome(finished=[done])
    line = progress.line(outcome, [running])
    assert line == ("1 of 3 runs finished, 0 failed, 58% of all steps, 0m 17s left; zero seed 0 at step 3 of 4")
    assert results.step(other) == 0
    outcome.failed.append((other, "it broke"))
    assert processes.Progress(sweep.runs, [done], lambda: 0.0).line(outcome, []) == (
        "1 of 3 runs finished, 1 failed, 88% of all steps"
    )


@pytest.mark.parametrize(
    ("spoil", "finished"),
    [
        (lambda content: None, True),
        (lambda content: content.update(step=3), False),
        (lambda content: content["config"].update(seed=5), False),
        (lambda content: content.pop("config"), False),
    ],
)
def test_what_is_finished(sweep, spoil, finished):
    """A run is finished if it has scores of its config at its last step; incomplete files do not count."""
    run = sweep.runs[0]
    sweeps.finish(run, [20.0])
    path = pathlib.Path(run.workdir) / "eval" / "last.json"
    content = json.loads(path.read_text())
    spoil(content)
    path.write_text(json.dumps(content))
    assert (results.scores(run) is not None) == finished
    path.write_text(path.read_text()[:-5])
    assert results.scores(run) is None


def test_a_run_of_another_config_is_refused(tmp_path):
    """A run directory of another config is refused before anything runs."""
    sweeps.finish(sweeps.tiny(tmp_path, overrides={"optim.lr": 0.5}).runs[0], [20.0])
    with pytest.raises(ValueError, match=r"another config \(optim.lr: 0.5 there, 0.001 now\)"):
        results.scores(sweeps.tiny(tmp_path).runs[0])


def test_torn_metrics(sweep):
    run = sweep.runs[0]
    assert results.metrics(run) == []
    sweeps.log(run, [{"step": 2, "hole": 1.0}, {"step": 4, "hole": 0.5}])
    with open(os.path.join(run.workdir, "metrics.jsonl"), "a", encoding="utf-8") as file:
        file.write('{"step": 6, "ho')
    assert [values["step"] for values in results.metrics(run)] == [2, 4] and results.step(run) == 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\nerror: one\nb\nerror: two\nc\n", "error: two"),
        ("Traceback\nKeyError: 'x'\n", "KeyError: 'x'"),
        ("a\nb\n\n", "b"),
        ("", "nothing was printed"),
    ],
)
def test_last_error(text, expected, tmp_path):
    path = tmp_path / "log"
    path.write_text(f"error: of an earlier attempt\n{text}")
    assert results.last_error(str(path), len("error: of an earlier attempt\n")) == expected
    assert results.last_error(str(tmp_path / "none")) == "no log (No such file or directory)"
