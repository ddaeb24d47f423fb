"""Runs pconv_jax.main with steps of at least 0.2 s, so that a test has the time to interrupt it between two steps."""

import runpy
import time

from pconv_jax.training import reporting

SECONDS = 0.2


def main():
    """Runs pconv_jax.main with the arguments of this process."""
    waited = reporting.Progress.waited

    def wait_longer(self, started):
        time.sleep(SECONDS)
        waited(self, started)

    reporting.Progress.waited = wait_longer
    runpy.run_module("pconv_jax.main", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
