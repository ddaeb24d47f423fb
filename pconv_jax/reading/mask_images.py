"""The one rule by which an image is a mask: white and black, thresholded at half of white."""

import numpy as np

from pconv_jax import errors
from pconv_jax.reading import images

POLARITIES = ("white_hole", "black_hole")

_COLOURED = 0.05  # Share of coloured pixels among those that are not black above which an image is no mask.
_DARK = 0.1  # Fraction of white below which a pixel is black.


def hole(image: images.Image, polarity: str) -> np.ndarray:
    """Returns the hole that a mask image shows.

    Pixels above half of white are white. An image of exactly two values, one of them 0, is taken as black and white
    however dark the other value is: many programs write masks of 0 and 1.

    Args:
      image: the mask image.
      polarity: "white_hole" or "black_hole".

    Returns:
      uint8 `[H, W]`, 1 = hole.

    Raises:
      UserError: it is transparent, coloured, or too dark to tell what is white.
    """
    if image.alpha is not None and image.alpha.min() <= image.white / 2:
        raise errors.UserError("is a mask with transparent pixels, neither white nor black: flatten it first")
    pixels, brightest = image.pixels, int(image.pixels.max())
    threshold = image.white / 2
    if 0 < brightest <= threshold:
        if pixels.min() > 0 or not np.isin(pixels, (0, brightest)).all():
            raise errors.UserError(
                f"is a mask whose brightest value is {brightest} of {image.white}, so that nothing is white: save it "
                f"with 0 and {image.white}"
            )
        threshold = brightest / 2
    white = pixels > threshold
    any_white = white.any(axis=-1)
    if pixels.shape[-1] > 1:
        visible = np.count_nonzero(pixels.max(axis=-1) > min(_DARK * image.white, threshold))
        if np.count_nonzero(any_white & ~white.all(axis=-1)) > _COLOURED * visible:
            raise errors.UserError("is a mask in colour; needs black and white: is it the photograph?")
    return (any_white if polarity == "white_hole" else ~any_white).astype(np.uint8)


def grey_share(image: images.Image) -> float:
    """Returns the share of pixels that are neither black nor white, within a tenth of white."""
    pixels, white = image.pixels[..., image.pixels.shape[-1] // 2], image.white
    if 0 < pixels.max() <= white / 2:
        white = int(pixels.max())
    return float(np.mean((pixels > 0.1 * white) & (pixels < 0.9 * white)))
