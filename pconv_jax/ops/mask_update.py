"""The mask after a partial convolution: the paper's update, and two to compare it with.

Masks `[N, H, W, 1]`, 1 = valid. The rule decides only which mask the next layer receives. The features are the same
under every rule: renormalised by the mask sum, and 0 where a window has no valid position.
"""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Shaped

RULES = ("shrink", "keep", "vanish")


def update(
    updated: Float[Array, "n h w 1"], previous: Shaped[ArrayLike, "n h w 1"], rule: str
) -> Float[Array, "n h w 1"]:
    """Returns the mask that the next layer receives.

    - "shrink", the standard update: valid where the window has any valid position (Liu et al. 2018, equation 2). Holes
      shrink by half a kernel per layer until they are gone.
    - "keep", the fixed mask: valid where the input was valid. Features that a layer computes inside a hole are not
      used, so only the last layer fills holes: a rim of half a kernel, and the middle of a hole stays 0.
    - "vanish", the all-valid update: valid everywhere, as after an ordinary convolution. Only the first layer receives
      holes; where it has no valid position, its 0 counts as a feature.

    Args:
      updated: the mask that the convolution returned.
      previous: the mask of its input at the centres of the windows (`centres`).
      rule: one of `RULES`.

    Returns:
      float32, exactly 0 or 1.

    Raises:
      ValueError: the rule is unknown.
    """
    if rule == "shrink":
        return updated
    if rule == "keep":
        return (jnp.asarray(previous) != 0).astype(updated.dtype)
    if rule == "vanish":
        return jnp.ones_like(updated)
    raise ValueError(f'mask update "{rule}" is unknown; needs one of {", ".join(RULES)}')


def centres(mask: Shaped[ArrayLike, "n h w 1"], stride: int) -> Shaped[Array, "n p q 1"]:
    """Returns the mask at the centre of each window of a convolution with half padding.

    Args:
      mask: mask of the convolution's input.
      stride: stride of the convolution.

    Returns:
      The mask at the resolution of the convolution's output.
    """
    return jnp.asarray(mask)[:, ::stride, ::stride]
