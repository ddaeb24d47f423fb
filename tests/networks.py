"""Small networks and runs with random parameters, for tests that need a trained network.

NumPy draws the parameters, because compiling the modules' own initialisation takes ten times as long as compiling the
network.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from pconv_jax.models import unet
from pconv_jax.tools import export_weights
from pconv_jax.training import build, checkpoints, rundir, train_state

SMALL = {"depth": 2, "width": 6, "max_width": 8, "kernels": (3,), "norm": "none", "center": True}


@functools.cache
def random(**options):
    """Returns `(model, variables)` whose output is mostly within [0, 1] and differs from pixel to pixel.

    Args:
      **options: fields of `unet.UNet` that replace those of `SMALL`.
    """
    model = unet.UNet(**{**SMALL, **options})
    side = 2**model.depth
    image, mask = jnp.zeros((1, side, side, model.channels)), jnp.ones((1, side, side, 1))
    guess = image if model.guess else None
    return model, _drawn(jax.eval_shape(model.init, jax.random.key(0), image, mask, guess))


def random_state(config) -> train_state.TrainState:
    """Returns a state for a config, with random parameters and step 0."""
    return _drawn(build.state_shapes(config))


def save_run(workdir, config, scored):
    """Makes a run directory without training.

    Args:
      workdir: path of the run directory.
      config: experiment config.
      scored: `(state, PSNR)` pairs, each of which becomes a checkpoint.

    Returns:
      The path as a string.
    """
    rundir.claim(str(workdir), config, build.fingerprints(config, *build.image_sources(config)))
    with checkpoints.open_manager(str(workdir), max_to_keep=5) as manager:
        for state, psnr in scored:
            checkpoints.save(manager, state, psnr)
    return str(workdir)


def export(run, path, **changes):
    """Exports a run's last checkpoint as `tools.export_weights` does. Returns the path."""
    flag_values = flags.FlagValues()
    export_weights.define_flags(flag_values)
    options = {"run": run, "out": path, **changes}
    flag_values(["export_weights", *(f"--{name}={value}" for name, value in options.items())])
    export_weights.main(flag_values)
    return str(path)


def _drawn(shapes):
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name.endswith("kernel"):
            scale = 0.3 if "dec1" in name else 1.0
            return jnp.asarray(rng.normal(0, scale * (2 / np.prod(leaf.shape[:-1])) ** 0.5, leaf.shape), leaf.dtype)
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.zeros(leaf.shape, leaf.dtype)
        centre = 1.0 if name.endswith(("scale", "var")) else 0.0
        return jnp.asarray(rng.uniform(centre - 0.05, centre + 0.05, leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)
