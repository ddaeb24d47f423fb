"""Signals that ask a run to stop. The step is finished, the state saved, and the exit code says that it can go on.

SLURM (`--signal`), Kubernetes and spot machines send SIGTERM some time before they kill; Ctrl-C is SIGINT.
"""

import contextlib
import os
import signal
import threading

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: the same command, later, goes on


class Stopped(Exception):
    """The run was asked to stop; its state is saved."""


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
        # Not by logging: the signal may have come in the middle of a write.
        os.write(2, f"{received[0]}: saves after this step and stops; the same again ends at once\n".encode())

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
