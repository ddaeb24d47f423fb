"""Flags that several subjects share, and what they do with them."""

import copy

from absl import app, flags, logging

from pconv_jax import command_line
from pconv_jax.benchmark import report
from pconv_jax.training import validation

FLAGS = flags.FLAGS


def define(sizes: str, batches: str, steps: int):
    """Flags of a subject that measures networks, with its defaults."""
    flags.DEFINE_list("sizes", sizes.split(","), "Pixels per side, multiples of 4.")
    flags.DEFINE_list("batches", batches.split(","), "Examples per step.")
    flags.DEFINE_integer("steps", steps, "Steps that count, after some that warm up.", lower_bound=1)
    define_output()


def define_output():
    """Flags of every subject of this kind."""
    flags.DEFINE_enum("malloc", "keep", ["keep", "system"], "The allocator: as launch.sh sets it, or left alone.")
    flags.DEFINE_string("out", None, "Directory for benchmark.csv, .json and .md; none: only a table.")
    flags.DEFINE_string("update", None, "Markdown file whose table, between <!-- SUBJECT --> marks, is replaced.")


def define_against():
    """The flag that names an opponent."""
    flags.DEFINE_enum("against", None, ["torch"], "Who computes the same beside us.")
    define_torch()


def define_torch():
    """How PyTorch is measured."""
    flags.DEFINE_bool("torch_compile", True, "Try torch.compile at torch's strongest, too: a minute or two more.")


def integers(name: str) -> list[int]:
    """The values of a list flag.

    Raises:
      ValueError: one is no positive integer.
    """
    values = FLAGS[name].value
    if not values or not all(value.isdecimal() and int(value) > 0 for value in values):
        raise ValueError(f"--{name}={','.join(values)}; needs positive integers, e.g. --{name}=256,512")
    return [int(value) for value in values]


def sized(config, size: int, batch: int):
    """The config at a size and batch, its depth lowered so that the bottleneck is 2 x 2 or larger.

    Raises:
      ValueError: the config does not work at that size.
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
        raise ValueError('model.kind is "gated", whose operations are not counted: choose another')
    return config


def run(subject: str, measure, argv, show=report.table):
    """What `main` of a subject does: checks, measures, prints and writes; what a person can mend is one line.

    Args:
      subject: its name.
      measure: config -> rows.
      argv: what is left of the command line.
      show: rows -> Markdown.
    """
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]}: overrides are --config.key=value")
    if FLAGS["verbosity"].using_default_value:
        logging.set_verbosity(logging.INFO)
    where = report.machine() | {"malloc": FLAGS.malloc}
    try:
        if FLAGS.out:
            report.check(FLAGS.out)
        if FLAGS.update:
            report.check_marks(FLAGS.update, subject)
        rows = measure(command_line.CONFIG.value)
        text = show(rows)
        print(text)
        if FLAGS.out:
            report.write(FLAGS.out, rows, where, text)
        if FLAGS.update:
            report.update(FLAGS.update, subject, f"{report.origin(where)}\n\n{text}")
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
