"""Runs of a sweep as processes: one after another, or one per GPU. None stops the rest; signals are passed on."""

import contextlib
import dataclasses
import functools
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from absl import logging

from pconv_jax.sweeping import plan, results
from pconv_jax.training import preemption, reporting

_POLL_SECONDS = 0.2
_TELL_SECONDS = 30
_CUDA = ("jax_cuda13_plugin", "jax_cuda12_plugin")  # one of them makes JAX see NVIDIA's GPUs


@dataclasses.dataclass
class Outcome:
    """What became of the runs: those that ended well, those that failed with the reason, those that can go on."""

    finished: list[plan.Run] = dataclasses.field(default_factory=list)
    failed: list[tuple[plan.Run, str]] = dataclasses.field(default_factory=list)
    stopped: list[plan.Run] = dataclasses.field(default_factory=list)


def command(run: plan.Run, more: Sequence[str] = ()) -> list[str]:
    """The main command, with this interpreter; `more` are flags for all runs that are not of the config."""
    return [sys.executable, "-m", "pconv_jax.main", *run.arguments, *more]


def visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """The GPUs that runs may use: of CUDA_VISIBLE_DEVICES, else all that nvidia-smi lists; none if JAX cannot."""
    gpus = _listed_gpus(environment)
    if gpus and not any(map(importlib.util.find_spec, _CUDA)):
        logging.warning("%d GPUs are left alone, JAX is installed without CUDA: pip install jax[cuda13]", len(gpus))
        return []
    return gpus


def _listed_gpus(environment):
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        gpus = [gpu.strip() for gpu in chosen.split(",")]
        return gpus[: next((i for i, gpu in enumerate(gpus) if gpu in ("", "-1")), len(gpus))]  # as CUDA reads it
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    return done.stdout.split() if done.returncode == 0 else []


def run_all(runs: Sequence[plan.Run], gpus: Sequence[str], more: Sequence[str] = ()) -> Outcome:
    """Trains all runs that are not finished, each in a process of its own, one per GPU or one at a time without.

    SIGTERM and SIGINT reach the running ones, which save and end; no other is started then. So they do when anything
    goes wrong here: none trains on without being watched.

    Args:
      runs: of the sweep.
      gpus: as of `visible_gpus`.
      more: as for `command`.
    """
    outcome = Outcome()
    outcome.finished = [run for run in runs if results.scores(run) is not None]
    waiting = [run for run in runs if run not in outcome.finished]
    progress = Progress(runs, outcome.finished)
    if outcome.finished:
        logging.info("%d of %d runs are finished already", len(outcome.finished), len(runs))
    free, active = list(gpus) or [None], []
    with _signals() as signals, _ended_with(active):
        while active or (waiting and not signals):
            while waiting and free and not signals:
                _begin(waiting.pop(0), free, active, outcome, more)
            for child in active:
                child.pass_on(signals)
            for child in [child for child in active if child.process.poll() is not None]:
                active.remove(child)
                free.append(child.gpu)
                _ended(child, outcome, bool(signals))
                logging.info("%s", progress.line(outcome, [child.run for child in active]))
            progress.tell(outcome, [child.run for child in active])
            time.sleep(_POLL_SECONDS)
    outcome.stopped += waiting
    return outcome


@dataclasses.dataclass
class _Child:
    run: plan.Run
    gpu: str | None
    process: subprocess.Popen
    log_start: int
    told: int = 0

    def pass_on(self, signals):
        """Each signal once: the first makes it save and end, the second ends it at once."""
        for _ in signals[self.told :]:
            self.process.send_signal(signal.SIGTERM)
        self.told = len(signals)


def _begin(run, free, active, outcome, more):
    """Starts a run on a free GPU; one that cannot be, for want of room for its log, say, has failed."""
    try:
        active.append(_start(run, free[0], more))
    except OSError as error:
        outcome.failed.append((run, f"cannot be started: {error}"))
        logging.error("%s: cannot be started: %s", run.name, error)
        return
    free.pop(0)
    logging.info("%s: begins, log in %s", run.name, run.log)


@contextlib.contextmanager
def _ended_with(active):
    """An error ends what runs, which saves first."""
    try:
        yield
    except BaseException:
        for child in active:
            child.process.terminate()
        for child in active:
            child.process.wait()
        raise


def _start(run, gpu, more):
    """Its own process group: Ctrl-C in a terminal must not reach it twice, which would end it without saving."""
    os.makedirs(os.path.dirname(run.log), exist_ok=True)
    own = {**os.environ} | ({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu})
    with open(run.log, "ab") as log:
        start = log.tell()
        pipes = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT}
        process = subprocess.Popen([*_tied(), *command(run, more)], env=own, process_group=0, **pipes)
    return _Child(run, gpu, process, start)


@functools.cache
def _tied():
    """What to start a command with so that Linux sends it SIGTERM when this process is killed: it saves and ends.

    A program does it: code of ours between fork and exec (`preexec_fn`) is not safe beside threads of libraries.
    """
    prefix = ["setpriv", "--pdeathsig", "TERM"]
    try:
        return prefix if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0 else []
    except OSError:  # no such program
        return []


def _ended(child, outcome, signalled):
    """Files a run under what became of it."""
    run, code = child.run, child.process.returncode
    if code == 0 and results.scores(run) is not None:
        outcome.finished.append(run)
        logging.info("%s: finished", run.name)
    elif code == preemption.EXIT_CODE or (signalled and code):
        outcome.stopped.append(run)
        logging.info("%s: stopped, can go on", run.name)
    else:
        reason = results.last_error(run.log, child.log_start)
        reason = f"exit code {code}: {reason}" if code else f"ended without its scores: {reason}"
        outcome.failed.append((run, reason))
        logging.error("%s: failed, %s", run.name, reason)


@contextlib.contextmanager
def _signals():
    """Collects SIGTERM and SIGINT in a list as they arrive."""
    received = []
    before = {
        number: signal.signal(number, lambda number, _: received.append(number))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Progress:
    """Over all runs, by steps; the time left from the steps since the start.

    Args:
      runs: of the sweep.
      finished: those of them that are.
      clock: seconds.
    """

    def __init__(self, runs: Sequence[plan.Run], finished: Sequence[plan.Run], clock=time.monotonic):
        self._runs, self._all, self._clock = runs, sum(run.steps for run in runs), clock
        self._started = self._told = clock()
        self._before = sum(run.steps if run in finished else results.step(run) for run in runs)

    def tell(self, outcome: Outcome, active: Sequence[plan.Run]):
        """Logs the line, now and then."""
        if self._clock() - self._told >= _TELL_SECONDS:
            logging.info("%s", self.line(outcome, active))

    def line(self, outcome: Outcome, active: Sequence[plan.Run]) -> str:
        """Runs and steps that are done, the time left, and where the running ones are. Failed runs do not count."""
        self._told = self._clock()
        failed = [run for run, _ in outcome.failed]
        steps = [run.steps if run in outcome.finished else results.step(run) for run in self._runs if run not in failed]
        total = self._all - sum(run.steps for run in failed)
        done, seconds = sum(steps), self._told - self._started
        rate = (done - self._before) / seconds if seconds else 0
        left = f", {reporting.duration((total - done) / rate)} left" if rate > 0 else ""
        now = "".join(f"; {run.name} at step {results.step(run)} of {run.steps}" for run in active)
        told = f"{len(outcome.finished)} of {len(self._runs)} runs finished, {len(failed)} failed"
        return f"{told}, {done / max(total, 1):.0%} of all steps{left}{now}"
