"""How fast the network fills a batch, by the function that evaluation uses: uint8 in, prediction and composite out.

python -m pconv_jax.tools.benchmark forward [--against=torch] [--sizes=256,512] [--config.model.conv_impl=xla]
"""

from pconv_jax.tools.benchmark import arguments, comparison, opponents

arguments.define(sizes="256,512", batches="1", steps=10)
arguments.define_against()


def main(argv):
    """See above."""
    arguments.run("forward", measure, argv, comparison.show)


def measure(config) -> list[dict]:
    """Rows "forward" for each size, batch and opponent."""
    given = arguments.FLAGS
    how = opponents.How(given.steps, turn=2, malloc=given.malloc)
    who = opponents.opponents(config, bool(given.against), given.torch_compile)
    rows = []
    for size in arguments.integers("sizes"):
        for batch in arguments.integers("batches"):
            rows += opponents.measure("forward", "forward", arguments.sized(config, size, batch), who, how)
    return opponents.with_shares(rows)
