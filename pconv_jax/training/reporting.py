"""Reports a run: metrics as JSON lines and TensorBoard events, progress in the log."""

import errno
import json
import os
import time
from concurrent import futures

import jax
import numpy as np

from pconv_jax import errors
from pconv_jax.data import pipeline
from pconv_jax.training import rundir


class MetricsLog:
    """Appends to metrics.jsonl and to TensorBoard events."""

    def __init__(self, workdir: str, step: int):
        """Opens both, and drops the metrics that a killed run wrote after its last checkpoint.

        Args:
          workdir: the run directory.
          step: the step from which the run continues.
        """
        import tensorboardX  # Imported here, because filling photographs uses this module without the library.

        path = os.path.join(workdir, "metrics.jsonl")
        if os.path.exists(path):
            rundir.write_atomically(path, "".join(f"{line}\n" for line in _lines_until(path, step)))
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115, closed by __exit__
        self._events = tensorboardX.SummaryWriter(workdir, purge_step=step + 1, write_to_disk=True)

    def write(self, step: int, values: dict[str, float]):
        """Writes one JSON line `{"step": .., name: value, ..}` and one TensorBoard scalar per name.

        Args:
          step: number of steps done.
          values: values by name.

        Raises:
          OSError: they cannot be written.
        """
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        self._check_events()
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def image(self, step: int, name: str, image: np.ndarray):
        """Adds a picture to TensorBoard.

        Args:
          step: number of steps done.
          name: name of the picture.
          image: uint8 RGB `[H, W, 3]`.
        """
        self._check_events()
        self._events.add_image(name, image, step, dataformats="HWC")

    def _check_events(self):
        """Raises OSError if tensorboardX's writing thread has died of an error; the next call would block forever."""
        if not self._events.file_writer.event_writer._worker.is_alive():
            raise OSError(errno.ENOSPC, "TensorBoard's events could not be written", self._events.logdir)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()
        self._check_events()
        self._events.close()


class Progress:
    """Measures the rate and the time left, from the time spent in training steps alone."""

    def __init__(self, step: int, steps: int, batch_size: int):
        """Starts the clock.

        Args:
          step: number of steps done.
          steps: number of steps of the whole run.
          batch_size: training examples per step.
        """
        self.steps, self.batch_size = steps, batch_size
        self.restart(step)
        self._training_seconds, self._training_steps = 0.0, 0
        self._watcher, self._last = futures.ThreadPoolExecutor(1), None

    def restart(self, step: int):
        """Restarts the clock, after anything that is not training."""
        self._step, self._started, self._waited = step, time.perf_counter(), 0.0

    def dispatched(self, metrics):
        """Records that a step was dispatched; a thread waits for its metrics, device arrays that are not ready yet."""
        self._last = self._watcher.submit(_when_ready, metrics)

    def waited(self, started: float):
        """Adds the time since `started` (of `time.perf_counter`) in which no step was being computed.

        The devices compute while the loop fetches the next batch, so only the time in which they are idle counts. If
        batches are prepared on the processor that also computes the steps, the slowdown of the steps is not included.
        """
        if self._last is None:
            self._waited += time.perf_counter() - started
        elif self._last.done():
            self._waited += time.perf_counter() - max(started, self._last.result())

    def measure(self, step: int) -> dict[str, float]:
        """Returns `images_per_s`, `data_wait` (fraction of the time, see `waited`) and `seconds_left`, and restarts.

        Rate and time left are 0 before the first timed step; the step that compiles is not timed.
        """
        seconds, count = time.perf_counter() - self._started, step - self._step
        self._training_seconds += seconds
        self._training_steps += count
        rate = {
            "images_per_s": count * self.batch_size / seconds,
            "data_wait": self._waited / seconds,
            "seconds_left": (self.steps - step) * self._training_seconds / max(self._training_steps, 1),
        }
        self.restart(step)
        return rate

    def line(self, step: int, values: dict[str, float], rate: dict[str, float]) -> str:
        """Formats a log line, with the raw terms of the loss and without the weighted ones.

        Args:
          step: number of steps done.
          values: metrics by name.
          rate: the result of `measure`.
        """
        shown = {name: value for name, value in values.items() if name != "skipped" and "/" not in name}
        terms = "  ".join(f"{name} {value:.4g}" for name, value in shown.items())
        skipped = f"  {values['skipped']:.0f} corrupt images skipped" if values.get("skipped") else ""
        return (
            f"step {step}/{self.steps} ({step / self.steps:.0%})  {terms}{skipped}  "
            f"{rate['images_per_s']:.1f} images/s  {duration(rate['seconds_left'])} left"
        )


class NonFinite(errors.UserError):
    """A loss, gradient or parameter is NaN or infinite."""


def explained(error: MemoryError | RuntimeError) -> str | None:
    """Returns a line that says what to do about an error of a library; None if the error is unknown."""
    text = str(error)
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text:
        reason = text.partition("\n")[0]
        return f"out of memory ({reason}): lower train.batch_size or data.size, or set train.accumulate"
    if "exit code -7" in text and text.startswith("Worker process was terminated"):  # SIGBUS: no page is left.
        return pipeline.SHARED_MEMORY_FULL
    if text.startswith("Worker process was terminated"):  # the text of grain's error
        return f"{text} The system may have killed it for lack of memory: lower data.workers; the same command goes on"
    return None


def interval(pending: list[tuple[int, dict]]) -> dict[str, float]:
    """Reads the metrics of several steps from the device and averages them; `skipped` is summed.

    Args:
      pending: pairs of a step and its metrics.

    Returns:
      The means by name.

    Raises:
      NonFinite: a value is not finite; the message has the first such step and all its terms.
    """
    rows = [(step, {name: float(value) for name, value in metrics.items()}) for step, metrics in pending]
    for step, row in rows:
        if not np.isfinite(list(row.values())).all():
            terms = ", ".join(f"{name} {value:.4g}" for name, value in row.items())
            raise NonFinite(
                f"step {step} is not finite ({terms}): look at the data, or lower optim.lr or set optim.clip_norm "
                "with another --workdir; no checkpoint holds this step"
            )
    combine = {name: (np.sum if name == "skipped" else np.mean) for name in rows[0][1]}
    return {name: float(reduce([row[name] for _, row in rows])) for name, reduce in combine.items()}


def _when_ready(metrics):
    jax.block_until_ready(metrics)
    return time.perf_counter()


def duration(seconds: float) -> str:
    """Formats seconds by their two or three largest units, e.g. 90061 as "1d 1h 1m"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours}h {minutes}m"
    return f"{hours}h {minutes}m" if hours else f"{minutes}m {seconds:02d}s"


def _lines_until(path, step):
    """Yields the lines of steps up to `step`. The last line of a killed run may be incomplete and is dropped."""
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                if json.loads(line)["step"] <= step:
                    yield line.rstrip("\n")
            except (ValueError, TypeError, KeyError):
                return
