"""Image inpainting for irregular holes with partial convolutions, in JAX."""

from pconv_jax.ops.partial_conv import partial_conv, propagate_mask

__all__ = ["partial_conv", "propagate_mask"]
