"""A photograph in memory: pixels, alpha, and the metadata that an editor would keep.

Pixels are uint8 or uint16 `[H, W, C]`, C = 1 grey or 3 RGB, and alpha `[H, W, 1]` apart from them, both upright.
"""

import dataclasses
import re

import numpy as np

from pconv_jax import errors
from pconv_jax.reading import exif, files, images

READ = images.EXTENSIONS

_MAX_DPI = 30_000  # Beyond it, as below 1, a print resolution is a mistake, which some formats cannot hold.


@dataclasses.dataclass(frozen=True)
class Photograph:
    """A photograph in memory.

    Attributes:
      pixels: uint8 or uint16 `[H, W, C]`, grey or RGB, upright.
      alpha: as `pixels`, `[H, W, 1]`, or None.
      icc: ICC profile, or None.
      exif: EXIF block with description, camera, settings, date and place; without orientation, thumbnail and maker's
        note. Empty if nothing is left.
      xmp: XMP packet, or empty.
      dpi: print resolution in pixels per inch, `(x, y)`, or None.
      colour: chunks of a PNG that define its colour space: gAMA, cHRM, sRGB, cICP.
      turned: whether EXIF's orientation was applied.
      warnings: sentences about what is damaged or was left out.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    icc: bytes | None = None
    exif: bytes = b""
    xmp: bytes = b""
    dpi: tuple[float, float] | None = None
    colour: tuple[tuple[bytes, bytes], ...] = ()
    turned: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def size(self) -> str:
        """Returns width and height in pixels, as "451x300"."""
        return f"{self.pixels.shape[1]}x{self.pixels.shape[0]}"

    @property
    def white(self) -> int:
        """Returns the largest value of a pixel: 255 or 65535."""
        return int(np.iinfo(self.pixels.dtype).max)


def read(path: str, max_pixels: int) -> Photograph:
    """Reads a photograph or a mask image, of any kind that `images` reads.

    Args:
      path: path of the file.
      max_pixels: largest number of pixels that is decoded: small files can claim to be huge.

    Raises:
      OSError: the file does not exist or cannot be opened.
      UserError: the file is not an image, is damaged or too large, or is of a kind that is not read.
    """
    with errors.prefixed(f"{files.printable(path)} "):
        return decode(files.read(path), max_pixels)


def decode(encoded: bytes, max_pixels: int) -> Photograph:
    """Decodes the bytes of a photograph or a mask image, of any kind that `images` reads.

    Args:
      encoded: the bytes of the file.
      max_pixels: largest number of pixels that is decoded.

    Raises:
      UserError: as `read`; the message lacks the name of the file, which the caller puts before.
    """
    try:
        image = images.decode(encoded, max_pixels, setting="--max_pixels")
    except MemoryError as error:
        raise errors.UserError("needs more memory than there is: make it smaller") from error
    blocks = images.blocks(encoded)
    block, exif_warnings = exif.kept(blocks.exif)
    damage = (image.damage,) if image.damage else ()
    return Photograph(
        image.pixels,
        image.alpha,
        blocks.icc,
        block,
        _kept_xmp(blocks.xmp, image.orientation != 1),
        blocks.dpi if blocks.dpi and min(blocks.dpi) >= 1 and max(blocks.dpi) <= _MAX_DPI else None,
        blocks.colour,
        image.orientation != 1,
        (*damage, *image.warnings, *blocks.warnings, *exif_warnings),
    )


def _kept_xmp(xmp, turned):
    """Returns an XMP packet without previews, and with its orientation set to upright if the pixels were turned."""
    xmp = re.sub(rb"<xmp:Thumbnails>.*?</xmp:Thumbnails>", b"", xmp, flags=re.DOTALL)
    if not turned:
        return xmp
    xmp = re.sub(rb"(tiff:Orientation\s*=\s*[\"'])\d(?=[\"'])", rb"\g<1>1", xmp)
    return re.sub(rb"(<tiff:Orientation>\s*)\d", rb"\g<1>1", xmp)
