"""The command `pconv-jax` of an installed package, which is also `python -m pconv_jax`.

pconv-jax inpaint photo.jpg mask.png filled.png
pconv-jax train photographs --config.data.path=DIR
"""

import runpy
import sys
from collections.abc import Sequence
from typing import NamedTuple

import pconv_jax  # for its version


class Command(NamedTuple):
    """A command of the package.

    Attributes:
      module: the module that `python -m` runs.
      extra: the extra of the package whose libraries the command needs; "" if it needs none.
      arguments: its usual arguments, for the help.
      about: what it does, for the help.
    """

    module: str
    extra: str
    arguments: str
    about: str


COMMANDS = {
    "inpaint": Command("pconv_jax.inpaint", "", "PHOTO MASK OUT", "Fills a photograph, or a folder of them."),
    "web": Command("pconv_jax.web", "web", "[FOLDER]", "Fills photographs on a page, with a brush."),
    "masks": Command("pconv_jax.tools.mask_sheet", "", "--out=FILE", "Draws a grid of masks."),
    "infill": Command("pconv_jax.infill", "train", "--weights=FILE --data=FILE.nc", "Fills gaps of a NetCDF file."),
    "train": Command("pconv_jax.main", "train", "CONFIG", "Trains and evaluates an experiment."),
    "evaluate": Command("pconv_jax.evaluate", "train", "--run=DIR", "Evaluates a run beside others and baselines."),
    "sweep": Command("pconv_jax.sweep", "train", "CONFIG", "Trains the variants of a sweep file, and reports."),
}
# Commands whose first argument is the experiment, which the modules take as --config, with an example.
WITH_CONFIG = {"train": "quickstart", "sweep": "ablation"}


def usage() -> str:
    """Returns the help of `pconv-jax`."""
    lines = []
    for name, command in COMMANDS.items():
        extra = f" (needs pconv_jax[{command.extra}])" if command.extra else ""
        lines.append(f"  {f'{name} {command.arguments}':<44}{command.about}{extra}")
    return "\n".join(
        [
            "usage: pconv-jax COMMAND [ARGUMENTS]",
            "",
            *lines,
            "",
            "CONFIG is a file, or the name of an experiment that the package contains, e.g. quickstart or photographs.",
            "pconv-jax COMMAND --help lists the options of a command. pconv-jax --version prints the version.",
        ]
    )


def main(arguments: Sequence[str] | None = None):
    """Runs a command as `python -m` runs its module.

    Args:
      arguments: name and arguments of the command; `sys.argv[1:]` by default.

    Raises:
      SystemExit: the command has ended, does not exist, or lacks a library.
    """
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["help"]
    if name in ("help", "-h", "--help"):
        print(usage())
        return
    if name == "--version":
        print(f"pconv_jax {pconv_jax.__version__}")
        return
    if name not in COMMANDS:
        print(f"error: unknown command {name}\n{usage()}", file=sys.stderr)
        sys.exit(2)
    command = COMMANDS[name]
    if name in WITH_CONFIG and not rest:
        print(f"error: {name} needs an experiment, e.g. pconv-jax {name} {WITH_CONFIG[name]}", file=sys.stderr)
        sys.exit(2)
    if name in WITH_CONFIG and not rest[0].startswith("-"):
        rest[0] = f"--config={rest[0]}"
    sys.argv = [f"pconv-jax {name}", *rest]
    try:
        runpy.run_module(command.module, run_name="__main__", alter_sys=True)
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library in ("", "pconv_jax"):
            raise
        extra = command.extra or "train"  # e.g. for `inpaint --run`, which reads a checkpoint
        sys.exit(f'error: pconv-jax {name} needs {library}, which is not installed: pip install "pconv_jax[{extra}]"')


if __name__ == "__main__":
    main()
