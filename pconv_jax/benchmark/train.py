"""How fast a training step is, by the functions that training uses: on a batch that lies on the device already.

    python -m pconv_jax.benchmark train [--against=torch] [--sizes=256] [--batches=2] [--objectives=l1,full]

"l1" has the terms without VGG16, "full" all six. Without `--config.loss.vgg16_weights=FILE` VGG16's weights are random,
which costs the same.
"""

from absl import flags

from pconv_jax.benchmark import arguments, comparison, competitors

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
    how = competitors.How(given.steps, malloc=given.malloc, at_once=given.at_once)
    who = competitors.opponents(config, bool(given.against), given.torch_compile)
    rows = []
    for objective in given.objectives:
        for size in arguments.integers("sizes"):
            for batch in arguments.integers("batches"):
                fitting = competitors.with_objective(arguments.sized(config, size, batch), objective)
                rows += competitors.measure(NAMES[objective], "train", fitting, who, how)
    return competitors.with_shares(rows)
