"""Handles the signals that ask a run to stop: it finishes its step, saves, and exits with a code of its own.

SLURM (`--signal`), Kubernetes and spot machines send SIGTERM some time before they kill; Ctrl-C is SIGINT.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import NoReturn

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: the same command continues later.


class Stopped(Exception):
    """A signal asked the run to stop; its state is saved."""


def until_asked(signals: Sequence[str], items: Iterable, reason: str) -> Iterator:
    """Yields the items until a signal arrives.

    Args:
      signals: names of the signals received so far, e.g. of `requests`.
      items: the items to yield.
      reason: description of the interrupted work, for the message.

    Raises:
      Stopped: there is a signal before the next item.
    """
    for item in items:
        if signals:
            raise Stopped(f"stopped by {signals[0]} {reason}")
        yield item


def leave(stopped: Stopped) -> NoReturn:
    """Ends the process with `EXIT_CODE`, after a line on standard error that explains how to continue."""
    try:
        print(f"{stopped}: the same command goes on from there", file=sys.stderr, flush=True)
    except OSError:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, or Python fails to flush the closed pipe and ends with another code
    sys.exit(EXIT_CODE)


def leave_to_the_first_host():
    """Ignores signals from now on, for the hosts that wait at the end while the first host evaluates.

    Otherwise a signal to all hosts would end them with its number, which SLURM takes for the exit code of the job.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def requests():
    """Collects the names of SIGTERM and SIGINT in a list, as a context; a second signal ends the process at once.

    Outside the main thread the list stays empty, because Python delivers signals only there.
    """
    received = []

    def handle(number, _):
        if received:
            os._exit(128 + number)
        received.append(signal.Signals(number).name)
        # Logging is not safe here, because the signal may arrive in the middle of a write. The write may fail, because
        # Ctrl-C also ends `tee` in `2>&1 | tee log`.
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
