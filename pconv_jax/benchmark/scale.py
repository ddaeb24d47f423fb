"""Measures how the time of a training step grows with image size, batch size and number of devices.

    python -m pconv_jax.benchmark scale [--sizes=128,256,512,1024] [--batches=1,2,4,8] [--devices=1,2,4]

One of the three varies at a time: sizes with the first of the batches, batches at `--at` pixels, devices at `--at`
pixels with the largest of the batches divided among them. On a CPU devices are simulated and share its cores, so the
table shows what the division costs, and no gain. Each case runs in a process of its own, whose memory is reported.
"""

from absl import flags

from pconv_jax.benchmark import arguments, measurement


def define_flags(flag_values: flags.FlagValues):
    """Adds the flags of `python -m pconv_jax.benchmark scale`."""
    arguments.define(flag_values, sizes="128,256,512,1024", batches="1,2,4,8", steps=10)
    about = "Pixels per side while batches or devices vary."
    flags.DEFINE_integer("at", 256, about, lower_bound=4, flag_values=flag_values)
    about = "Numbers of devices that a CPU simulates; on other platforms all devices are used in every case."
    flags.DEFINE_list("devices", ["1", "2", "4"], about, flag_values=flag_values)


def main(flag_values: flags.FlagValues):
    """Measures, prints the table, and writes the files."""
    arguments.run("scale", measure, flag_values)


def measure(config, flag_values: flags.FlagValues) -> list[dict]:
    """Measures training steps without VGG16.

    Args:
      config: experiment config.
      flag_values: parsed flags.

    Returns:
      One row "train L1" per size, then per batch, then per number of devices, then the large convolution; see `report`.
    """
    sizes, batches, devices = (arguments.integers(flag_values, name) for name in ("sizes", "batches", "devices"))
    cases = [(size, batches[0], 1) for size in sizes] + [(flag_values.at, batch, 1) for batch in batches]
    cases += [(flag_values.at, max(batches), count) for count in devices if max(batches) % count == 0]
    rows = []
    for size, batch, count in dict.fromkeys(cases):
        resized = measurement.with_objective(arguments.sized(config, size, batch), "l1")
        setup = measurement.Setup(flag_values.steps, malloc=flag_values.malloc, devices=count)
        competitors = measurement.choose_competitors(resized, with_torch=False)
        rows += measurement.measure("train L1", "train", resized, competitors, setup)
    return measurement.with_shares(rows)
