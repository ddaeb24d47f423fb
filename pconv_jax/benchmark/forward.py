"""How fast the network fills a batch, by the function that evaluation uses: uint8 in, prediction and composite out.

python -m pconv_jax.benchmark forward [--against=torch] [--sizes=256,512] [--config.model.conv_impl=xla]
"""

from pconv_jax.benchmark import arguments, comparison, competitors

arguments.define(sizes="256,512", batches="1", steps=10)
arguments.define_against()


def main(argv):
    """See above."""
    arguments.run("forward", measure, argv, comparison.show)


def measure(config) -> list[dict]:
    """Rows "forward" for each size, batch and opponent."""
    given = arguments.FLAGS
    how = competitors.How(given.steps, turn=2, malloc=given.malloc)
    who = competitors.opponents(config, bool(given.against), given.torch_compile)
    rows = []
    for size in arguments.integers("sizes"):
        for batch in arguments.integers("batches"):
            rows += competitors.measure("forward", "forward", arguments.sized(config, size, batch), who, how)
    return competitors.with_shares(rows)
