"""Trains the runs of a sweep in processes, one after another or one per GPU.

A run that fails does not stop the others. Signals are passed on to the running processes.
"""

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
_REPORT_SECONDS = 30
_CUDA = ("jax_cuda13_plugin", "jax_cuda12_plugin")  # JAX sees NVIDIA's GPUs through one of these.


@dataclasses.dataclass
class Outcome:
    """The outcome of a sweep.

    Attributes:
      finished: runs that are finished.
      failed: runs that failed, each with the reason.
      stopped: runs that were stopped or never started, and can be resumed.
    """

    finished: list[plan.Run] = dataclasses.field(default_factory=list)
    failed: list[tuple[plan.Run, str]] = dataclasses.field(default_factory=list)
    stopped: list[plan.Run] = dataclasses.field(default_factory=list)


def command(run: plan.Run, more: Sequence[str] = ()) -> list[str]:
    """Returns the command line of a run, with this interpreter.

    Args:
      run: the run.
      more: further flags, which are not part of the config.
    """
    return [sys.executable, "-m", "pconv_jax.main", *run.arguments, *more]


def visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """Returns the GPUs that runs may use; empty if JAX is installed without CUDA.

    Args:
      environment: environment variables. CUDA_VISIBLE_DEVICES chooses GPUs; without it nvidia-smi lists them.
    """
    gpus = _listed_gpus(environment)
    if gpus and not any(map(importlib.util.find_spec, _CUDA)):
        logging.warning(
            "%d GPUs are not used because JAX is installed without CUDA: pip install jax[cuda13]", len(gpus)
        )
        return []
    return gpus


def _listed_gpus(environment):
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        gpus = [gpu.strip() for gpu in chosen.split(",")]
        # CUDA ignores all entries from the first invalid one on.
        return gpus[: next((i for i, gpu in enumerate(gpus) if gpu in ("", "-1")), len(gpus))]
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    return done.stdout.split() if done.returncode == 0 else []


def run_all(runs: Sequence[plan.Run], gpus: Sequence[str], more: Sequence[str] = ()) -> Outcome:
    """Trains all unfinished runs, each in its own process: one per GPU, or one at a time without GPUs.

    SIGTERM and SIGINT are passed on to the running processes, which save and end; no other run is started then. An
    error in this process ends the running processes in the same way, so that none trains on unattended.

    Args:
      runs: the runs of the sweep.
      gpus: GPUs as returned by `visible_gpus`.
      more: further flags for every run.

    Returns:
      The outcome of all runs.
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
            progress.log(outcome, [child.run for child in active])
            time.sleep(_POLL_SECONDS)
    outcome.stopped += waiting
    return outcome


@dataclasses.dataclass
class _Child:
    run: plan.Run
    gpu: str | None
    process: subprocess.Popen
    log_start: int
    signals_sent: int = 0

    def pass_on(self, signals):
        """Sends each signal once: the first makes the run save and end, the second ends it at once."""
        for _ in signals[self.signals_sent :]:
            self.process.send_signal(signal.SIGTERM)
        self.signals_sent = len(signals)


def _begin(run, free, active, outcome, more):
    """Starts a run on a free GPU; a run that cannot be started, for example on a full disk, counts as failed."""
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
    """Ends the running processes if the block raises; they save first."""
    try:
        yield
    except BaseException:
        for child in active:
            child.process.terminate()
        for child in active:
            child.process.wait()
        raise


def _start(run, gpu, more):
    """Starts a run in its own process group, so that Ctrl-C does not reach it twice and end it without saving."""
    os.makedirs(os.path.dirname(run.log), exist_ok=True)
    environment = {**os.environ} | ({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu})
    with open(run.log, "ab") as log:
        start = log.tell()
        pipes = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT}
        process = subprocess.Popen([*_tied(), *command(run, more)], env=environment, process_group=0, **pipes)
    return _Child(run, gpu, process, start)


@functools.cache
def _tied():
    """Returns a command prefix that makes Linux send SIGTERM to the command when this process is killed.

    A separate program (setpriv) is used because Python code between fork and exec (`preexec_fn`) is not safe when
    libraries have started threads.
    """
    prefix = ["setpriv", "--pdeathsig", "TERM"]
    try:
        return prefix if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0 else []
    except OSError:  # setpriv is not installed.
        return []


def _ended(child, outcome, signalled):
    """Adds an ended run to the outcome."""
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
    """The progress of a sweep in steps over all runs, with an estimate of the time left.

    Args:
      runs: the runs of the sweep.
      finished: those of them that are finished.
      clock: function that returns the time in seconds.
    """

    def __init__(self, runs: Sequence[plan.Run], finished: Sequence[plan.Run], clock=time.monotonic):
        self._runs, self._all, self._clock = runs, sum(run.steps for run in runs), clock
        self._started = self._reported = clock()
        self._before = sum(run.steps if run in finished else results.step(run) for run in runs)

    def log(self, outcome: Outcome, active: Sequence[plan.Run]):
        """Logs the progress if the last report is more than half a minute old.

        Args:
          outcome: the outcome so far.
          active: the running runs.
        """
        if self._clock() - self._reported >= _REPORT_SECONDS:
            logging.info("%s", self.line(outcome, active))

    def line(self, outcome: Outcome, active: Sequence[plan.Run]) -> str:
        """Formats finished runs and steps, the time left, and the steps of the running runs. Failed runs are left out.

        Args:
          outcome: the outcome so far.
          active: the running runs.

        Returns:
          One line for the log.
        """
        self._reported = self._clock()
        failed = [run for run, _ in outcome.failed]
        steps = [run.steps if run in outcome.finished else results.step(run) for run in self._runs if run not in failed]
        total = self._all - sum(run.steps for run in failed)
        done, seconds = sum(steps), self._reported - self._started
        rate = (done - self._before) / seconds if seconds else 0
        left = f", {reporting.duration((total - done) / rate)} left" if rate > 0 else ""
        running = "".join(f"; {run.name} at step {results.step(run)} of {run.steps}" for run in active)
        counts = f"{len(outcome.finished)} of {len(self._runs)} runs finished, {len(failed)} failed"
        return f"{counts}, {done / max(total, 1):.0%} of all steps{left}{running}"
