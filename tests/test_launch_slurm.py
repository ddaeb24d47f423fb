"""Tests of `./launch.sh train .. --slurm`: the script that it submits, and jobs of a real SLURM (slow)."""

import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

import pytest

import runs

ROOT = pathlib.Path(__file__).resolve().parents[1]
SLURM = ROOT / "tests" / "slurm"


@pytest.fixture
def project(tmp_path):
    """Returns a directory with a space in its name that holds launch.sh and the experiments."""
    folder = tmp_path / "a project"
    shutil.copytree(ROOT / "experiments", folder / "experiments")
    for name in ("launch.sh", "requirements.txt"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture
def commands(tmp_path):
    """Returns `add(name, script)` for stand-ins of commands; `add.path` is a PATH of few commands, without SLURM."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("env", "bash", "cat", "cksum", "dirname", "mkdir", "uname"):
        (folder / name).symlink_to(shutil.which(name))

    def add(name, script):
        (folder / name).write_text(f"#!/bin/bash\n{script}\n")
        (folder / name).chmod(0o755)

    add.path = str(folder)
    return add


def launch(project, *arguments, path=None, python=sys.executable, command="train"):
    """Runs `./launch.sh COMMAND ARGUMENTS` with this interpreter in place of .venv."""
    environment = {**os.environ, "PATH": path or os.environ["PATH"], "PCONV_PYTHON": python}
    command = [project / "launch.sh", command, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def dry_run(project, *arguments, **options):
    """Returns the job script for experiments/folder.py."""
    done = launch(project, "experiments/folder.py", *arguments, "--slurm", "--dry-run", **options)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout


def directives(script):
    """Returns the options of sbatch in a script, one text per line."""
    return re.findall(r"^#SBATCH (.*)$", script, re.MULTILINE)


def test_dry_run_shows_the_script_and_does_nothing_else(project, commands):
    """Without SLURM and Python, --dry-run prints a script with the given options, and makes neither .venv nor runs/."""
    before = sorted(project.rglob("*"))
    script = dry_run(project, "--nodes=2", "--gpus-per-node=8", "--cpus-per-task=12", path=commands.path, python="")
    assert sorted(project.rglob("*")) == before
    assert script.startswith("#!/usr/bin/env bash\n#SBATCH")
    assert directives(script) == [
        "--job-name=folder",
        "--nodes=2",
        "--ntasks-per-node=1",
        "--cpus-per-task=12",
        "--output=runs/folder-%j.out",
        "--open-mode=append",
        "--requeue",
        "--signal=TERM@120",
        "--gres=gpu:8",
    ]
    assert "PCONV_PYTHON=.venv/bin/python ./launch.sh train experiments/folder.py" in script


def test_defaults_of_a_job(project):
    """By default a job has one node, one GPU and four processors per GPU, and also four without a GPU."""
    assert {"--nodes=1", "--gres=gpu:1", "--cpus-per-task=4"} <= set(directives(dry_run(project)))
    assert "--cpus-per-task=32" in directives(dry_run(project, "--gpus-per-node=8"))
    without = dry_run(project, "--gpus-per-node=0")
    assert "--cpus-per-task=4" in directives(without) and "gres" not in without


def test_other_options_come_last(project):
    """Options of --sbatch come last and unchanged, so that sbatch prefers them to ours."""
    options = ["--time=4:00:00 --account=y", '--comment="two words"', "--signal=TERM@300"]
    lines = directives(dry_run(project, *(f"--sbatch={option}" for option in options)))
    assert lines[-3:] == options


def run_job(script, commands, tmp_path, status=0, **more):
    """Runs a script with stand-ins for SLURM.

    Returns the exit code, and the directory and arguments with which srun and scontrol were called.
    """
    for name, code in (("srun", status), ("scontrol", 0)):
        commands(name, f'printf \'%s\\0\' "$PWD" "$@" >{shlex.quote(str(tmp_path / name))}\nexit {code}')
    environment = {"PATH": commands.path, "SLURM_JOB_ID": "12", "SLURM_CPUS_PER_TASK": "4", **more}
    done = subprocess.run(["bash"], input=script, env=environment, cwd="/", text=True, check=False)
    calls = [tmp_path / name for name in ("srun", "scontrol")]
    return done.returncode, *(path.read_text().split("\0")[:-1] if path.exists() else None for path in calls)


def test_arguments_reach_training_as_they_were(project, commands, tmp_path):
    """Arguments with spaces, quotes, variables and newlines reach training unchanged, as do paths with spaces."""
    arguments = [
        "experiments/folder.py",
        "--config.data.path=/a b/c",
        '--config.data.pattern=it\'s "$HOME" `id` \\ *; #x',
        "two\nlines",
        "--workdir",
        "",
    ]
    done = launch(project, *arguments, "--slurm", "--dry-run", python="/my env/python")
    status, srun, _ = run_job(done.stdout, commands, tmp_path)
    head = [str(project), "--label", "--kill-on-bad-exit=0", "--cpus-per-task=4", "env", "PCONV_PYTHON=/my env/python"]
    assert status == 0 and srun == [*head, "./launch.sh", "train", *arguments]


@pytest.mark.parametrize("status", [0, 1, 2, 75, 137, 143])
def test_only_a_saved_run_queues_again(project, commands, tmp_path, status):
    """The job is requeued only after exit code 75, which means a saved run, and ends with training's exit code."""
    code, _, scontrol = run_job(dry_run(project), commands, tmp_path, status)
    assert code == status
    assert scontrol == ([str(project), "requeue", "12"] if status == 75 else None)


def test_submits_what_the_dry_run_shows(project, commands, tmp_path):
    """sbatch gets the script of --dry-run on standard input, after the directory of the log has been made."""
    commands("sbatch", f"cat >{shlex.quote(str(tmp_path / 'script'))}\necho Submitted batch job 12")
    done = launch(project, "experiments/folder.py", "--slurm", "--nodes=3", path=commands.path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Submitted batch job 12\n", "")
    assert (tmp_path / "script").read_text() == dry_run(project, "--nodes=3")
    assert (project / "runs").is_dir()


def test_a_refusal_of_sbatch_is_an_error(project, commands):
    """If sbatch refuses the job, launch.sh ends with its exit code and its message."""
    commands("sbatch", "cat >/dev/null\necho 'sbatch: error: invalid partition' >&2\nexit 3")
    done = launch(project, "experiments/folder.py", "--slurm", path=commands.path)
    assert done.returncode == 3 and done.stderr == "sbatch: error: invalid partition\n"


def test_installs_before_it_submits(project, commands):
    """If the installation fails, launch.sh stops on the submitting host, and no job is queued."""
    commands("python3", "exit 1")
    commands("sbatch", "touch submitted")
    done = launch(project, "experiments/folder.py", "--slurm", path=commands.path, python="")
    assert done.returncode == 1 and "needs Python 3.11 or newer" in done.stderr
    assert not (project / "submitted").exists() and not (project / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nodes=0"], "--nodes=0; needs a whole number from 1"),
        (["--nodes=two"], "--nodes=two; needs"),
        (["--nodes="], "--nodes=; needs"),
        (["--nodes", "2"], "--nodes: write --slurm, --dry-run, --nodes=N"),
        (
            ["--gpus-per-node=x"],
            "--gpus-per-node=x; needs a whole number (of one type: --gpus-per-node=0 --sbatch=--gres",
        ),
        (["--gpus-per-node=-1"], "--gpus-per-node=-1; needs"),
        (["--cpus-per-task=0"], "--cpus-per-task=0; needs a whole number from 1"),
        (["--sbatch=partition=x"], "--sbatch=partition=x; needs options of sbatch, e.g. --sbatch=--time=4:00:00"),
        (["--sbatch=--time=1\nrm x"], "needs options of sbatch"),
        (["--sbatch"], "--sbatch: write"),
        (["--dry-run=yes"], "--dry-run=yes: write"),
    ],
)
def test_wrong_options_are_refused(project, commands, arguments, message):
    """Wrong options are refused before anything is installed or submitted."""
    commands("sbatch", "touch submitted")
    done = launch(project, "experiments/folder.py", *arguments, "--slurm", path=commands.path, python="")
    assert done.returncode == 2 and done.stderr.startswith("error: ") and message in done.stderr
    assert not (project / "submitted").exists() and not (project / ".venv").exists()


def test_a_config_that_is_not_there_is_refused(project, commands):
    """A missing config is refused before the job is submitted; ml_collections' `file:argument` counts as the file."""
    done = launch(project, "experiments/floder.py", "--slurm", path=commands.path)
    assert done.returncode == 2 and "experiments/floder.py is not there; train needs a config file" in done.stderr
    done = launch(project, "experiments/folder.py:argument", "--slurm", "--dry-run")
    assert "--job-name=folder" in directives(done.stdout)


def test_without_slurm_the_dry_run_is_named(project, commands):
    done = launch(project, "experiments/folder.py", "--slurm", path=commands.path)
    assert done.returncode == 2 and "sbatch is not on PATH" in done.stderr and "--dry-run" in done.stderr


SWEEP = ["experiments/ablation.py", "--variants=zero,gated", "--seeds=0,4", "--config.data.path=/a b"]


@pytest.fixture
def counter(commands, tmp_path):
    """Returns `counter(script)`: it makes a stand-in for the Python that counts runs, and returns its path."""

    def make(script):
        commands("counter", f"printf '%s\\0' \"$@\" >{shlex.quote(str(tmp_path / 'counted'))}\n{script}")
        return f"{commands.path}/counter"

    return make


def test_a_sweep_is_an_array(project, commands, counter, tmp_path):
    """A sweep is a job array with one task and one log per run, and --dry-run shows the script that is submitted."""
    options = {"path": commands.path, "python": counter("echo 6"), "command": "sweep"}
    before = sorted(project.iterdir())
    done = launch(project, *SWEEP, "--slurm", "--dry-run", "--gpus-per-node=2", **options)
    assert done.returncode == 0 and not done.stderr and sorted(project.iterdir()) == before, done.stderr
    wanted = {"--array=0-5", "--output=runs/ablation-%A_%a.out", "--gres=gpu:2", "--requeue", "--nodes=1"}
    assert wanted <= set(directives(done.stdout))
    counted = (tmp_path / "counted").read_text().split("\0")[:-1]
    assert counted == ["-m", "pconv_jax.sweep", f"--config={SWEEP[0]}", *SWEEP[1:], "--count"]
    code, srun, scontrol = run_job(done.stdout, commands, tmp_path, status=75, SLURM_ARRAY_TASK_ID="3")
    assert srun[-len(SWEEP) - 3 :] == ["./launch.sh", "sweep", *SWEEP, "--only=3"]
    assert code == 75 and scontrol[1:] == ["requeue", "12"]
    commands("sbatch", f"cat >{shlex.quote(str(tmp_path / 'script'))}\necho Submitted batch job 12")
    submitted = launch(project, *SWEEP, "--slurm", "--gpus-per-node=2", **options)
    assert submitted.stdout == "Submitted batch job 12\n" and "when all are done: ./launch.sh sweep" in submitted.stderr
    assert (tmp_path / "script").read_text() == done.stdout and (project / "runs").is_dir()


@pytest.mark.parametrize("python", ["wrong", "absent"])
def test_a_wrong_sweep_is_not_submitted(project, commands, counter, python):
    """A sweep is checked on the submitting host before anything is submitted, by the interpreter of the tasks."""
    commands("sbatch", "touch submitted")
    path = counter("echo 'error: the variant zer is unknown' >&2\nexit 1") if python == "wrong" else "/none/python"
    done = launch(project, *SWEEP, "--slurm", path=commands.path, python=path, command="sweep")
    message = (
        "variant zer is unknown" if python == "wrong" else "/none/python is not there, and only it can tell how many"
    )
    assert done.returncode in (1, 2) and message in done.stderr
    assert not (project / "submitted").exists() and not (project / "runs").exists()


class Cluster:
    """A running SLURM, and a project whose jobs it runs."""

    def __init__(self, folder, project):
        self.folder = folder
        self.project = project
        slurm = {"SLURM_CONF": str(folder / "slurm.conf"), "PCONV_PYTHON": sys.executable}
        self.environment = {**runs.environment(1), **slurm}
        self.digests = {}

    def call(self, *command):
        """Runs a command that must succeed, and returns its output."""
        done = subprocess.run(
            command, cwd=self.project, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def submit(self, workdir, *arguments, nodes=1, steps=None):
        """Submits a job that trains the tiny experiment on one processor of each node, and returns its number.

        About ten seconds of its steps are left after the first checkpoint, in which a test can act on the job.
        """
        steps = steps or {1: 600, 2: 200}[nodes]
        settings = {
            "train.steps": steps,
            "train.checkpoint_every": 30,
            "train.log_every": 30,
            "train.sample_every": steps,
        }
        flags = [f"--config.{key}={value}" for key, value in settings.items()]
        command = ["./launch.sh", "train", "tests/tiny_experiment.py", *flags, f"--workdir={workdir}", *arguments]
        out = self.call(*command, "--slurm", f"--nodes={nodes}", "--gpus-per-node=0", "--cpus-per-task=1")
        return re.fullmatch(r"Submitted batch job (\d+)\n", out)[1]

    def field(self, job, name):
        """Returns a field of `scontrol show job`."""
        return re.search(rf"\b{name}=(\S+)", self.call("scontrol", "show", "job", job))[1]

    def log(self, job):
        """Returns everything that the job has printed, over all its restarts."""
        path = self.project / "runs" / f"tiny_experiment-{job}.out"
        return path.read_text() if path.exists() else ""

    def wait(self, job, what, condition, seconds=600):
        """Waits until `condition()` is true, and fails with the job's logs after `seconds`."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                logs = "".join(f"\n{path}\n{path.read_text()[-3000:]}" for path in sorted(self.folder.glob("*.log")))
                job_is = self.call("scontrol", "show", "job", job)
                pytest.fail(f"{what}: not in {seconds} s\n{job_is}\n{self.log(job)[-5000:]}\n{logs}")
            time.sleep(0.2)

    def wait_for_state(self, job, state):
        ended = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
        self.wait(job, "the end", lambda: self.field(job, "JobState") in ended)
        assert self.field(job, "JobState") == state, self.log(job)[-5000:]

    def undisturbed(self, nodes):
        """Returns the digest of the parameters of an undisturbed run."""
        if nodes not in self.digests:
            workdir = self.project / "runs" / f"undisturbed_{nodes}"
            job = self.submit(workdir, nodes=nodes)
            self.wait_for_state(job, "COMPLETED")
            assert self.field(job, "Restarts") == "0"
            self.digests[nodes] = digest(workdir)
        return self.digests[nodes]


def newest(workdir):
    """Returns the step of the newest checkpoint, or 0."""
    folder = pathlib.Path(workdir) / "checkpoints"
    return max(
        [int(path.name) for path in folder.iterdir() if path.name.isdigit()] if folder.exists() else [], default=0
    )


def digest(workdir):
    return json.loads((pathlib.Path(workdir) / "eval" / "last.json").read_text())["parameters_sha256"]


@pytest.fixture(scope="module")
def cluster():
    """Starts SLURM's daemons with all their files in a temporary directory."""
    missing = [
        name
        for name in ("munged", "slurmctld", "slurmd", "sbatch")
        if not shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin")
    ]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: tests/slurm/install.sh")
    if os.geteuid() != 0:
        pytest.skip("slurmd needs root")
    with tempfile.TemporaryDirectory(prefix="slurm_") as name:
        folder = pathlib.Path(name)
        project = folder / "project"
        project.mkdir()
        shutil.copy(ROOT / "launch.sh", project)
        for room in ("pconv_jax", "experiments", "tests"):
            (project / room).symlink_to(ROOT / room)
        try:
            subprocess.run([SLURM / "start.sh", folder], check=True, stdin=subprocess.DEVNULL, timeout=120)
            yield Cluster(folder, project)
        finally:
            subprocess.run([SLURM / "stop.sh", folder], check=True, timeout=200)


@pytest.mark.slow
@pytest.mark.xdist_group("slurm")  # shares `cluster`
@pytest.mark.parametrize("nodes", [1, 2])
def test_a_requeued_job_resumes_and_completes(cluster, nodes):
    """A job that is requeued in the middle of training, as after a preemption, ends with the same parameters."""
    workdir = cluster.project / "runs" / f"requeued_{nodes}"
    job = cluster.submit(workdir, nodes=nodes)
    cluster.wait(job, "a checkpoint", lambda: newest(workdir) > 0)
    cluster.call("scontrol", "requeue", job)
    cluster.wait_for_state(job, "COMPLETED")
    print(cluster.call("scontrol", "show", "job", job) + cluster.log(job))
    assert cluster.field(job, "Restarts") == "1" and cluster.field(job, "NumNodes") == str(nodes)
    assert "DUE TO JOB REQUEUE" in cluster.log(job)
    assert int(re.search(r"resumed at step (\d+)", cluster.log(job))[1]) > 0
    assert len(set(re.findall(r"^(\d): .* training: steps", cluster.log(job), re.MULTILINE))) == nodes
    assert digest(workdir) == cluster.undisturbed(nodes)


@pytest.mark.slow
@pytest.mark.xdist_group("slurm")  # shares `cluster`
def test_a_job_at_its_time_limit_queues_again(cluster):
    """After a signal to the tasks and worker processes alone, training saves and the job requeues itself."""
    workdir = cluster.project / "runs" / "limited"
    job = cluster.submit(workdir, "--config.data.workers=2")
    cluster.wait(job, "a checkpoint", lambda: newest(workdir) > 0)
    cluster.call("scancel", "--signal=TERM", job)
    cluster.wait_for_state(job, "COMPLETED")
    print(cluster.call("scontrol", "show", "job", job) + cluster.log(job))
    assert cluster.field(job, "Restarts") == "1"
    assert digest(workdir) == cluster.undisturbed(1)


@pytest.mark.slow
@pytest.mark.xdist_group("slurm")  # shares `cluster`
def test_a_cancelled_job_stays_cancelled(cluster):
    """After scancel training saves and exits with 75, and the job is not requeued."""
    workdir = cluster.project / "runs" / "cancelled"
    job = cluster.submit(workdir, steps=100_000)
    cluster.wait(job, "a checkpoint", lambda: newest(workdir) > 0)
    cluster.call("scancel", job)
    cluster.wait(job, "training's end", lambda: "Exited with exit code 75" in cluster.log(job))
    cluster.wait(job, "the job's end", lambda: job not in cluster.call("squeue", "--noheader", "--format=%i"))
    assert cluster.field(job, "JobState") == "CANCELLED" and cluster.field(job, "Restarts") == "0"


@pytest.mark.slow
@pytest.mark.xdist_group("slurm")  # shares `cluster`
def test_a_job_that_fails_is_not_tried_again(cluster):
    """A job whose training fails ends with training's exit code, and its log has the reason."""
    workdir = cluster.project / "runs" / "failed"
    job = cluster.submit(
        workdir, "--config.data.source=folder", "--config.data.path=/not there", "--sbatch=--comment='a b'"
    )
    cluster.wait_for_state(job, "FAILED")
    assert cluster.field(job, "Restarts") == "0" and cluster.field(job, "ExitCode") == "1:0"
    assert "/not there" in cluster.log(job)
    assert "Comment=a b" in cluster.call("scontrol", "show", "job", job)
