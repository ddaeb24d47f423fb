"""Tests of training on several hosts: two hosts compute what one does, also when one of them fails or is stopped."""

import json
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import runs
from pconv_jax.data import masks, pipeline
from pconv_jax.training import build, checkpoints, parallel, preemption

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("10.0.0.1:1234", None, None), "--coordinator, --hosts and --host belong together: give all three, or none"),
        ((None, 2, 0), "belong together"),
        (("10.0.0.1:1234", 2, 2), "--host is 2 and --hosts 2; needs --host from 0 to --hosts - 1"),
        (("10.0.0.1:1234", 0, 0), "--host is 0 and --hosts 0"),
    ],
)
def test_wrong_hosts_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        parallel.start_hosts(*arguments)


@pytest.mark.parametrize("environment", [{}, {"SLURM_STEP_NUM_TASKS": "1"}, {"OMPI_COMM_WORLD_SIZE": "1"}])
def test_one_host_joins_nothing(monkeypatch, environment):
    """Nothing is initialised on a laptop or in a job of one task."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert not parallel.start_hosts(None, None, None)
    assert parallel.is_first_host() and parallel.shard() == (0, 1)


@pytest.mark.parametrize(
    "environment", [{"SLURM_STEP_NUM_TASKS": "2"}, {"OMPI_COMM_WORLD_SIZE": "8", "SLURM_STEP_NUM_TASKS": "1"}]
)
def test_jobs_of_several_tasks_join(monkeypatch, environment):
    """JAX finds the other settings, notices a lost host within a minute, and gives all GPUs of a host to its task."""
    joined, settings = [], {}
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(jax.config, "update", settings.__setitem__)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(jax.distributed, "initialize", lambda **arguments: joined.append(arguments))
    assert parallel.start_hosts(None, None, None)
    assert parallel.start_hosts("h:1", 2, 1)
    seconds = {"heartbeat_timeout_seconds": 60, "shutdown_timeout_seconds": 6 * 3600}
    assert settings == {"jax_cuda_visible_devices": "all", "jax_rocm_visible_devices": "all"}
    assert joined == [
        {**seconds},
        {"coordinator_address": "h:1", "num_processes": 2, "process_id": 1, **seconds},
    ]


def test_an_uncaught_error_ends_a_host_at_once(tmp_path):
    """An unforeseen error is shown with its traceback and ends the process at once, without waiting for other hosts."""
    script = """
import atexit, sys, jax
from pconv_jax.training import parallel
jax.distributed.initialize = lambda **_: None
jax.process_count, jax.process_index = (lambda: 2), (lambda: 1)
parallel.start_hosts("h:1", 2, 1)
atexit.register(print, "waited")
raise KeyError("unforeseen")
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "waited" not in done.stdout
    assert "KeyError: 'unforeseen'\nerror: this host ends, and the job with it" in done.stderr


def test_a_failure_of_one_host_reaches_the_others(monkeypatch):
    """The host that fails raises its error, and the others raise one that names that host."""
    reported = []
    monkeypatch.setattr(parallel, "_of_all_hosts", lambda flag: reported.append(flag) or np.array([flag, False]))
    with pytest.raises(OSError, match="no such folder"), parallel.together():
        raise OSError("no such folder")
    with parallel.together():
        pass
    assert reported == [True, False]
    monkeypatch.setattr(parallel, "_of_all_hosts", lambda flag: np.array([flag, True]))
    with pytest.raises(ValueError, match="host 1 failed: see its log"), parallel.together():
        pass


def test_hosts_with_other_files_are_refused(monkeypatch):
    """Hosts whose images differ are refused, because an incomplete copy would silently change every batch."""
    fingerprints, digests = {"train": "9 files, sha256 ab"}, []
    parallel.check_same("images", fingerprints)  # A single host compares with no other.
    monkeypatch.setattr(jax, "process_count", lambda: 2)

    def gathered(digest):
        digests.append(digest)
        return np.stack([digests[0], digest])

    monkeypatch.setattr(parallel.multihost_utils, "process_allgather", gathered)
    parallel.check_same("images", fingerprints)
    parallel.check_same("images", dict(fingerprints))
    with pytest.raises(
        ValueError, match=r"host 1 has other images than host 0; here it is .*8 files.*: give all hosts"
    ):
        parallel.check_same("images", {"train": "8 files, sha256 cd"})


