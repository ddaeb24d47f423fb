"""Compares this package with PyTorch in one table: training steps without and with VGG16, forward passes, peak memory.

    python -m pconv_jax.benchmark against [--out=DIR] [--update=docs/performance.md]

All cases use the paper's network: training at 256 pixels and batch 2, forward passes at 256 and 512 pixels and batch 1.
Peak memory is measured in a few training steps at 512 pixels and batch 8, one competitor after another.
"""

import dataclasses

from absl import flags

from pconv_jax.benchmark import arguments, comparison, measurement

# (work, pixels per side, batch)
CASES = (("train L1", 256, 2), ("train full", 256, 2), ("forward", 256, 1), ("forward", 512, 1))
MEMORY_CASE = ("train L1", 512, 8)
MEMORY_STEPS = 1  # Memory does not grow after the steps that warm up.


def define_flags(flag_values: flags.FlagValues):
    """Adds the flags of `python -m pconv_jax.benchmark against`."""
    arguments.define_output(flag_values)
    arguments.define_torch(flag_values)
    arguments.define_steps(flag_values, default=10)


def main(flag_values: flags.FlagValues):
    """Measures, prints the table, and writes the files."""
    arguments.run("against", measure, flag_values, comparison.show)


def measure(config, flag_values: flags.FlagValues) -> list[dict]:
    """Measures the five cases.

    Args:
      config: experiment config.
      flag_values: parsed flags.

    Returns:
      One row per case and competitor, then the large convolution of each competitor; see `report`.
    """
    setup = measurement.Setup(flag_values.steps, malloc=flag_values.malloc)
    competitors, rows = measurement.choose_competitors(config, True, flag_values.torch_compile), []
    for what, size, batch in CASES:
        turn = 1 if "train" in what else 2
        rows += _case(config, what, size, batch, competitors, dataclasses.replace(setup, turn=turn))
    without_compiler = measurement.choose_competitors(config, True, try_compile=False)
    for name in [name for name in without_compiler if name.endswith(comparison.BF16)]:
        del without_compiler[name]
    one_by_one = dataclasses.replace(setup, steps=MEMORY_STEPS, at_once=False)
    return measurement.with_shares(rows + _case(config, *MEMORY_CASE, without_compiler, one_by_one))


def _case(config, what, size, batch, competitors, setup):
    config = arguments.sized(config, size, batch)
    if what == "forward":
        return measurement.measure(what, "forward", config, competitors, setup)
    config = measurement.with_objective(config, what.split()[1].lower())
    return measurement.measure(what, "train", config, competitors, setup)
