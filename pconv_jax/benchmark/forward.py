"""How fast the network fills a batch, by the function that evaluation uses: uint8 in, prediction and composite out.

python -m pconv_jax.benchmark forward [--against=torch] [--sizes=256,512] [--config.model.conv_impl=xla]
"""

from absl import flags

from pconv_jax.benchmark import arguments, comparison, competitors


def define_flags(flag_values: flags.FlagValues):
    """Adds the flags of `python -m pconv_jax.benchmark forward`."""
    arguments.define(flag_values, sizes="256,512", batches="1", steps=10)
    arguments.define_against(flag_values)


def main(flag_values: flags.FlagValues):
    """Measures, prints the table, and writes the files."""
    arguments.run("forward", measure, flag_values, comparison.show)


def measure(config, flag_values: flags.FlagValues) -> list[dict]:
    """Rows "forward" for each size, batch and opponent."""
    how = competitors.How(flag_values.steps, turn=2, malloc=flag_values.malloc)
    who = competitors.opponents(config, bool(flag_values.against), flag_values.torch_compile)
    rows = []
    for size in arguments.integers(flag_values, "sizes"):
        for batch in arguments.integers(flag_values, "batches"):
            rows += competitors.measure("forward", "forward", arguments.sized(config, size, batch), who, how)
    return competitors.with_shares(rows)
