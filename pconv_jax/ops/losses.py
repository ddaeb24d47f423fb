"""The six loss terms of the paper (Liu et al. 2018, section 3.3), and `log_mse`, which is not the paper's.

Images `[N, H, W, C]`, float32 in [0, 1]; mask 1 = valid.

Every L1 is a mean over all elements of the batch, as the authors confirm: the valid and hole terms are not divided by
the valid or the hole area. Each term is one float32 scalar; the weights are in the config.

Grids of the earth have an additional weight per element: 0 where the target is not known, and in proportion to the
area of the cell (`area_weights`). The mean is still over all elements, so that the loss of a batch is the mean of the
losses of its parts. The total variation has no target and no such weight.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Shaped

from pconv_jax.ops import partial_conv

Images = Float[ArrayLike, "n h w c"]
Masks = Shaped[ArrayLike, "n h w 1"]
Features = Sequence[Float[ArrayLike, "_ _ _ _"]]
Weight = Float[ArrayLike, "#n h #w #c"] | None


def area_weights(latitude: Float[np.ndarray, " h"]) -> Float[np.ndarray, "1 h 1 1"]:
    """Returns the area of the cells of a regular grid in units of their mean: the cosine of latitude, normalised.

    Args:
      latitude: degrees of the centre of each row.
    """
    cosine = np.cos(np.deg2rad(np.asarray(latitude, np.float64)))
    return (cosine / cosine.mean()).astype(np.float32)[None, :, None, None]


def valid(output: Images, target: Images, mask: Masks, weight: Weight = None) -> Float[Array, ""]:
    """Returns the mean over all elements of `|M * (I_out - I_gt)|`.

    Args:
      output: I_out, the raw prediction.
      target: I_gt.
      mask: M, 1 valid, 0 hole.
      weight: factor of each element; None for 1.
    """
    return jnp.mean(_weighted(jnp.where(mask != 0, jnp.abs(output - target), 0), weight))


def hole(output: Images, target: Images, mask: Masks, weight: Weight = None) -> Float[Array, ""]:
    """Returns the mean over all elements of `|(1 - M) * (I_out - I_gt)|`.

    Args:
      output: I_out, the raw prediction.
      target: I_gt.
      mask: M, 1 valid, 0 hole.
      weight: factor of each element; None for 1.
    """
    return jnp.mean(_weighted(jnp.where(mask != 0, 0, jnp.abs(output - target)), weight))


def log_mse(output: Images, target: Images, mask: Masks, weight: Weight = None) -> Float[Array, ""]:
    """Returns the mean over images of the logarithm of the mean squared error in the hole, which is PSNR as a loss.

    A decibel of a smooth image counts as much as one of a textured image, and one of a small hole as much as one of a
    large hole. The squared error of one step of an 8-bit image is added, so that a perfect hole has a finite loss.

    Args:
      output: I_out, the raw prediction.
      target: I_gt.
      mask: M, 1 valid, 0 hole. An image without hole counts as a perfect one.
      weight: weight of each element in the mean over the hole; None for equal weights.
    """
    in_hole = (jnp.asarray(mask) == 0).astype(jnp.float32)
    squares = jnp.sum(_weighted(jnp.where(in_hole != 0, (output - target) ** 2, 0), weight), axis=(1, 2, 3))
    if weight is None:
        total = jnp.sum(in_hole, axis=(1, 2, 3)) * target.shape[-1]
    else:
        total = jnp.sum(jnp.broadcast_to(in_hole * weight, target.shape), axis=(1, 2, 3))
    mean = squares / jnp.maximum(total, 1)
    return jnp.mean(jnp.log(mean + 1 / 255**2))


def perceptual(of_output: Features, of_composite: Features, of_target: Features) -> Float[Array, ""]:
    """Returns the sum over layers p of `mean |Psi_p(I_out) - Psi_p(I_gt)| + mean |Psi_p(I_comp) - Psi_p(I_gt)|`.

    Args:
      of_output: feature maps Psi_p of I_out, one per layer.
      of_composite: feature maps of I_comp.
      of_target: feature maps of I_gt.
    """
    return _l1_over_layers(of_output, of_target) + _l1_over_layers(of_composite, of_target)


def style(of_image: Features, of_target: Features) -> Float[Array, ""]:
    """Returns the sum over layers p of the mean over `C x C` of `|G_p(image) - G_p(target)|`, G_p as in `gram`.

    Args:
      of_image: feature maps of I_out (style_out) or of I_comp (style_comp), one per layer.
      of_target: feature maps of I_gt.
    """
    return _l1_over_layers([gram(f) for f in of_image], [gram(f) for f in of_target])


def gram(features: Float[ArrayLike, "n h w c"]) -> Float[Array, "n c c"]:
    """Returns `Psi^T Psi / (C * H * W)` per image, in float32: its sums overflow float16 and stagnate in bfloat16."""
    _, height, width, channels = features.shape
    flat = _wide(features).reshape(features.shape[0], height * width, channels)
    products = jnp.einsum("npc,npd->ncd", flat, flat, precision=jax.lax.Precision.HIGHEST)
    return products / (channels * height * width)


def total_variation(composite: Images, mask: Masks) -> Float[Array, ""]:
    """Sums absolute differences of I_comp between neighbours that both lie in the hole dilated by one pixel.

    The first and the last row are not neighbours, and pixels far inside the valid region do not contribute.

    Args:
      composite: I_comp.
      mask: M, 1 valid, 0 hole.

    Returns:
      The horizontal and vertical sums over the number of elements of I_comp (`N_Icomp` in the paper's L_tv).
    """
    region = propagate_holes(mask)
    down = jnp.abs(composite[:, 1:] - composite[:, :-1]) * (region[:, 1:] * region[:, :-1])
    right = jnp.abs(composite[:, :, 1:] - composite[:, :, :-1]) * (region[:, :, 1:] * region[:, :, :-1])
    return (jnp.sum(down) + jnp.sum(right)) / composite.size


def propagate_holes(mask: Masks) -> Masks:
    """Returns the region of the TV term: 1 in the hole dilated by one pixel (3x3), 0 elsewhere."""
    return partial_conv.propagate_mask(mask == 0, (3, 3))


def _l1_over_layers(a, b):
    return sum(jnp.mean(jnp.abs(_wide(x) - _wide(y))) for x, y in zip(a, b, strict=True))


def _weighted(x, weight):
    return x if weight is None else x * weight


def _wide(x):
    """Converts to float32; float64 stays."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


# The terms of the loss by the name of their weight. To add one, add an entry to one of these three, and its weight to
# experiments/default.py. Terms of images are functions of `(output, target, mask, composite, weight)`, terms of VGG16's
# features of `(of_output, of_composite, of_target)`, each a list of feature maps. Optional terms are terms of images
# that are computed only if their weight is not 0; the others are always logged.
IMAGE_TERMS = {
    "valid": lambda output, target, mask, composite, weight: valid(output, target, mask, weight),
    "hole": lambda output, target, mask, composite, weight: hole(output, target, mask, weight),
    "tv": lambda output, target, mask, composite, weight: total_variation(composite, mask),
}
OPTIONAL_TERMS = {"log_mse": lambda output, target, mask, composite, weight: log_mse(output, target, mask, weight)}
FEATURE_TERMS = {
    "perceptual": perceptual,
    "style_out": lambda of_output, of_composite, of_target: style(of_output, of_target),
    "style_comp": lambda of_output, of_composite, of_target: style(of_composite, of_target),
}


def term_names(features: bool = True) -> tuple[str, ...]:
    """Returns the names of all terms, or of those that do without VGG16's features."""
    of_images = (*IMAGE_TERMS, *OPTIONAL_TERMS)
    return (*of_images, *FEATURE_TERMS) if features else of_images
