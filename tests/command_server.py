"""Runs commands of the package in processes that are forked after the imports, which take seconds.

Requests come from standard input as lines of JSON: `module`, `arguments`, `out` (the file for printed text) and
`failure`, the name of an exception in `FAILURES` that replaces the training. Each is answered with the exit code.
"""

import json
import os
import runpy
import signal
import sys
import traceback
import warnings

import jax

from pconv_jax import command_line, sweep, train  # noqa: F401, imported before forking to save their time

FAILURES = {
    "host memory": MemoryError("Unable to allocate 7.00 TiB for an array"),
    "device memory": jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nmore"),
    "worker": RuntimeError("Worker process was terminated unexpectedly with exit code -9. Search the logs."),
    "a defect": jax.errors.JaxRuntimeError("INTERNAL: something else"),
}
SECONDS = 300


def run(module, arguments, out, failure=None):
    """Runs a command in this process and ends the process with the command's exit code.

    Args:
      module: full name of the command's module.
      arguments: command line of the command.
      out: path of the file for printed text.
      failure: a key of `FAILURES`, to be raised in place of training; None to train.
    """
    signal.alarm(SECONDS)
    file = os.open(out, os.O_WRONLY | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.argv = [module, *arguments]
    if failure:

        def fail(*_):
            raise FAILURES[failure]

        train.train = fail
    code = 0
    try:
        warnings.simplefilter("ignore", RuntimeWarning)  # runpy warns that the module is imported already.
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:  # handled as by the interpreter
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            run(**json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
