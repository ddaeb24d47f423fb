"""Flags that several subjects share, and what they do with them."""

import copy

from absl import flags

from pconv_jax import command_line, errors
from pconv_jax.benchmark import report
from pconv_jax.training import validation


def define(flag_values: flags.FlagValues, *, sizes: str, batches: str, steps: int):
    """Adds the flags of a subject that measures networks.

    Args:
      flag_values: to which they are added.
      sizes: default of --sizes, separated by commas.
      batches: default of --batches, separated by commas.
      steps: default of --steps.
    """
    flags.DEFINE_list("sizes", sizes.split(","), "Pixels per side, multiples of 4.", flag_values)
    flags.DEFINE_list("batches", batches.split(","), "Examples per step.", flag_values)
    flags.DEFINE_integer(
        "steps", steps, "Steps that count, after some that warm up.", lower_bound=1, flag_values=flag_values
    )
    define_output(flag_values)


def define_output(flag_values: flags.FlagValues):
    """Adds --config, and the flags of every subject that starts processes of its own."""
    command_line.define_config(flag_values)
    about = "The allocator: as launch.sh sets it, or left alone."
    flags.DEFINE_enum("malloc", "keep", ["keep", "system"], about, flag_values)
    about = "Directory for benchmark.csv, .json and .md; none: only a table."
    flags.DEFINE_string("out", None, about, flag_values)
    about = "Markdown file whose table, between <!-- SUBJECT --> marks, is replaced."
    flags.DEFINE_string("update", None, about, flag_values)


def define_against(flag_values: flags.FlagValues):
    """Adds the flags that name a competitor."""
    flags.DEFINE_enum("against", None, ["torch"], "Library that computes the same, to compare with.", flag_values)
    define_torch(flag_values)


def define_torch(flag_values: flags.FlagValues):
    """Adds the flag that decides how PyTorch is measured."""
    about = "Try torch.compile at torch's strongest, too: a minute or two more."
    flags.DEFINE_bool("torch_compile", True, about, flag_values)


def integers(flag_values: flags.FlagValues, name: str) -> list[int]:
    """Returns the values of a list flag as integers.

    Args:
      flag_values: parsed flags.
      name: of the flag.

    Returns:
      Positive integers, at least one.

    Raises:
      UserError: a value is no positive integer, or there is none.
    """
    values = flag_values[name].value
    if not values or not all(value.isdecimal() and int(value) > 0 for value in values):
        raise errors.UserError(f"--{name}={','.join(values)}; needs positive integers, e.g. --{name}=256,512")
    return [int(value) for value in values]


def sized(config, size: int, batch: int):
    """The config at a size and batch, its depth lowered so that the bottleneck is 2 x 2 or larger.

    Raises:
      UserError: the config does not work at that size.
    """
    config = copy.deepcopy(config)
    config.data.size, config.train.batch_size = size, batch
    config.eval.batch_size = max(config.eval.batch_size, config.train.samples)
    halvings = 0
    while size % 2 == 0 and size >= 4:
        size, halvings = size // 2, halvings + 1
    config.model.depth = min(config.model.depth, max(halvings, 1))
    validation.validate(config)
    if config.model.kind == "gated":
        raise errors.UserError('model.kind is "gated", whose operations are not counted: choose another')
    return config


def run(subject: str, measure, flag_values: flags.FlagValues, show=report.table):
    """Measures a subject, prints its table and writes its files: what `main` of every such subject does.

    Args:
      subject: its name.
      measure: `(config, flag_values) -> rows`.
      flag_values: parsed flags.
      show: rows -> Markdown.

    Raises:
      UserError: a flag does not fit, or the config cannot be measured.
    """
    where = report.machine() | {"malloc": flag_values.malloc}
    if flag_values.out:
        report.check(flag_values.out)
    if flag_values.update:
        report.check_marks(flag_values.update, subject)
    rows = measure(flag_values.config, flag_values)
    text = show(rows)
    print(text)
    if flag_values.out:
        report.write(flag_values.out, rows, where, text)
    if flag_values.update:
        report.update(flag_values.update, subject, f"{report.origin(where)}\n\n{text}")
