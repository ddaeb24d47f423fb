"""JPEG files: 8 bits, grey or colour, baseline or progressive; all other kinds are refused by name."""

import re
import struct
from collections.abc import Iterator

import cv2
import numpy as np
import simplejpeg

from pconv_jax import errors
from pconv_jax.reading import exif, headers

_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}  # Markers without a segment behind them.
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_HUFFMAN_FRAMES = (0xC0, 0xC1, 0xC2)  # Baseline, extended, progressive.
_SCAN, _END = 0xDA, 0xD9
_APP0, _APP1, _APP2 = 0xE0, 0xE1, 0xE2
_XMP, _ICC = b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0"
_FRAME_NAMES = {0xC3: "a lossless JPEG", 0xC9: "an arithmetic-coded JPEG", 0xCA: "an arithmetic-coded JPEG"}
_HARMLESS_BYTES = 32  # Cameras write a few stray bytes before markers; lost data leaves hundreds.


def segments(encoded: bytes) -> Iterator[tuple[int, int, int]]:
    """Yields `(marker, start, end)` of each segment's content, up to the first scan.

    Stray bytes between segments are passed over, as libjpeg does.

    Raises:
      IndexError, ValueError, struct.error: the file ends before the first scan.
    """
    at, length = 2, struct.Struct(">H").unpack_from
    while True:
        if encoded[at] != 0xFF:
            at = encoded.index(b"\xff", at)
        at += 1
        while encoded[at] == 0xFF:
            at += 1
        marker = encoded[at]
        at += 1
        if marker == _END:
            raise ValueError("the end comes before the first scan")
        if marker and marker not in _WITHOUT_LENGTH:
            end = at + max(2, length(encoded, at)[0])
            yield marker, at + 2, end
            if marker == _SCAN:
                return
            at = end


def header(encoded: bytes) -> headers.Header:
    """Returns the size and the orientation; `details` holds the number of components.

    Raises:
      UserError: it is of a kind that is not read, or its end is missing.
    """
    frame, orientation, end = None, 1, 0
    for marker, start, end in segments(encoded):
        if marker in _FRAMES and frame is None:
            frame = (marker, *struct.unpack_from(">BHHB", encoded, start))
        elif marker == _APP1 and orientation == 1 and encoded.startswith(exif.PREFIX, start):
            orientation = exif.orientation(encoded[start:end])
    if frame is None:
        raise ValueError("there is no frame before the first scan")
    marker, bits, height, width, components = frame
    if marker not in _HUFFMAN_FRAMES:
        kind = _FRAME_NAMES.get(marker, "a hierarchical or lossless JPEG")
        raise errors.UserError(f"is {kind}; needs a baseline or progressive one: convert it first")
    if bits != 8:
        raise errors.UserError(f"is a JPEG of {bits} bits; needs 8: convert it first")
    if components not in (1, 3):
        kind = "CMYK" if components == 4 else f"a JPEG of {components} components"
        raise errors.UserError(f"is {kind}; needs grey or RGB: convert it first")
    if encoded.rfind(b"\xff\xd9", end) < 0:
        raise errors.UserError("is a JPEG without its end: cut off, or never written to the end")
    return headers.Header(width, height, orientation, components)


def decode(encoded: bytes, head: headers.Header, channels: int | None = None) -> headers.Samples:
    """Decodes the pixels, with a warning if data is missing inside the file.

    Args:
      encoded: the bytes of the file.
      head: its header.
      channels: 1 or 3 to have the decoder convert to grey or RGB; None for the file's own.

    Raises:
      ValueError: it cannot be decoded.
    """
    space = "GRAY" if (channels or head.details) == 1 else "RGB"
    try:
        return headers.Samples(simplejpeg.decode_jpeg(encoded, space, strict=True))
    except ValueError as error:
        reason = str(error)
    if "subsampling" in reason:  # Of the kinds that libjpeg reads, simplejpeg has only the common ones.
        return _by_opencv(encoded, space)
    array = simplejpeg.decode_jpeg(encoded, space, strict=False)
    stray = re.match(r"Corrupt JPEG data: (\d+) extraneous bytes before marker", reason)
    if (stray and int(stray[1]) <= _HARMLESS_BYTES) or not reason.startswith(("Corrupt JPEG data", "Premature end")):
        return headers.Samples(array)
    flat = _flat_rows(array) / len(array)
    extent = f"the last {flat:.0%} of the rows have no data" if flat > 0.01 else "a part of it is displaced or grey"
    return headers.Samples(array, f"is a damaged JPEG: {extent} ({reason.removeprefix('Corrupt JPEG data: ')})")


def blocks(encoded: bytes) -> headers.Blocks:
    """Returns the metadata of a file whose header was read."""
    block, xmp, dpi, profile = b"", b"", None, {}
    for marker, start, end in segments(encoded):
        content = encoded[start:end]
        if marker == _APP1 and content.startswith(exif.PREFIX):
            block = block or content
        elif marker == _APP1 and content.startswith(_XMP):
            xmp = xmp or content[len(_XMP) :]
        elif marker == _APP2 and content.startswith(_ICC) and len(content) > len(_ICC) + 2:
            profile.setdefault(content[len(_ICC)], content[len(_ICC) + 2 :])
        elif marker == _APP0 and content.startswith(b"JFIF\0") and len(content) >= 12:
            unit, x, y = struct.unpack_from(">BHH", content, 7)
            if unit in (1, 2) and x and y:
                per_unit = 1 if unit == 1 else 2.54
                dpi = x * per_unit, y * per_unit
    icc = b"".join(part for _, part in sorted(profile.items())) or None
    return headers.Blocks(icc, block, xmp, dpi or exif.resolution(block))


def _by_opencv(encoded, space):
    """Returns the samples as OpenCV decodes them; it does not report lost data."""
    flag = cv2.IMREAD_GRAYSCALE if space == "GRAY" else cv2.IMREAD_COLOR
    array = cv2.imdecode(np.frombuffer(encoded, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
    if array is None:
        raise ValueError("the pixels of the JPEG cannot be decoded")
    array = array[..., None] if array.ndim == 2 else np.ascontiguousarray(array[..., ::-1])
    warning = "has an uncommon chroma subsampling, with which lost data are not noticed"
    return headers.Samples(array, warnings=(warning,))


def _flat_rows(array):
    """Returns how many rows at the bottom have only the colour of the last pixel, as libjpeg fills missing data."""
    differing = np.flatnonzero((array != array[-1, -1]).any(axis=(1, 2)))
    return len(array) - 1 - (int(differing[-1]) if len(differing) else -1)
