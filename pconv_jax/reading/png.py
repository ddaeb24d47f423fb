"""PNG files: every depth and colour type; only the chunks that hold pixels reach the decoder."""

import logging
import re
import struct
import zlib
from collections.abc import Iterable, Iterator

import imagecodecs
import numpy as np

from pconv_jax import errors
from pconv_jax.reading import exif, headers

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOUR_CHUNKS = (b"gAMA", b"cHRM", b"sRGB", b"cICP")

_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGBA = 0, 2, 3, 4, 6
_DEPTHS = {_GREY: (1, 2, 4, 8, 16), _RGB: (8, 16), _PALETTE: (1, 2, 4, 8), _GREY_ALPHA: (8, 16), _RGBA: (8, 16)}
_MAX_INFLATED = 2**24  # Largest inflated profile or text: 16 MiB.
_XMP_KEYWORD = b"XML:com.adobe.xmp"

logging.getLogger("imagecodecs").setLevel(logging.CRITICAL)  # It logs oddities that do not change the pixels.


def chunks(encoded: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yields `(kind, start, end)` of the content of each chunk, up to IEND.

    Raises:
      ValueError: the file is cut off.
    """
    at = len(SIGNATURE)
    while True:
        if at + 12 > len(encoded):
            raise errors.UserError("is damaged, or cut off: a PNG without its end")
        length, kind = struct.unpack_from(">I4s", encoded, at)
        if at + 12 + length > len(encoded):
            raise errors.UserError("is damaged, or cut off: a PNG without its end")
        yield kind, at + 8, at + 8 + length
        if kind == b"IEND":
            return
        at += 12 + length


def header(encoded: bytes) -> headers.Header:
    """Returns the size and the orientation; `details` holds `(depth, colour type, content of tRNS or None)`.

    Raises:
      UserError: it is cut off, an animation, or breaks the specification.
    """
    if encoded[12:16] == b"CgBI":
        raise errors.UserError("is a PNG optimised for iOS; needs an ordinary one: convert it first")
    if encoded[12:16] != b"IHDR":
        raise ValueError("there is no IHDR")
    width, height, depth, colour = struct.unpack_from(">IIBB", encoded, 16)
    if depth not in _DEPTHS.get(colour, ()):
        raise errors.UserError(f"is damaged: a PNG of colour type {colour} with {depth} bits does not exist")
    orientation, transparent = 1, None
    for kind, start, end in chunks(encoded):
        if kind == b"acTL" and end - start >= 8:
            frames = struct.unpack_from(">I", encoded, start)[0]
            if frames > 1:
                raise errors.UserError(f"has {frames} frames; needs one: save the wanted one by itself")
        elif kind == b"tRNS":
            transparent = encoded[start:end]
        elif kind == b"eXIf":
            orientation = exif.orientation(encoded[start:end])
        elif kind in (b"tEXt", b"zTXt") and orientation == 1 and encoded.startswith(b"Raw profile type ", start):
            orientation = exif.orientation(_raw_profile(kind, encoded[start:end])[1])
    return headers.Header(width, height, orientation, (depth, colour, transparent))


def decode(encoded: bytes, head: headers.Header, channels: int | None = None) -> headers.Samples:
    """Decodes the pixels, with tRNS as an alpha channel.

    Args:
      encoded: the bytes of the file.
      head: its header.
      channels: not used.

    Raises:
      ValueError, RuntimeError: it cannot be decoded.
    """
    del channels
    depth, colour, transparent = head.details
    parts = [SIGNATURE]
    for kind, start, end in chunks(encoded):
        if kind in (b"IHDR", b"PLTE", b"IDAT", b"IEND") or (kind == b"tRNS" and colour == _PALETTE):
            parts.append(memoryview(encoded)[start - 8 : end + 4])
    array = imagecodecs.png_decode(b"".join(parts))
    array = array if array.ndim == 3 else array[..., None]
    if transparent is not None and colour in (_GREY, _RGB):
        key = np.frombuffer(transparent[: 2 if colour == _GREY else 6], ">u2").astype(np.int64)
        if len(key) != array.shape[-1]:
            raise errors.UserError("is damaged: the transparent colour of the PNG (tRNS) is incomplete")
        key *= {1: 255, 2: 85, 4: 17}.get(depth, 1)  # The decoder expands 1, 2 and 4 bits to 8.
        opaque = (array != key).any(axis=-1, keepdims=True)
        array = np.concatenate(
            [array, opaque * np.iinfo(array.dtype).max], axis=-1, dtype=array.dtype, casting="unsafe"
        )
    return headers.Samples(array)


def blocks(encoded: bytes) -> headers.Blocks:
    """Returns the metadata of a file whose header was read."""
    icc, block, xmp, dpi, colour, warnings = None, b"", b"", None, [], []
    for kind, start, end in chunks(encoded):
        content = encoded[start:end]
        if kind in COLOUR_CHUNKS:
            colour.append((kind, content))
        elif kind == b"iCCP":
            icc = _inflated(content.partition(b"\0")[2][1:])
            if not icc:
                icc = None
                warnings.append("the colour profile is damaged and was left out: colours may look different")
        elif kind == b"eXIf":
            block = content
        elif kind == b"pHYs" and len(content) == 9:
            x, y, unit = struct.unpack(">IIB", content)
            dpi = (x * 0.0254, y * 0.0254) if unit == 1 and x and y else None
        elif kind == b"iTXt" and content.startswith(_XMP_KEYWORD + b"\0"):
            xmp = _international_text(content)
        elif kind in (b"tEXt", b"zTXt") and content.startswith(b"Raw profile type "):
            name, profile = _raw_profile(kind, content)
            if name in (b"exif", b"APP1") and profile.startswith(exif.PREFIX):
                block = block or profile
            elif name == b"xmp":
                xmp = xmp or profile
    return headers.Blocks(icc, block, xmp, dpi or exif.resolution(block), tuple(colour), tuple(warnings))


def with_chunks(encoded: bytes, added: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Returns a PNG with chunks inserted behind its IHDR.

    Args:
      encoded: the PNG.
      added: `(kind, content)` of each chunk.
    """
    end = len(SIGNATURE) + 25
    return encoded[:end] + b"".join(_chunk(kind, content) for kind, content in added) + encoded[end:]


def _chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def profile_chunk(icc: bytes) -> tuple[bytes, bytes]:
    """Returns the chunk `(kind, content)` of an ICC profile."""
    return b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc)


