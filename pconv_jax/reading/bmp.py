"""BMP files: palettes, 16, 24 and 32 bits."""

import io
import struct
import warnings

import imagecodecs
import numpy as np
import PIL.BmpImagePlugin
import PIL.Image

from pconv_jax import errors
from pconv_jax.reading import headers

_MODES = ("1", "L", "P", "RGB", "RGBA")
# Pillow's messages about uncommon bit fields, and about 16 shades of grey from 0 to 15.
_NOT_READ = ("Unsupported BMP", "codec configuration error")


def header(encoded: bytes) -> headers.Header:
    """Returns the size; `details` is whether it has 24 bits without compression, as most files have."""
    (length,) = struct.unpack_from("<I", encoded, 14)
    if length == 12:  # OS/2's header has 16 bits per side.
        width, height, _, bits = struct.unpack_from("<HHHH", encoded, 18)
        compression = 0
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", encoded, 18)
    if compression in (4, 5):
        raise errors.UserError("is a BMP that holds a JPEG or PNG; needs an ordinary one: convert it first")
    plain = bits == 24 and compression == 0 and length == 40 and height > 0
    return headers.Header(abs(width), abs(height), details=plain)  # A negative height: the first row is on top.


def decode(encoded: bytes, head: headers.Header, channels: int | None = None) -> headers.Samples:
    """Decodes the pixels.

    Args:
      encoded: the bytes of the file.
      head: its header.
      channels: not used.

    Raises:
      UserError: it is of a kind that is not read.
      Exception: it cannot be decoded.
    """
    del channels
    if head.details:
        return headers.Samples(imagecodecs.bmp_decode(encoded))
    try:
        array = _by_pillow(encoded)
    except OSError as error:
        if not str(error).startswith(_NOT_READ):
            raise
        raise errors.UserError(
            f"is a BMP of an uncommon layout, which is not read ({error}): convert it first"
        ) from error
    return headers.Samples(array if array.ndim == 3 else array[..., None])


def _by_pillow(encoded):
    """Returns the pixels as Pillow decodes them, `[H, W]` or `[H, W, C]`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's warning about sizes that max_pixels allows.
        with PIL.BmpImagePlugin.BmpImageFile(io.BytesIO(encoded)) as image:
            if image.mode not in _MODES:
                raise errors.UserError(f"is a BMP of mode {image.mode}; needs grey or RGB: convert it first")
            mode = {"1": "L", "P": "RGB"}.get(image.mode, image.mode)
            return np.asarray(image.convert(mode))


def blocks(encoded: bytes) -> headers.Blocks:
    """Returns the print resolution, the only metadata of a BMP that is kept."""
    if struct.unpack_from("<I", encoded, 14)[0] < 40:
        return headers.Blocks()
    x, y = struct.unpack_from("<ii", encoded, 38)
    return headers.Blocks(dpi=(x * 0.0254, y * 0.0254) if x > 0 and y > 0 else None)
