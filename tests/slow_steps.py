"""pconv_jax.main with steps of at least 0.2 s: a test that interrupts a run between two of them has the time to."""

import runpy
import time

from pconv_jax.training import reporting

SECONDS = 0.2


def main():
    """Runs it with this process' arguments."""
    waited = reporting.Progress.waited

    def wait_longer(self, started):
        time.sleep(SECONDS)
        waited(self, started)

    reporting.Progress.waited = wait_longer
    runpy.run_module("pconv_jax.main", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
