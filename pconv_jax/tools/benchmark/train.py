"""How fast a training step is, by the functions that training uses: on a batch that lies on the device already.

    python -m pconv_jax.tools.benchmark train [--against=torch] [--sizes=256] [--batches=2] [--objectives=l1,full]

"l1" has the terms without VGG16, "full" all six. Without `--config.loss.vgg16_weights=FILE` VGG16's weights are random,
which costs the same.
"""

from absl import flags

from pconv_jax.tools.benchmark import arguments, comparison, opponents

arguments.define(sizes="256", batches="2", steps=10)
arguments.define_against()
flags.DEFINE_list("objectives", ["l1", "full"], "l1: without VGG16; full: with it.")
flags.DEFINE_bool("at_once", True, "All opponents wait beside each other; no: one after another, for want of memory.")

NAMES = {"l1": "train L1", "full": "train full"}


def main(argv):
    """See above."""
    arguments.run("train", measure, argv, comparison.show)


def measure(config) -> list[dict]:
    """A row for each objective, size, batch and opponent."""
    given = arguments.FLAGS
    unknown = [name for name in given.objectives if name not in NAMES]
    if unknown or not given.objectives:
        raise ValueError(f"--objectives={','.join(given.objectives)}; needs some of {', '.join(NAMES)}")
    how = opponents.How(given.steps, malloc=given.malloc, at_once=given.at_once)
    who = opponents.opponents(config, bool(given.against), given.torch_compile)
    rows = []
    for objective in given.objectives:
        for size in arguments.integers("sizes"):
            for batch in arguments.integers("batches"):
                fitting = opponents.with_objective(arguments.sized(config, size, batch), objective)
                rows += opponents.measure(NAMES[objective], "train", fitting, who, how)
    return opponents.with_shares(rows)
