"""Signals that ask a run to stop. The step is finished, the state saved, and the exit code says that it can go on.

SLURM (`--signal`), Kubernetes and spot machines send SIGTERM some time before they kill; Ctrl-C is SIGINT.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import NoReturn

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: the same command, later, goes on


class Stopped(Exception):
    """The run was asked to stop; its state is saved."""


def until_asked(signals: Sequence[str], items: Iterable, reason: str) -> Iterator:
    """The items, until a signal arrives.

    Raises:
      Stopped: with what it was, before the next item; `reason` says what has been stopped.
    """
    for item in items:
        if signals:
            raise Stopped(f"stopped by {signals[0]} {reason}")
        yield item


def leave(stopped: Stopped) -> NoReturn:
    """Ends the process with `EXIT_CODE` and a line that says how to go on, whether or not somebody still listens."""
    try:
        print(f"{stopped}: the same command goes on from there", file=sys.stderr, flush=True)
    except OSError:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, or Python fails to flush it and ends with another code
    sys.exit(EXIT_CODE)


def leave_to_the_first_host():
    """For the other hosts, which wait for it at the end: a signal to all is answered by the first alone.

    Else they would end with the signal's number, which SLURM takes for the exit code of the job.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def requests():
    """Collects the names of SIGTERM and SIGINT in a list as they arrive; a second one ends the process at once.

    Outside the main thread, where Python delivers no signals, the list stays empty.
    """
    received = []

    def handle(number, _):
        if received:
            os._exit(128 + number)
        received.append(signal.Signals(number).name)
        # Not by logging: the signal may have come in the middle of a write. And Ctrl-C ends `tee` in `2>&1 | tee log`.
        with contextlib.suppress(OSError):
            os.write(2, f"{received[0]}: stops as soon as all is saved; the same again ends at once\n".encode())

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
