"""Defines the flags that several benchmarks share, and runs a benchmark with them."""

import copy
from collections.abc import Callable

from absl import flags

from pconv_jax import command_line, errors
from pconv_jax.benchmark import report
from pconv_jax.training import validation


def define(flag_values: flags.FlagValues, *, sizes: str, batches: str, steps: int):
    """Adds the flags of a benchmark that measures networks.

    Args:
      flag_values: the flags are added to it.
      sizes: default of --sizes, separated by commas.
      batches: default of --batches, separated by commas.
      steps: default of --steps.
    """
    flags.DEFINE_list("sizes", sizes.split(","), "Pixels per side, multiples of 4.", flag_values)
    flags.DEFINE_list("batches", batches.split(","), "Examples per step.", flag_values)
    define_steps(flag_values, steps)
    define_output(flag_values)


def define_steps(flag_values: flags.FlagValues, default: int):
    """Adds --steps.

    Args:
      flag_values: the flag is added to it.
      default: default number of steps.
    """
    about = "Timed steps per competitor, after some that warm up."
    flags.DEFINE_integer("steps", default, about, lower_bound=1, flag_values=flag_values)


def define_output(flag_values: flags.FlagValues):
    """Adds --config, and the flags of every benchmark that measures worker processes."""
    command_line.define_config(flag_values)
    about = "Settings of the memory allocator: keep, those of launch.sh; system, none."
    flags.DEFINE_enum("malloc", "keep", ["keep", "system"], about, flag_values)
    about = "Directory for benchmark.csv, .json and .md; by default only the table is printed."
    flags.DEFINE_string("out", None, about, flag_values)
    about = "Markdown file whose table, between <!-- BENCHMARK --> marks, is replaced."
    flags.DEFINE_string("update", None, about, flag_values)


def define_against(flag_values: flags.FlagValues):
    """Adds the flag that names a library to compare with, and those of that library."""
    flags.DEFINE_enum("against", None, ["torch"], "Library that computes the same, to compare with.", flag_values)
    define_torch(flag_values)


def define_torch(flag_values: flags.FlagValues):
    """Adds the flag that decides whether PyTorch's compiler is tried."""
    about = "Also try torch.compile with PyTorch's fastest settings, which takes a minute or two more."
    flags.DEFINE_bool("torch_compile", True, about, flag_values)


def integers(flag_values: flags.FlagValues, name: str) -> list[int]:
    """Returns the values of a list flag as integers.

    Args:
      flag_values: parsed flags.
      name: name of the list flag.

    Returns:
      Positive integers, at least one.

    Raises:
      UserError: a value is no positive integer, or the list is empty.
    """
    values = flag_values[name].value
    if not values or not all(value.isdecimal() and int(value) > 0 for value in values):
        raise errors.UserError(f"--{name}={','.join(values)}; needs positive integers, e.g. --{name}=256,512")
    return [int(value) for value in values]


def sized(config, size: int, batch: int):
    """Returns a copy of a config for another size and batch, with a depth that leaves a bottleneck of 2 x 2 or more.

    Args:
      config: experiment config.
      size: pixels per side.
      batch: examples per step.

    Raises:
      UserError: the config does not work at that size.
    """
    config = copy.deepcopy(config)
    config.data.size, config.train.batch_size = size, batch
    config.eval.batch_size = max(config.eval.batch_size, config.train.samples)
    stages = 0
    while size % 2 == 0 and size >= 4:
        size, stages = size // 2, stages + 1
    config.model.depth = min(config.model.depth, max(stages, 1))
    validation.validate(config)
    if config.model.kind == "gated":
        raise errors.UserError('model.kind is "gated", whose operations are not counted: choose another')
    return config


def run(
    benchmark: str,
    measure: Callable[..., list[dict]],
    flag_values: flags.FlagValues,
    show: Callable[[list[dict]], str] = report.table,
):
    """Runs a benchmark, prints its table, and writes the files that the flags ask for.

    Args:
      benchmark: name of the benchmark.
      measure: `(config, flag_values) -> rows`.
      flag_values: parsed flags.
      show: formats rows as Markdown.

    Raises:
      UserError: a flag does not fit, or the config cannot be measured.
    """
    machine = report.machine() | {"malloc": flag_values.malloc}
    if flag_values.out:
        report.check(flag_values.out)
    if flag_values.update:
        report.check_marks(flag_values.update, benchmark)
    rows = measure(flag_values.config, flag_values)
    text = show(rows)
    print(text)
    if flag_values.out:
        report.write(flag_values.out, rows, machine, text)
    if flag_values.update:
        report.update(flag_values.update, benchmark, f"{report.origin(machine)}\n\n{text}")
