"""Reads the network of a training run, with everything that a weights file would record about it."""

from pconv_jax.inpainting import pyramid, weights_file
from pconv_jax.training import build, checkpoints, rundir, validation


def restore(run: str, checkpoint: str):
    """Returns `(config, state)` of a run, with the config changed so that its network is applied in float32.

    A CPU computes bfloat16 slowly, and half a level of grey would be lost.

    Args:
      run: the directory that training wrote.
      checkpoint: "last" or "best".

    Raises:
      UserError: the run or its checkpoint does not exist, or the checkpoint is of another network.
    """
    config = rundir.read_config(run)
    validation.validate(config)
    state = checkpoints.restore_chosen(run, build.state_shapes(config), checkpoint)
    config.model.dtype = "float32"
    return config, state


def read(run: str, checkpoint: str) -> weights_file.Weights:
    """Returns the network of a run, with averaged parameters where the run has them.

    Args:
      run, checkpoint: as for `restore`.

    Raises:
      UserError: as for `restore`.
    """
    config, state = restore(run, checkpoint)
    about = {"name": config.name, "step": int(state.step)}
    if config.data.grid:
        about["grid"] = list(config.data.grid)
        about["variables"] = [name for name in config.data.variable.split(",") if name]
        about["channel_axis"] = config.data.channel_axis
    section = {**config.model.to_dict(), "conv_impl": "auto"}
    return weights_file.Weights(section, state.eval_variables, pyramid.of_config(config), about)
