"""Masks that people drew: image files and alpha channels -> masks, uint8 `[H, W]`, exactly 0 (hole) or 1 (valid)."""

import cv2
import numpy as np

from pconv_jax import errors
from pconv_jax.data import masks
from pconv_jax.inpainting import photograph

ALPHA = "alpha"
POLARITIES = (*masks.POLARITIES, ALPHA)

_COLOURED = 0.01  # share of pixels whose channels disagree about being white, beyond a JPEG's edges


def from_image(drawn: photograph.Photograph, polarity: str) -> np.ndarray:
    """The mask that an image shows, thresholded at half of white.

    Args:
      drawn: the mask image, or for "alpha" the photograph itself.
      polarity: "white_hole", "black_hole", or "alpha": transparent is hole.

    Raises:
      UserError: it has no alpha ("alpha"), or has colour or transparency, so that what is white is not clear.
    """
    if polarity == ALPHA:
        if drawn.alpha is None:
            raise errors.UserError(
                "has no alpha channel: give a mask with --mask and --polarity=white_hole or black_hole"
            )
        return (drawn.alpha[..., 0] > drawn.white / 2).astype(np.uint8)
    if drawn.alpha is not None and drawn.alpha.min() < drawn.white:
        raise errors.UserError("is a mask with transparent pixels, neither white nor black: flatten it first")
    channels = drawn.pixels > drawn.white / 2
    if np.mean(channels.any(axis=-1) & ~channels.all(axis=-1)) > _COLOURED:
        raise errors.UserError("is a mask in colour; needs black and white: is it the photograph?")
    white = np.asarray(channels.any(axis=-1))
    return (~white if polarity == "white_hole" else white).astype(np.uint8)


def grey_share(drawn: photograph.Photograph) -> float:
    """Share of the pixels that are neither black nor white, within a tenth: more than edges is no mask."""
    pixels = drawn.pixels if drawn.pixels.shape[-1] == 1 else drawn.pixels[..., 1:2]
    return float(np.mean((pixels > 0.1 * drawn.white) & (pixels < 0.9 * drawn.white)))


def grow(mask: np.ndarray, distance: float) -> np.ndarray:
    """The mask whose hole reaches `distance` pixels further, in all directions alike."""
    if not distance or mask.all():
        return mask
    return (cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) > distance).astype(np.uint8)


def feather(image: np.ndarray, filled: np.ndarray, mask: np.ndarray, grown: np.ndarray, distance: int) -> np.ndarray:
    """Blends from the image at the rim of the grown hole to the filling `distance` pixels further in.

    Nothing changes outside the grown hole, and in the hole as it was drawn nothing of the image is left.

    Args:
      image, filled: `[H, W, C]`, of one dtype.
      mask, grown: `[H, W]`, 1 = valid; `grown` is `grow(mask, at least distance)`.
      distance: in pixels.
    """
    if not distance or grown.all():
        return filled
    share = cv2.distanceTransform(1 - grown, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) / (distance + 1)
    band = (share < 1) & (grown == 0) & (mask == 1)
    share = share[band][:, None].astype(np.float64)
    result = filled.copy()
    result[band] = np.round(image[band] * (1 - share) + filled[band] * share)
    return result
