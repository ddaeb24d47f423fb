"""Makes masks from mask images and alpha channels: uint8 `[H, W]`, exactly 0 (hole) or 1 (valid)."""

import cv2
import numpy as np

from pconv_jax import errors
from pconv_jax.inpainting import photograph
from pconv_jax.reading import images, mask_images

ALPHA = "alpha"
POLARITIES = (*mask_images.POLARITIES, ALPHA)


def from_image(drawn: photograph.Photograph, polarity: str) -> np.ndarray:
    """Returns the mask that an image shows, by the rule of `mask_images.hole`.

    Args:
      drawn: the mask image, or for "alpha" the photograph itself.
      polarity: "white_hole", "black_hole", or "alpha": pixels of less than half the opacity are hole.

    Returns:
      uint8 `[H, W]`, 1 = valid.

    Raises:
      UserError: with "alpha", the photograph has no alpha channel; else, the mask image is transparent, coloured or too
        dark.
    """
    if polarity == ALPHA:
        if drawn.alpha is None:
            raise errors.UserError(
                "has no alpha channel: give a mask with --mask and --polarity=white_hole or black_hole"
            )
        return (drawn.alpha[..., 0] > drawn.white / 2).astype(np.uint8)
    return 1 - mask_images.hole(images.Image(drawn.pixels, drawn.alpha), polarity)


def grey_share(drawn: photograph.Photograph) -> float:
    """Returns the share of pixels that are neither black nor white; a mask has few of them, along edges."""
    return mask_images.grey_share(images.Image(drawn.pixels, drawn.alpha))


def context(photo: photograph.Photograph, mask: np.ndarray) -> np.ndarray:
    """Returns the mask of pixels that the network may see: valid, and not wholly transparent.

    Editors hide arbitrary colours under an alpha of 0, which must not bleed into the filling.

    Args:
      photo: the photograph.
      mask: uint8 `[H, W]`, 1 = valid.
    """
    return mask if photo.alpha is None else mask & (photo.alpha[..., 0] > 0)


def grow(mask: np.ndarray, distance: float) -> np.ndarray:
    """Returns the mask with its hole grown by a distance in all directions.

    Args:
      mask: uint8 `[H, W]`, 1 = valid.
      distance: distance in pixels.
    """
    if not distance or mask.all():
        return mask
    return (cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) > distance).astype(np.uint8)


def feather(image: np.ndarray, filled: np.ndarray, mask: np.ndarray, grown: np.ndarray, distance: int) -> np.ndarray:
    """Blends from the image, at the rim of the grown hole, to the filling, `distance` pixels further inside.

    Nothing changes outside the grown hole, and the hole as it was drawn holds the filling alone.

    Args:
      image: `[H, W, C]`, the photograph.
      filled: the photograph with its grown hole filled, of the same dtype.
      mask: `[H, W]`, 1 = valid, as it was drawn.
      grown: `grow(mask, at least distance)`.
      distance: width of the blend in pixels.

    Returns:
      `[H, W, C]`, of the same dtype.
    """
    if not distance or grown.all():
        return filled
    share = cv2.distanceTransform(1 - grown, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) / (distance + 1)
    band = (share < 1) & (grown == 0) & (mask == 1)
    share = share[band][:, None].astype(np.float64)
    result = filled.copy()
    result[band] = np.round(image[band] * (1 - share) + filled[band] * share)
    return result
