"""Measures how fast pconv_jax is on this machine: `python -m pconv_jax.benchmark SUBJECT [flags]`.

Each subject is a module of this package with `define_flags` and `main`; `SUBJECT --help` lists its flags.
"""

import importlib
import sys

from pconv_jax import command_line

SUBJECTS = {
    "data": "the input pipeline of a config: images per CPU second, and what decode, crop and mask cost",
    "op": "each layer of the U-Net: forward, gradients of input and kernel, mask",
    "forward": "filling a batch; --against=torch: beside PyTorch",
    "train": "training steps, without and with VGG16; --against=torch: beside PyTorch",
    "against": "ours and PyTorch in one table: training steps, forward passes, peak memory",
    "start": "from the command to the first finished step of the quickstart, without and with compiled programs",
    "scale": "training steps over sizes, batches and devices",
}
DEFAULTS = {"start": "experiments/quickstart.py"}  # where no --config is given; data needs one


def choose(argv):
    """The subject that the first argument names."""
    if len(argv) < 2 or argv[1] not in SUBJECTS:
        found = f'"{argv[1]}" is no subject' if len(argv) > 1 else "no subject is given"
        known = "".join(f"\n  {name:8} {what}" for name, what in SUBJECTS.items())
        sys.exit(f"error: {found}; needs one of{known}")
    return argv[1]


if __name__ == "__main__":
    subject = choose(sys.argv)
    module = importlib.import_module(f"pconv_jax.benchmark.{subject}")
    arguments = sys.argv[2:]
    if subject != "data" and not any(argument.lstrip("-").split("=")[0] == "config" for argument in arguments):
        arguments = [f"--config={DEFAULTS.get(subject, 'experiments/default.py')}", *arguments]
    command_line.run(module.main, module.define_flags, argv=[f"benchmark {subject}", *arguments])