def xmp_chunk(xmp: bytes) -> tuple[bytes, bytes]:
    """Returns the chunk `(kind, content)` of an XMP packet."""
    return b"iTXt", _XMP_KEYWORD + b"\0\0\0\0\0" + xmp


def resolution_chunk(dpi: tuple[float, float]) -> tuple[bytes, bytes]:
    """Returns the chunk `(kind, content)` of a print resolution in pixels per inch."""
    x, y = (min(round(value / 0.0254), 2**31 - 1) for value in dpi)
    return b"pHYs", struct.pack(">IIB", x, y, 1)


def _inflated(content):
    """Inflates a zlib stream up to the limit; empty if it is damaged or too large."""
    inflater = zlib.decompressobj()
    try:
        result = inflater.decompress(content, _MAX_INFLATED)
    except zlib.error:
        return b""
    return result if inflater.eof else b""


def _international_text(content):
    """Returns the text of an iTXt chunk."""
    _, _, rest = content.partition(b"\0")
    compressed, rest = rest[:1] == b"\1", rest[2:]
    text = rest.split(b"\0", 2)[2] if rest.count(b"\0") >= 2 else b""
    return _inflated(text) if compressed else text


def _raw_profile(kind, content):
    """Returns `(name, bytes)` of a profile that ImageMagick wrote as text: name, length, hexadecimal digits."""
    keyword, _, text = content.partition(b"\0")
    text = _inflated(text[1:]) if kind == b"zTXt" else text
    match = re.match(rb"\s*\S+\s+(\d+)\s", text)
    try:
        profile = bytes.fromhex(text[match.end() :].decode("ascii")) if match else b""
    except ValueError:
        profile = b""
    return keyword.removeprefix(b"Raw profile type "), profile
