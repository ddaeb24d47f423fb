"""The composite: known pixels from the image, holes from the prediction. Images `[N, H, W, C]`, mask 1 = valid."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped


def composite(
    image: Float[Array, "n h w c"], prediction: Float[Array, "n h w c"], mask: Shaped[Array, "n h w #c"]
) -> Float[Array, "n h w c"]:
    """`I_comp = M * I_gt + (1 - M) * I_out` (paper, section 3.3), by selection: valid pixels come back unchanged."""
    return jnp.where(mask != 0, image, prediction)
