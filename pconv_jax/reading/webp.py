"""WebP files: lossy and lossless, with and without alpha; animations are refused."""

import struct
from collections.abc import Iterator

import imagecodecs

from pconv_jax import errors
from pconv_jax.reading import exif, headers

_ANIMATED = 0x02  # Flag of the extended header.


def chunks(encoded: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yields `(kind, start, end)` of the content of each chunk; the last may reach beyond a file that is cut off."""
    at = 12
    while at + 8 <= len(encoded):
        kind, length = struct.unpack_from("<4sI", encoded, at)
        yield kind, at + 8, at + 8 + length
        at += 8 + length + length % 2


def header(encoded: bytes) -> headers.Header:
    """Returns the size and the orientation.

    Raises:
      UserError: it is an animation.
    """
    size, orientation = None, 1
    for kind, start, end in chunks(encoded):
        if size is None:
            size = _size(encoded, kind, start)
        if kind == b"VP8X" and encoded[start] & _ANIMATED:
            raise errors.UserError("is an animation; needs one image: save the wanted frame by itself")
        if kind == b"EXIF":
            orientation = exif.orientation(encoded[start:end])
    if size is None:
        raise ValueError("there is no chunk")
    return headers.Header(*size, orientation)


def decode(encoded: bytes, head: headers.Header, channels: int | None = None) -> headers.Samples:
    """Decodes the pixels.

    Args:
      encoded: the bytes of the file.
      head: its header.
      channels: not used.

    Raises:
      ValueError, RuntimeError: it cannot be decoded.
    """
    del head, channels
    return headers.Samples(imagecodecs.webp_decode(encoded))


def blocks(encoded: bytes) -> headers.Blocks:
    """Returns the metadata of a file whose header was read."""
    content = {kind: encoded[start:end] for kind, start, end in chunks(encoded)}
    block = content.get(b"EXIF", b"")
    return headers.Blocks(content.get(b"ICCP") or None, block, content.get(b"XMP ", b""), exif.resolution(block))


def _size(encoded, kind, start):
    """Returns `(width, height)` that the first chunk gives; the canvas for an extended file."""
    if kind == b"VP8X":
        low_width, high_width, low_height, high_height = struct.unpack_from("<HBHB", encoded, start + 4)
        return 1 + low_width + (high_width << 16), 1 + low_height + (high_height << 16)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", encoded, start + 1)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", encoded, start + 6)
        return width & 0x3FFF, height & 0x3FFF
    raise ValueError("the first chunk is unknown")
