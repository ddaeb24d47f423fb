"""Measures how fast pconv_jax is on this machine: `python -m pconv_jax.benchmark BENCHMARK [flags]`.

Each benchmark is a module of this package with `define_flags` and `main`; `BENCHMARK --help` lists its flags.
"""

import importlib
import sys

from pconv_jax import command_line

BENCHMARKS = {
    "data": "the input pipeline of a config: images per CPU second, and what decode, crop and mask cost",
    "op": "each layer of the U-Net: forward, gradients of input and kernel, mask",
    "forward": "filling a batch; --against=torch: beside PyTorch",
    "train": "training steps, without and with VGG16; --against=torch: beside PyTorch",
    "against": "ours and PyTorch in one table: training steps, forward passes, peak memory",
    "start": "from the command to the first finished step of the quickstart, with an empty and a filled program cache",
    "scale": "training steps over sizes, batches and devices",
    "gpu": "everything that matters on a GPU, within some minutes",
}
DEFAULT_CONFIGS = {"start": "experiments/quickstart.py"}  # Others use experiments/default.py; data needs --config.


def choose(argv: list[str]) -> str:
    """Returns the benchmark that the first argument names; ends the process with a list of them if it names none."""
    if len(argv) < 2 or argv[1] not in BENCHMARKS:
        problem = f'"{argv[1]}" is no benchmark' if len(argv) > 1 else "no benchmark is named"
        known = "".join(f"\n  {name:8} {about}" for name, about in BENCHMARKS.items())
        sys.exit(f"error: {problem}; choose one of{known}")
    return argv[1]


if __name__ == "__main__":
    benchmark = choose(sys.argv)
    module = importlib.import_module(f"pconv_jax.benchmark.{benchmark}")
    arguments = sys.argv[2:]
    if benchmark != "data" and not any(argument.lstrip("-").split("=")[0] == "config" for argument in arguments):
        arguments = [f"--config={DEFAULT_CONFIGS.get(benchmark, 'experiments/default.py')}", *arguments]
    command_line.run(module.main, module.define_flags, argv=[f"benchmark {benchmark}", *arguments])
