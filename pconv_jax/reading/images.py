"""The one reader of images: bytes -> upright pixels, with everything refused whose numbers are not understood.

Read are JPEG, PNG, WebP, TIFF and BMP, grey or RGB, 1 to 16 bits per channel. Every other kind is a `UserError` of one
line without the file's name: the caller puts it before.
"""

import dataclasses
import math
import struct

import cv2
import numpy as np

from pconv_jax import errors
from pconv_jax.reading import bmp, headers, jpeg, kinds, png, tiff, webp

EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp")

_FORMATS = {"jpeg": jpeg, "png": png, "webp": webp, "tiff": tiff, "bmp": bmp}


@dataclasses.dataclass(frozen=True)
class Image:
    """A decoded image.

    Attributes:
      pixels: uint8 or uint16 `[H, W, C]`, grey or RGB, upright.
      alpha: `[H, W, 1]` of the same dtype, or None; the colours are not multiplied by it.
      orientation: EXIF's number, 1 to 8, of the rotation and reflection that were applied.
      damage: a sentence about missing data, or empty.
      warnings: sentences about what was left out.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    orientation: int = 1
    damage: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def white(self) -> int:
        """Returns the largest possible value: 255 or 65535."""
        return int(np.iinfo(self.pixels.dtype).max)


def header(encoded: bytes, max_pixels: float = math.inf, *, setting: str = "max_pixels") -> headers.Header:
    """Reads the header alone, in microseconds and before a decoder allocates memory.

    Args:
      encoded: the bytes of the file.
      max_pixels: largest number of pixels; a few kilobytes can claim to be gigapixels.
      setting: name of the flag or config key of the limit, for the message.

    Raises:
      UserError: it is not of a kind that is read, damaged, or has more pixels.
    """
    return _header(kinds.recognise(encoded), encoded, max_pixels, setting)


def decode(
    encoded: bytes, max_pixels: float = math.inf, channels: int | None = None, *, setting: str = "max_pixels"
) -> Image:
    """Decodes an image.

    Args:
      encoded: the bytes of the file.
      max_pixels: largest number of pixels.
      channels: 1 or 3 lets the decoder of JPEG convert to grey or RGB; None keeps the file's own. Other formats keep
        theirs always.
      setting: name of the flag or config key of the limit, for the message.

    Raises:
      UserError: the image is damaged, has too many pixels, or is of a kind that is not read.
      MemoryError: there is not enough memory for it.
    """
    kind = kinds.recognise(encoded)
    head = _header(kind, encoded, max_pixels, setting)
    try:
        samples = _FORMATS[kind].decode(encoded, head, channels)
    except (errors.UserError, MemoryError):
        raise
    except Exception as error:  # Decoders of damaged files raise all kinds of exceptions.
        raise errors.UserError(f"is damaged, or cut off ({_one_line(error)})") from error
    array = samples.array if head.orientation == 1 else upright(samples.array, head.orientation)
    if array.shape[:2] != ((head.width, head.height) if head.orientation > 4 else (head.height, head.width)):
        raise errors.UserError("is damaged: its pixels have another size than its header")
    colours, alpha = array.shape[-1], None
    if colours in (2, 4):
        colours -= 1
        array, alpha = array[..., :colours], np.ascontiguousarray(array[..., colours:])
    return Image(np.ascontiguousarray(array), alpha, head.orientation, samples.damage, samples.warnings)


def blocks(encoded: bytes) -> headers.Blocks:
    """Returns the metadata of an image that `decode` reads; damaged parts are replaced by a warning."""
    try:
        return _FORMATS[kinds.recognise(encoded)].blocks(encoded)
    except Exception as error:  # Metadata never keeps a photograph from being read.
        return headers.Blocks(warnings=(f"the metadata is damaged and was left out ({_one_line(error)})",))


def to_8_bits(image: Image, channels: int) -> np.ndarray:
    """Returns the pixels as uint8 `[H, W, channels]`, without alpha.

    Args:
      image: of any kind.
      channels: 1 (luma) or 3 (RGB).
    """
    pixels = image.pixels
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    if pixels.shape[-1] == channels:
        return pixels
    if channels == 3:
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None]


def _header(kind, encoded, max_pixels, setting):
    try:
        head = _FORMATS[kind].header(encoded)
    except (errors.UserError, MemoryError):
        raise
    except Exception as error:  # Parsers of damaged files raise all kinds of exceptions.
        raise errors.UserError("has a damaged header, or is cut off in it") from error
    if head.width * head.height > max_pixels:
        raise errors.UserError(
            f"is {head.width}x{head.height}, more than {max_pixels} pixels: raise {setting} if it is meant to be"
        )
    if not head.width or not head.height:
        raise errors.UserError("has a damaged header: it gives no pixels")
    return head


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Returns a stored image upright.

    Args:
      array: `[H, W, C]`.
      orientation: EXIF's number, 1 to 8.
    """
    if orientation in (5, 6, 7, 8):
        array = array.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


def _one_line(error):
    """Returns the first line of an exception's message, or its type where there is none."""
    text = "corrupt structure" if isinstance(error, struct.error) else str(error)
    return (text.strip().splitlines() or [type(error).__name__])[0][:200]
