"""How fast a training step is, by the functions that training uses: on a batch that lies on the device already.

    python -m pconv_jax.benchmark train [--against=torch] [--sizes=256] [--batches=2] [--objectives=l1,full]

"l1" has the terms without VGG16, "full" all six. Without `--config.loss.vgg16_weights=FILE` VGG16's weights are random,
which costs the same.
"""

from absl import flags

from pconv_jax.benchmark import arguments, comparison, competitors

NAMES = {"l1": "train L1", "full": "train full"}


def define_flags(flag_values: flags.FlagValues):
    """Adds the flags of `python -m pconv_jax.benchmark train`."""
    arguments.define(flag_values, sizes="256", batches="2", steps=10)
    arguments.define_against(flag_values)
    flags.DEFINE_list("objectives", ["l1", "full"], "l1: without VGG16; full: with it.", flag_values=flag_values)
    flags.DEFINE_bool(
        "at_once",
        True,
        "All opponents wait beside each other; no: one after another, for want of memory.",
        flag_values=flag_values,
    )


def main(flag_values: flags.FlagValues):
    """Measures, prints the table, and writes the files."""
    arguments.run("train", measure, flag_values, comparison.show)


def measure(config, flag_values: flags.FlagValues) -> list[dict]:
    """A row for each objective, size, batch and opponent."""
    unknown = [name for name in flag_values.objectives if name not in NAMES]
    if unknown or not flag_values.objectives:
        raise ValueError(f"--objectives={','.join(flag_values.objectives)}; needs some of {', '.join(NAMES)}")
    how = competitors.How(flag_values.steps, malloc=flag_values.malloc, at_once=flag_values.at_once)
    who = competitors.opponents(config, bool(flag_values.against), flag_values.torch_compile)
    rows = []
    for objective in flag_values.objectives:
        for size in arguments.integers(flag_values, "sizes"):
            for batch in arguments.integers(flag_values, "batches"):
                fitting = competitors.with_objective(arguments.sized(config, size, batch), objective)
                rows += competitors.measure(NAMES[objective], "train", fitting, who, how)
    return competitors.with_shares(rows)
