"""Exports the network of a training run as one small file that fills photographs.

    python -m pconv_jax.tools.export_weights --run=runs/photographs --out=photographs.safetensors

The file holds the parameters in half precision (averaged ones if the run has them), the network's options and the
settings of its image pyramid. `python -m pconv_jax.inpaint --weights=FILE` and `pconv_jax.Inpainter.from_weights`
read it. A network without `model.guess` is applied coarse to fine if `--threshold` is given, and once if not.
"""

import os
import tempfile

from absl import flags

from pconv_jax import command_line, errors
from pconv_jax.inpainting import pyramid, weights_file
from pconv_jax.tools import weight_files
from pconv_jax.training import build, checkpoints, rundir, validation


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
    config = rundir.read_config(flag_values.run)
    validation.validate(config)
    settings = pyramid.of_config(config)
    if flag_values.threshold is not None:
        if settings is not None:
            raise errors.UserError(
                "--threshold is for networks without model.guess, and the run's network has it: leave it out"
            )
        settings = pyramid.Settings(threshold=flag_values.threshold, band=flag_values.band)
    state = checkpoints.restore_chosen(flag_values.run, build.state_shapes(config), flag_values.checkpoint)
    about = {
        "name": config.name,
        "step": int(state.step),
        "licence": flag_values.licence,
        "credits": flag_values.credits,
    }
    section = {**config.model.to_dict(), "conv_impl": "auto"}
    exported = weights_file.Weights(section, state.eval_variables, settings, about)
    folder = os.path.dirname(os.path.abspath(flag_values.out))
    with tempfile.TemporaryDirectory(prefix=".weights_", dir=folder) as temporary:
        path = os.path.join(temporary, "weights.safetensors")
        weights_file.write(path, exported)
        sha256 = weights_file.sha256(weights_file.read(path).variables)
        os.replace(path, flag_values.out)
    size = os.path.getsize(flag_values.out) / 1e6
    print(f"{flag_values.out}: step {about['step']} of {config.name}, {size:.1f} MB, variables sha256 {sha256}")


if __name__ == "__main__":
    command_line.run(main, define_flags)
