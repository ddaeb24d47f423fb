"""How a training step grows: over image sizes, over batches, over devices, one of them at a time.

    python -m pconv_jax.benchmark scale [--sizes=128,256,512,1024] [--batches=1,2,4,8] [--devices=1,2,4]

Sizes are measured at the first of the batches, batches at `--at` pixels, devices at `--at` with the largest of the
batches over all of them. On a CPU devices are simulated: they share its cores, so more of them show what dividing
costs, and no gain. Each is measured in a process of its own, and its memory is that process's.
"""

from absl import flags

from pconv_jax.benchmark import arguments, competitors


def define_flags(flag_values: flags.FlagValues):
    """Adds the flags of `python -m pconv_jax.benchmark scale`."""
    arguments.define(flag_values, sizes="128,256,512,1024", batches="1,2,4,8", steps=10)
    flags.DEFINE_integer("at", 256, "Pixels per side for batches and devices.", lower_bound=4, flag_values=flag_values)
    flags.DEFINE_list(
        "devices",
        ["1", "2", "4"],
        "Devices to simulate on a CPU; on others: the first, all there are.",
        flag_values=flag_values,
    )


def main(flag_values: flags.FlagValues):
    """Measures, prints the table, and writes the files."""
    arguments.run("scale", measure, flag_values)


def measure(config, flag_values: flags.FlagValues) -> list[dict]:
    """Rows "train L1": of each size, then of each batch, then of each number of devices."""
    sizes, batches, devices = (arguments.integers(flag_values, name) for name in ("sizes", "batches", "devices"))
    if not flag_values.at:
        raise ValueError("--at=0; needs pixels per side")
    cases = [(size, batches[0], 1) for size in sizes] + [(flag_values.at, batch, 1) for batch in batches]
    cases += [(flag_values.at, max(batches), count) for count in devices if max(batches) % count == 0]
    rows = []
    for size, batch, count in dict.fromkeys(cases):
        fitting = arguments.sized(config, size, batch)
        fitting.loss.vgg16_weights = ""
        how = competitors.How(flag_values.steps, malloc=flag_values.malloc, devices=count)
        rows += competitors.measure("train L1", "train", fitting, competitors.opponents(fitting, False), how)
    return competitors.with_shares(rows)