def test_hosts_share_a_batch():
    """Batch k of two hosts together has the examples of batch k of one host."""
    source, _ = build.image_sources(runs.tiny())
    options = {"seed": 3, "start": 5}
    view, family = pipeline.View(16, (0.5, 1.0)), masks.Family("boxes", (0.1, 0.3))
    whole = next(pipeline.train_batches(source, view, family, batch_size=8, **options))
    halves = [next(pipeline.train_batches(source, view, family, batch_size=4, shard=(i, 2), **options)) for i in (0, 1)]
    together = {x.tobytes() for half in halves for x in half["image"]}
    assert together == {x.tobytes() for x in whole["image"]}


STEPS, EVERY = 20, 5


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


STARTED = []


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left():
    """Ends the processes that a failed test has left running."""
    yield
    for process in STARTED:
        process.kill()
        process.wait()


def start(workdir, hosts, devices, main="pconv_jax.main", **changes):
    """Starts the processes of a job over loopback, each with its number of simulated devices."""
    # "auto" chooses a formulation by the batch of a device, and rounds otherwise on another number of them.
    settings = {"train.steps": STEPS, "train.checkpoint_every": EVERY, "finetune.steps": 4, "model.conv_impl": "xla"}
    settings |= changes
    port, processes = free_port(), []
    environment = runs.environment(devices)
    for host in range(hosts):
        command = [sys.executable, "-m", main, "--config=tests/tiny_experiment.py", f"--workdir={workdir}"]
        command += [f"--config.{key}={value}" for key, value in settings.items()]
        if hosts > 1:
            command += [f"--coordinator=127.0.0.1:{port}", f"--hosts={hosts}", f"--host={host}"]
        log = open(f"{workdir}.host{host}.log", "a")  # noqa: SIM115, the child's
        processes.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log))
        log.close()
    STARTED.extend(processes)
    return processes


def finish(processes, workdir, seconds=600):
    """Waits for the processes and returns their exit codes."""
    deadline, codes = time.monotonic() + seconds, []
    for process in processes:
        try:
            codes.append(process.wait(max(deadline - time.monotonic(), 1)))
        except subprocess.TimeoutExpired:
            pytest.fail(f"still running after {seconds} s: {logs(workdir)}")
    return codes


def logs(workdir):
    return "\n".join(path.read_text()[-3000:] for path in sorted(workdir.parent.glob(f"{workdir.name}.host*.log")))


