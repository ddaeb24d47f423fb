"""Times the network on a batch, by the function that evaluation uses: uint8 image in, prediction and composite out.

python -m pconv_jax.benchmark forward [--against=torch] [--sizes=256,512] [--config.model.conv_impl=xla]
"""

from absl import flags

from pconv_jax.benchmark import arguments, comparison, measurement


def define_flags(flag_values: flags.FlagValues):
    """Adds the flags of `python -m pconv_jax.benchmark forward`."""
    arguments.define(flag_values, sizes="256,512", batches="1", steps=10)
    arguments.define_against(flag_values)


def main(flag_values: flags.FlagValues):
    """Measures, prints the table, and writes the files."""
    arguments.run("forward", measure, flag_values, comparison.show)


def measure(config, flag_values: flags.FlagValues) -> list[dict]:
    """Measures forward passes.

    Args:
      config: experiment config.
      flag_values: parsed flags.

    Returns:
      One row "forward" per size, batch and competitor, then the large convolution of each competitor; see `report`.
    """
    setup = measurement.Setup(flag_values.steps, turn=2, malloc=flag_values.malloc)
    competitors = measurement.choose_competitors(config, bool(flag_values.against), flag_values.torch_compile)
    rows = []
    for size in arguments.integers(flag_values, "sizes"):
        for batch in arguments.integers(flag_values, "batches"):
            resized = arguments.sized(config, size, batch)
            rows += measurement.measure("forward", "forward", resized, competitors, setup)
    return measurement.with_shares(rows)
