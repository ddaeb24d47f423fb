"""Runs pconv_jax.sweep with slow training steps (tests/slow_steps.py), so that a test has the time to interrupt it."""

import runpy

from pconv_jax.sweeping import processes


def main():
    """Runs pconv_jax.sweep with the arguments of this process."""
    command = processes.command

    def slow(run, more=()):
        return ["tests.slow_steps" if word == "pconv_jax.main" else word for word in command(run, more)]

    processes.command = slow
    runpy.run_module("pconv_jax.sweep", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
