"""Ours beside PyTorch in one table: training steps without and with VGG16, forward passes, and peak memory.

    python -m pconv_jax.benchmark against [--out=DIR] [--update=docs/performance.md]

The paper's network; 256 pixels and batch 2 for training, batch 1 for forward passes at 256 and 512, and the memory of
training at 512 pixels and batch 8, one opponent after another and only a few steps.
"""

import dataclasses

from absl import flags

from pconv_jax.benchmark import arguments, comparison, competitors

# (what, pixels per side, batch), and the last for its memory.
CASES = (("train L1", 256, 2), ("train full", 256, 2), ("forward", 256, 1), ("forward", 512, 1))
MEMORY = ("train L1", 512, 8)
MEMORY_STEPS = 1  # after the three that warm up: memory does not grow any more


def define_flags(flag_values: flags.FlagValues):
    """Adds the flags of `python -m pconv_jax.benchmark against`."""
    arguments.define_output(flag_values)
    arguments.define_torch(flag_values)
    flags.DEFINE_integer(
        "steps", 10, "Steps of each that count, after some that warm up.", lower_bound=1, flag_values=flag_values
    )


def main(flag_values: flags.FlagValues):
    """Measures, prints the table, and writes the files."""
    arguments.run("against", measure, flag_values, comparison.show)


def measure(config, flag_values: flags.FlagValues) -> list[dict]:
    """The rows of all five comparisons."""
    how = competitors.How(flag_values.steps, malloc=flag_values.malloc)
    who, rows = competitors.opponents(config, True, flag_values.torch_compile), []
    for what, size, batch in CASES:
        rows += _case(config, what, size, batch, who, dataclasses.replace(how, turn=1 if "train" in what else 2))
    without_compiler = competitors.opponents(config, True, try_compile=False)
    without_compiler = {by: one for by, one in without_compiler.items() if not by.endswith(comparison.BF16)}
    alone = dataclasses.replace(how, steps=MEMORY_STEPS, at_once=False)
    return competitors.with_shares(rows + _case(config, *MEMORY, without_compiler, alone))


def _case(config, what, size, batch, who, how):
    fitting = arguments.sized(config, size, batch)
    if what == "forward":
        return competitors.measure(what, "forward", fitting, who, how)
    return competitors.measure(what, "train", competitors.with_objective(fitting, what.split()[1].lower()), who, how)
