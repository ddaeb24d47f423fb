"""The types that each format's module returns to `images`: headers, decoded samples, and blocks of metadata."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np


class Header(NamedTuple):
    """The part of a file that is known before it is decoded.

    Attributes:
      width: pixels per row, as stored.
      height: number of rows, as stored.
      orientation: EXIF's number, 1 to 8, of the rotation and reflection that make the stored image upright.
      details: what the format's own `decode` needs besides.
    """

    width: int
    height: int
    orientation: int = 1
    details: Any = None


class Samples(NamedTuple):
    """Decoded pixels as stored, not yet upright.

    Attributes:
      array: uint8 or uint16 `[H, W, C]`: grey or RGB, with alpha (not premultiplied) behind it where `C` is 2 or 4.
      damage: a sentence about missing data, or empty.
      warnings: sentences about what was left out.
    """

    array: np.ndarray
    damage: str = ""
    warnings: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Metadata of a file as it is stored.

    Attributes:
      icc: ICC profile, or None.
      exif: EXIF block, or empty.
      xmp: XMP packet, or empty.
      dpi: print resolution in pixels per inch, `(x, y)`, or None.
      colour: chunks of a PNG that define its colour space: gAMA, cHRM, sRGB, cICP.
      warnings: sentences about what cannot be read.
    """

    icc: bytes | None = None
    exif: bytes = b""
    xmp: bytes = b""
    dpi: tuple[float, float] | None = None
    colour: tuple[tuple[bytes, bytes], ...] = ()
    warnings: tuple[str, ...] = ()
