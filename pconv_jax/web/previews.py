"""Encodes what the browser shows: PNGs of 8 bits, with alpha and colour profile, whole, in part or small."""

import dataclasses

import cv2
import numpy as np

from pconv_jax.inpainting import photograph, photograph_files

SMALL = 160  # Longest side of a thumbnail in pixels.


def png(photo: photograph.Photograph, box: tuple[int, int, int, int] | None = None) -> bytes:
    """Returns a photograph, or a rectangle of it, as a PNG of 8 bits without EXIF and XMP.

    Args:
      photo: the photograph.
      box: `(x, y, width, height)` in pixels, or None for the whole.
    """
    x, y, width, height = box or (0, 0, photo.pixels.shape[1], photo.pixels.shape[0])
    planes = {
        name: _eight_bits(plane[y : y + height, x : x + width])
        for name, plane in (("pixels", photo.pixels), ("alpha", photo.alpha))
        if plane is not None
    }
    shown = dataclasses.replace(photo, **planes, exif=b"", xmp=b"", dpi=None)
    return photograph_files.encode(shown, ".png", fast=True)


def thumbnail(photo: photograph.Photograph) -> bytes:
    """Returns a photograph whose longest side is `SMALL` pixels, as a PNG of 8 bits."""
    height, width = photo.pixels.shape[:2]
    scale = min(1, SMALL / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))

    def smaller(plane):
        return cv2.resize(_eight_bits(plane), size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], -1)

    alpha = None if photo.alpha is None else smaller(photo.alpha)
    return png(dataclasses.replace(photo, pixels=smaller(photo.pixels), alpha=alpha))


def _eight_bits(plane):
    return (plane >> 8).astype(np.uint8) if plane.dtype == np.uint16 else plane
