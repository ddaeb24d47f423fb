"""What becomes of the holes behind a partial convolution: the paper's mask update, and two to hold it against.

Masks `[N, H, W, 1]`, 1 = valid. The convolution itself is the same under every rule: features are renormalised by what
the window saw, and are 0 where it saw nothing.
"""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Shaped

RULES = ("shrink", "keep", "vanish")


def update(seen: Float[Array, "n h w 1"], before: Shaped[ArrayLike, "n h w 1"], rule: str) -> Float[Array, "n h w 1"]:
    """The mask that the next layer goes by.

    - "shrink": valid where the window saw anything valid (Liu et al. 2018, equation 2): holes shrink by half a window
      per layer until they are gone.
    - "keep": valid where it was valid before: what a layer finds inside a hole is not used, so that the last layer
      alone fills, a rim as wide as its window reaches, and the middle of a hole stays empty.
    - "vanish": valid everywhere, as behind an ordinary convolution: only the first layer sees holes, and the 0 where it
      saw nothing counts as a feature.

    Args:
      seen: the mask that the convolution returned.
      before: its input's mask at the centres of the windows (`centres`).
      rule: one of `RULES`.

    Returns:
      float32, exactly 0 or 1.

    Raises:
      ValueError: an unknown rule.
    """
    if rule == "shrink":
        return seen
    if rule == "keep":
        return (jnp.asarray(before) != 0).astype(seen.dtype)
    if rule == "vanish":
        return jnp.ones_like(seen)
    raise ValueError(f'mask update "{rule}" is unknown; needs one of {", ".join(RULES)}')


def centres(mask: Shaped[ArrayLike, "n h w 1"], stride: int) -> Shaped[Array, "n p q 1"]:
    """The mask at the centre of each window of a convolution with half padding."""
    return jnp.asarray(mask)[:, ::stride, ::stride]
