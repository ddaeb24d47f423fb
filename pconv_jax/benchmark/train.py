"""Times training steps, by the functions that training uses, on a batch that is on the device already.

    python -m pconv_jax.benchmark train [--against=torch] [--sizes=256] [--batches=2] [--objectives=l1,full]

The objective "l1" has the loss terms without VGG16, "full" has all six. Without
`--config.loss.vgg16_weights=FILE` the weights of VGG16 are random, which costs the same.
"""

from absl import flags

from pconv_jax import errors
from pconv_jax.benchmark import arguments, comparison, measurement

NAMES = {"l1": "train L1", "full": "train full"}


def define_flags(flag_values: flags.FlagValues):
    """Adds the flags of `python -m pconv_jax.benchmark train`."""
    arguments.define(flag_values, sizes="256", batches="2", steps=10)
    arguments.define_against(flag_values)
    about = "Loss terms: l1 without VGG16, full with VGG16."
    flags.DEFINE_list("objectives", ["l1", "full"], about, flag_values=flag_values)
    about = (
        "Keep the workers of all competitors alive and let them take turns; false: one after another, to save memory."
    )
    flags.DEFINE_bool("at_once", True, about, flag_values=flag_values)


def main(flag_values: flags.FlagValues):
    """Measures, prints the table, and writes the files."""
    arguments.run("train", measure, flag_values, comparison.show)


def measure(config, flag_values: flags.FlagValues) -> list[dict]:
    """Measures training steps.

    Args:
      config: experiment config.
      flag_values: parsed flags.

    Returns:
      One row per objective, size, batch and competitor, then the large convolution of each competitor; see `report`.

    Raises:
      UserError: an objective is unknown.
    """
    unknown = [name for name in flag_values.objectives if name not in NAMES]
    if unknown or not flag_values.objectives:
        names = ",".join(flag_values.objectives)
        raise errors.UserError(f"--objectives={names}; needs some of {', '.join(NAMES)}")
    setup = measurement.Setup(flag_values.steps, malloc=flag_values.malloc, at_once=flag_values.at_once)
    competitors = measurement.choose_competitors(config, bool(flag_values.against), flag_values.torch_compile)
    rows = []
    for objective in flag_values.objectives:
        for size in arguments.integers(flag_values, "sizes"):
            for batch in arguments.integers(flag_values, "batches"):
                resized = measurement.with_objective(arguments.sized(config, size, batch), objective)
                rows += measurement.measure(NAMES[objective], "train", resized, competitors, setup)
    return measurement.with_shares(rows)