def wait_for(process, workdir, text, seconds=300):
    """Waits until the first host's log contains a text."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        if re.search(text, pathlib.Path(f"{workdir}.host0.log").read_text()):
            return
        time.sleep(0.05)
    pytest.fail(f"no {text!r}: {logs(workdir)}")


def final_state(workdir, **changes):
    config = runs.tiny(**changes)
    with checkpoints.open_manager(str(workdir)) as manager:
        return checkpoints.restore(manager, build.state_shapes(config))


def difference(a, b):
    """Returns the norm of the difference of all parameters and statistics, relative to their norm."""
    x, y = (np.concatenate([leaf.ravel() for leaf in jax.tree.leaves((s.params, s.batch_stats))]) for s in (a, b))
    return float(np.linalg.norm(x - y) / np.linalg.norm(x))


@pytest.fixture(scope="module")
def one_host(tmp_path_factory):
    """Trains on one host with four devices."""
    workdir = tmp_path_factory.mktemp("one") / "run"
    assert finish(start(workdir, 1, 4), workdir) == [0], logs(workdir)
    return final_state(workdir)


@pytest.mark.slow
@pytest.mark.xdist_group("hosts")  # shares `one_host`
@pytest.mark.parametrize("devices", [1, 2])
def test_devices_agree(one_host, tmp_path, devices):
    """After both phases, 24 steps in float32, the parameters agree with those of one host with four devices."""
    workdir = tmp_path / "run"
    assert finish(start(workdir, 1, devices), workdir) == [0], logs(workdir)
    assert difference(one_host, final_state(workdir)) < 1e-6


@pytest.mark.slow
@pytest.mark.xdist_group("hosts")  # shares `one_host`
def test_input_processes_change_nothing(one_host, tmp_path):
    """Batches that two worker processes prepare lead to the same bits."""
    workdir = tmp_path / "run"
    assert finish(start(workdir, 1, 4, **{"data.workers": 2}), workdir) == [0], logs(workdir)
    assert checkpoints.digest(final_state(workdir)) == checkpoints.digest(one_host)


@pytest.mark.slow
@pytest.mark.xdist_group("hosts")  # shares `one_host`
def test_two_hosts_train_as_one_and_survive_a_death(one_host, tmp_path):
    """If one of two hosts is killed, the other one ends with an error within two minutes.

    The job that is started again ends with the same parameters, and so does one host with two devices that continues
    the first half of the run.
    """
    workdir = tmp_path / "run"
    processes = start(workdir, 2, 2, "tests.slow_steps", **{"train.log_every": 1})
    wait_for(processes[0], workdir, rf"step {EVERY}: PSNR")
    processes[1].kill()
    codes = finish(processes, workdir, 300)  # 60 seconds without a sign of life, and what a busy machine adds
    assert codes[0] != 0, codes
    assert not (workdir / "eval").exists()
    assert finish(start(workdir, 2, 2, **{"train.log_every": 1}), workdir) == [0, 0], logs(workdir)
    assert "resumed at step" in pathlib.Path(f"{workdir}.host0.log").read_text()
    after = final_state(workdir)
    assert int(after.step) == STEPS + 4
    assert difference(one_host, after) < 1e-6
    report = json.loads((workdir / "eval" / "last.json").read_text())
    assert report["parameters_sha256"] == checkpoints.digest(after.params)


@pytest.mark.slow
@pytest.mark.xdist_group("hosts")  # shares `one_host`
def test_a_signal_to_one_host_stops_all_and_another_number_goes_on(one_host, tmp_path):
    """After SIGTERM to one host, both save at the same step and exit with 75, and one host can continue the run."""
    workdir = tmp_path / "run"
    processes = start(workdir, 2, 2, "tests.slow_steps", **{"train.log_every": 1})
    wait_for(processes[0], workdir, rf"step {EVERY}/")
    processes[1].terminate()
    assert finish(processes, workdir) == [preemption.EXIT_CODE] * 2, logs(workdir)
    assert "stopped by another host's signal after step" in pathlib.Path(f"{workdir}.host0.log").read_text()
    assert finish(start(workdir, 1, 2, **{"train.log_every": 1}), workdir) == [0], logs(workdir)
    assert difference(one_host, final_state(workdir)) < 1e-6


@pytest.mark.slow
@pytest.mark.xdist_group("hosts")  # shares `one_host`
def test_a_signal_to_all_hosts_in_the_last_evaluation(one_host, tmp_path):
    """The first host stops with exit code 75, and the other, which waits for it, is not ended by the signal."""
    workdir = tmp_path / "run"
    processes = start(workdir, 2, 2, **{"eval.examples": 1000, "train.checkpoint_every": 1000})
    deadline = time.monotonic() + 300
    while not (workdir / "checkpoints" / str(STEPS + 4)).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    for process in processes:
        process.terminate()
    assert finish(processes, workdir) == [preemption.EXIT_CODE, 0], logs(workdir)
    assert "only the evaluation is left: the same command goes on" in logs(workdir)
    assert difference(one_host, final_state(workdir)) < 1e-6 and not (workdir / "eval").exists()


@pytest.mark.slow
@pytest.mark.xdist_group("hosts")  # shares `one_host`
def test_an_error_on_one_host_ends_the_job(tmp_path):
    """If the first host cannot save, the other one does not wait for it, here in a transfer on two hosts."""
    source, workdir = tmp_path / "source", tmp_path / "run"
    assert finish(start(source, 1, 2, **{"train.steps": 2, "finetune.steps": 0}), source) == [0], logs(source)
    processes = start(workdir, 2, 2, **{"train.log_every": 1, "init_from": source, "train.steps": 2000})
    wait_for(processes[0], workdir, rf"step {EVERY}: PSNR")
    assert json.loads((workdir / "metrics.jsonl").read_text().splitlines()[0])["step"] == 0
    shutil.move(workdir / "checkpoints", tmp_path / "away")
    (workdir / "checkpoints").write_text("")  # the next checkpoint is an error of the first host alone
    assert 0 not in finish(processes, workdir, 300)


@pytest.mark.slow
@pytest.mark.xdist_group("hosts")  # shares `one_host`
def test_a_host_without_the_data_stops_the_job(tmp_path):
    """A batch that does not divide is reported by every host, and no host waits for another."""
    workdir = tmp_path / "run"
    assert finish(start(workdir, 2, 2, **{"train.batch_size": 6}), workdir) == [1, 1]
    assert "train.batch_size is 6 on 4 devices; needs a multiple of 4: use 4 or 8" in logs(workdir)
    assert not workdir.exists()
