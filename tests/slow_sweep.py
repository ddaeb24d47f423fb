"""pconv_jax.sweep whose runs take slow steps (tests/slow_steps.py): a test that interrupts one has the time to."""

import runpy

from pconv_jax.sweeping import processes


def main():
    """Runs it with this process' arguments."""
    command = processes.command

    def slow(run, more=()):
        return ["tests.slow_steps" if word == "pconv_jax.main" else word for word in command(run, more)]

    processes.command = slow
    runpy.run_module("pconv_jax.sweep", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
