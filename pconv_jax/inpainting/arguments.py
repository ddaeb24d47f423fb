"""Converts and checks the images and masks that are passed to `Inpainter`."""

import numpy as np

from pconv_jax import errors

SCALES = {"uint8": 255, "uint16": 65535, "float32": 1}  # The value of white by dtype.


def arrays(image, mask) -> tuple[np.ndarray, np.ndarray]:
    """Converts an image and a mask to NumPy arrays. Masked pixels of a NumPy masked array become hole.

    Args:
      image, mask: arrays, or Pillow images.

    Raises:
      UserError: one of them is a Pillow image whose numbers are not brightness.
    """
    for name, value in (("image", image), ("mask", mask)):
        if getattr(value, "mode", "L") not in ("1", "L", "RGB", "I;16"):  # NumPy would read palette indices as grey.
            raise errors.UserError(f"{name} is a Pillow image of mode {value.mode}: convert it to RGB or L first")
    hidden = np.ma.getmaskarray(image) if isinstance(image, np.ma.MaskedArray) else None
    image = np.asarray(image)
    mask = np.asarray(np.ma.filled(mask, 0) if isinstance(mask, np.ma.MaskedArray) else mask)
    if hidden is not None and mask.shape[:2] == image.shape[:2]:
        pixels = hidden.reshape(*image.shape[:2], -1).any(axis=-1)
        mask = np.where(pixels.reshape(mask.shape), 0, mask)
    return image, mask


def checked(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Checks an image and a mask, and returns them as `[H, W, C]` and bool `[H, W]`, True = valid.

    Args:
      image, mask: as for `Inpainter.fill`.

    Raises:
      UserError: the image has another shape, dtype or range, or the mask holds other values than 0 and 1 or no valid
        pixel.
    """
    if image.dtype.name not in SCALES:
        raise errors.UserError(f"image is {image.dtype}; needs {', '.join(SCALES)}")
    planes = image[..., None] if image.ndim == 2 else image
    if planes.ndim != 3 or planes.shape[-1] not in (1, 3) or not planes.size:
        raise errors.UserError(
            f"image is {list(image.shape)}; needs [H, W], [H, W, 1] or [H, W, 3]: keep alpha apart from it"
        )
    if mask.shape not in (planes.shape[:2], (*planes.shape[:2], 1)):
        raise errors.UserError(
            f"mask is {list(mask.shape)} and image {list(image.shape)}; needs the same height and width"
        )
    if not np.isin(mask, (0, 1)).all():
        raise errors.UserError(f"mask holds {mask.min()} to {mask.max()}; needs only 0 (hole) and 1 (valid)")
    valid = mask.reshape(planes.shape[:2]) == 1
    if not valid.any():
        raise errors.UserError("the mask is all hole: nothing is left to fill it from")
    if image.dtype == np.float32:
        seen = planes[valid]
        if not (np.isfinite(seen).all() and seen.min() >= 0 and seen.max() <= 1):
            raise errors.UserError(f"valid pixels range from {seen.min()} to {seen.max()}; float32 needs [0, 1]")
    return planes, valid
