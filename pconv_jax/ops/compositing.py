"""What is done with an image and its mask at the pixel level. Images `[N, H, W, C]`, mask `[N, H, W, 1]`, 1 = valid."""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Shaped


def composite(
    image: Float[ArrayLike, "n h w c"], prediction: Float[ArrayLike, "n h w c"], mask: Shaped[ArrayLike, "n h w 1"]
) -> Float[Array, "n h w c"]:
    """`I_comp = M * I_gt + (1 - M) * I_out` (paper, section 3.3), by selection: valid pixels come back unchanged."""
    return jnp.where(jnp.asarray(mask) != 0, image, prediction)


def valid_mean(image: Float[ArrayLike, "n h w c"], mask: Shaped[ArrayLike, "n h w 1"]) -> Float[Array, "n 1 1 c"]:
    """Mean of the valid pixels, per image and channel, in float32; 0 where there is none. Holes are not read."""
    valid = jnp.asarray(mask) != 0
    total = jnp.sum(jnp.where(valid, jnp.asarray(image, jnp.float32), 0), axis=(1, 2), keepdims=True)
    return total / jnp.maximum(jnp.sum(valid, axis=(1, 2), keepdims=True), 1).astype(jnp.float32)
