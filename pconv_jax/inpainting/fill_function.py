"""Filling a photograph as one pure function of arrays, which can be exported to other programs (`tools.export`).

`Inpainter` chooses tiles and levels of its image pyramid for each photograph. This function has a fixed number of
levels and no tiles, so its size may be unknown when it is traced, as long as it is a multiple of `multiple`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from pconv_jax import errors
from pconv_jax.models import unet
from pconv_jax.ops import compositing, pyramid

LEVELS = 5  # The default number of levels of the image pyramid.

Fill = Callable[[jax.Array, jax.Array], jax.Array]


def multiple(depth: int, levels: int) -> int:
    """Returns the number of which height and width have to be multiples.

    Args:
      depth: downsampling stages of the network.
      levels: levels of the image pyramid.
    """
    return 2 ** (depth + levels - 1)


def make(model: unet.UNet, variables, levels: int) -> Fill:
    """Returns a function that fills the holes of photographs.

    Args:
      model: the network.
      variables: its parameters, and the running statistics of batch normalisation.
      levels: levels of the image pyramid, 1 for a network that takes no guess. A level at which no hole is left
        changes nothing, so more levels than a photograph needs do no harm.

    Returns:
      `fill(image, mask) -> filled`: the image `[N, H, W, C]` in [0, 1], whose content in holes does not matter; the
      mask `[N, H, W, 1]`, 1 valid, 0 hole, and -1 where the image was padded to a multiple; and the float32 image with
      its holes filled, its valid pixels as they were.

    Raises:
      UserError: the network is for grids of the whole earth, or takes no guess and `levels` is not 1.
    """
    if model.padding == "circular":
        raise errors.UserError(
            "the network's width wraps around, for grids of the whole earth: it fills no photographs"
        )
    if levels < 1 or (levels > 1 and not model.guess):
        needed = "at least 1" if model.guess else "1, because the network takes no guess from a coarser level"
        raise errors.UserError(f"the number of levels is {levels}; needs {needed}")

    def fill(image, mask):
        image, valid = jnp.asarray(image, jnp.float32), (mask > 0).astype(jnp.float32)
        inside = (mask >= 0).astype(jnp.float32)
        levels_inside = [inside]
        while len(levels_inside) < levels:
            levels_inside.append(pyramid.coarsen(levels_inside[-1], levels_inside[-1])[1])
        coarse_to_fine = list(zip(pyramid.levels(image, valid, levels), levels_inside, strict=True))[::-1]
        filled = None
        for (level_image, level_mask), level_inside in coarse_to_fine:
            if not model.guess:
                guess = ()
            elif filled is None:
                guess = (pyramid.interpolate(level_image, level_mask, model.depth),)
            else:
                guess = (pyramid.enlarge(filled, level_image.shape[1:3]),)
            output, seen = model.apply(variables, level_image, level_mask, *guess, inside=level_inside, train=False)
            if model.guess:  # Beyond the image the network predicts nothing, and the next level interpolates there.
                output = compositing.composite(output, guess[0], level_inside)
            elif seen is not None:
                mean = compositing.valid_mean(level_image, level_mask)
                output = compositing.composite(output, jnp.zeros_like(output) + mean, seen)
            filled = compositing.composite(level_image, output, level_mask)
        return compositing.composite(image, jnp.clip(filled, 0, 1), valid)

    return fill
