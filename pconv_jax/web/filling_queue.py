"""Fills holes one after another in a thread of its own: a second filling at once would only make both slower."""

import dataclasses
import secrets
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from pconv_jax import errors
from pconv_jax.web import photographs, versions

QUEUED, RUNNING, DONE, FAILED, CANCELLED = "queued", "running", "done", "failed", "cancelled"
MOST_WAITING = 100
_ENDED_KEPT = 50  # Fillings that have ended and are still listed.


class Cancelled(Exception):
    """The filling was cancelled."""


@dataclasses.dataclass
class Filling:
    """A filling that waits, runs, or has ended.

    Attributes:
      id: its random identifier.
      photograph: `id` of the photograph.
      base: the version that is filled.
      work: takes a function that reports the fraction that is done, and returns the new version.
      state: one of the constants of this module.
      progress: the fraction that is done, an estimate; None before it has started.
      started: `time.monotonic` when it started to run.
      error: why it failed.
      version: the result.
    """

    photograph: str
    base: int
    work: Callable[[Callable[[float], None]], versions.Version]
    id: str = dataclasses.field(default_factory=lambda: secrets.token_hex(8))
    state: str = QUEUED
    progress: float | None = None
    started: float = 0.0
    error: str | None = None
    version: versions.Version | None = None

    @property
    def ended(self) -> bool:
        """Returns whether it neither waits nor runs."""
        return self.state not in (QUEUED, RUNNING)


class FillingQueue:
    """Runs fillings in the order in which they came, one at a time; its methods may be called from any thread."""

    def __init__(self):
        """Starts the thread."""
        self._fillings: dict[str, Filling] = {}
        self._waiting: list[Filling] = []
        self._running: Filling | None = None
        self._idle: list[Callable[[], Any]] = []
        self._stopped = False
        self._change = threading.Condition()
        # A daemon, so that an error of the main thread ends the process even while a filling runs.
        self._thread = threading.Thread(target=self._loop, name="fillings", daemon=True)
        self._thread.start()

    def __getitem__(self, identifier: str) -> Filling:
        """Returns a filling.

        Raises:
          photographs.Unknown: there is none.
        """
        try:
            return self._fillings[identifier]
        except KeyError:
            raise photographs.Unknown(f"there is no filling {identifier[:40]}") from None

    def listed(self) -> list[Filling]:
        """Returns the fillings that wait or run, and those that ended last, in the order in which they came."""
        with self._change:
            return list(self._fillings.values())

    def add(self, filling: Filling):
        """Lets a filling wait for its turn.

        Raises:
          photographs.Full: too many wait.
        """
        with self._change:
            if len(self._waiting) >= MOST_WAITING:
                raise photographs.Full(f"{MOST_WAITING} fillings are waiting, which is the most: cancel some first")
            ended = [other.id for other in self._fillings.values() if other.ended]
            for identifier in ended[: len(ended) - _ENDED_KEPT]:
                del self._fillings[identifier]
            self._fillings[filling.id] = filling
            self._waiting.append(filling)
            self._change.notify_all()

    def when_idle(self, calls: Sequence[Callable[[], Any]]):
        """Calls functions, such as those that compile, while no filling waits."""
        with self._change:
            self._idle += calls
            self._change.notify_all()

    def cancel(self, filling: Filling):
        """Cancels a filling that waits or runs. One that runs ends after the tile in work, and leaves no version."""
        with self._change:
            if not filling.ended:
                filling.state = CANCELLED
            if filling in self._waiting:
                self._waiting.remove(filling)

    def position(self, filling: Filling) -> int | None:
        """Returns how many fillings are before this one: 0 for the one that runs, None for one that has ended."""
        with self._change:
            if filling.ended:
                return None
            if filling not in self._waiting:
                return 0
            return self._waiting.index(filling) + (self._running is not None)

    def stop(self, seconds: float) -> bool:
        """Cancels all fillings, and waits for the thread to end.

        Args:
          seconds: how long to wait at most: a tile takes seconds. With 0 it only cancels.

        Returns:
          Whether the thread has ended.
        """
        with self._change:
            self._stopped = True
            for filling in list(self._fillings.values()):
                self.cancel(filling)
            self._change.notify_all()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _loop(self):
        while True:
            with self._change:
                while not (self._waiting or self._idle or self._stopped):
                    self._change.wait()
                if self._stopped:
                    return
                self._running = self._waiting.pop(0) if self._waiting else None
                if self._running:
                    self._running.state, self._running.started = RUNNING, time.monotonic()
            if self._running:
                self._run(self._running)
            else:
                self._prepare(self._idle.pop(0))

    def _run(self, filling):
        """Runs a filling and notes how it ended. No exception ends the thread: later fillings would wait forever."""

        def report(fraction):
            if filling.state == CANCELLED:
                raise Cancelled
            filling.progress = fraction

        state, error = DONE, None
        try:
            filling.version = filling.work(report)
        except Cancelled:
            state = CANCELLED
        except (errors.UserError, OSError, photographs.Unknown) as reason:
            state, error = FAILED, str(reason)
        except MemoryError:
            state, error = FAILED, "this machine lacks the memory for it: start the server with a lower --tile"
        except Exception as reason:
            traceback.print_exc()
            state, error = FAILED, f"a defect of the program ({type(reason).__name__}): the terminal shows where it is"
        with self._change:
            self._running = None
            if filling.state == RUNNING:
                filling.state, filling.error = state, error

    def _prepare(self, call):
        try:
            call()
        except Exception:  # The first filling meets the same error and reports it.
            traceback.print_exc()
