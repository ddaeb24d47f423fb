"""Exports the network of a training run as one small file that fills photographs.

    python -m pconv_jax.tools.export_weights --run=runs/photographs --out=photographs.safetensors

The file holds the parameters in half precision (averaged ones if the run has them), the network's options, and the
settings of its image pyramid or, for grids, their size and variables. `python -m pconv_jax.inpaint --weights=FILE` and
`pconv_jax.Inpainter.from_weights` read it, and `python -m pconv_jax.infill` for grids. A network without `model.guess`
is applied coarse to fine if `--threshold` is given, and once if not.
"""

import dataclasses
import os
import tempfile

from absl import flags

from pconv_jax import command_line, errors
from pconv_jax.inpainting import pyramid, run_weights, weights_file
from pconv_jax.tools import weight_files


def define_flags(flag_values: flags.FlagValues):
    """Adds the flags of `python -m pconv_jax.tools.export_weights`."""
    flags.DEFINE_string("run", None, "Run directory that training wrote.", flag_values, required=True)
    flags.DEFINE_enum("checkpoint", "last", ["last", "best"], "Which checkpoint to export.", flag_values)
    flags.DEFINE_string("out", None, "File to write, e.g. photographs.safetensors.", flag_values, required=True)
    flags.DEFINE_bool("overwrite", False, "Replace --out if it exists.", flag_values)
    flags.DEFINE_string("licence", "", "Licence of the weights, stored in the file.", flag_values)
    flags.DEFINE_string("credits", "", "Where the training photographs are credited, stored in the file.", flag_values)
    flags.DEFINE_float(
        "threshold", None, "Depth of holes, in pixels, beyond which a coarser level is used.", flag_values=flag_values
    )
    flags.DEFINE_float(
        "band", 4.0, "Rim in pixels that each level fills, with --threshold.", 1.0, flag_values=flag_values
    )


def main(flag_values: flags.FlagValues):
    """Restores the run's network and writes the file.

    Raises:
      UserError, OSError: there is no such run, or the file cannot be written; nothing was written.
    """
    weight_files.check_absent(flag_values.out, overwrite=flag_values.overwrite)
    exported = run_weights.read(flag_values.run, flag_values.checkpoint)
    if flag_values.threshold is not None:
        if exported.settings is not None:
            raise errors.UserError(
                "--threshold is for networks without model.guess, and the run's network has it: leave it out"
            )
        settings = pyramid.Settings(threshold=flag_values.threshold, band=flag_values.band)
        exported = dataclasses.replace(exported, settings=settings)
    about = {**exported.about, "licence": flag_values.licence, "credits": flag_values.credits}
    exported = dataclasses.replace(exported, about=about)
    folder = os.path.dirname(os.path.abspath(flag_values.out))
    with tempfile.TemporaryDirectory(prefix=".weights_", dir=folder) as temporary:
        path = os.path.join(temporary, "weights.safetensors")
        weights_file.write(path, exported)
        sha256 = weights_file.sha256(weights_file.read(path).variables)
        os.replace(path, flag_values.out)
    size = os.path.getsize(flag_values.out) / 1e6
    print(f"{flag_values.out}: step {about['step']} of {about['name']}, {size:.1f} MB, variables sha256 {sha256}")


if __name__ == "__main__":
    command_line.run(main, define_flags)
