"""Encoded images as they lie on a disk: read, and refused by what their headers say before a decoder allocates.

JPEG, PNG, WebP and BMP, whatever the name of the file says. A few kilobytes can claim to be gigapixels; the headers are
parsed here, in microseconds and without the global limits of OpenCV and Pillow.
"""

import errno
import os
import stat
import struct
import time

from absl import logging

from pconv_jax import errors

MAX_BYTES = 2**31  # of a file: more than any image needs that a network is trained on

# What the system says of the file itself. All else it says of a disk, a network or this process, and may pass.
_ABOUT_THE_FILE = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EACCES)
_ABOUT_THE_FILE += (errno.EPERM, errno.ENXIO, errno.ENODEV, errno.EINVAL)
_PAUSES = (1, 10)  # seconds before a read is tried again

_NO_LENGTH = {0x01, *range(0xD0, 0xD9)}  # markers of JPEG without a segment
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # of every process: baseline, progressive ..
_SCAN, _END = 0xDA, 0xD9


class Unreachable(OSError):
    """A file that cannot be read at the moment. With another in its place the run would not be the same."""


def read(path: str) -> bytes:
    """The bytes of a file.

    Raises:
      OSError: it is not there, or cannot be opened.
      UserError: it is too large, or no file: a pipe would be waited for, and a device has no end.
      Unreachable: it cannot be read for another reason, such as a broken disk or network, also not 11 seconds later.
    """
    pauses = list(_PAUSES)
    while True:
        try:
            return _read(path)
        except OSError as error:
            if error.errno in _ABOUT_THE_FILE:
                raise
            if not pauses:
                text = f"{error.strerror}, three times: mend or restore it, and the same command goes on"
                raise Unreachable(error.errno, text, path) from error
            logging.warning("%s: %s; tried again in %d s", shown(path), error.strerror, pauses[0])
            time.sleep(pauses.pop(0))


def _read(path):
    with open(path, "rb", opener=_without_waiting) as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise errors.UserError("is a pipe or a device; needs a file")
        if about.st_size > MAX_BYTES:
            raise errors.UserError(f"has {about.st_size} bytes; needs at most {MAX_BYTES}")
        return file.read()


def check(encoded: bytes, max_pixels: float):
    """Looks at the header alone, and at the end of a JPEG, whose decoders may make grey of what is missing.

    Raises:
      UserError: it is of another format, damaged, cut off, or has more than `max_pixels` pixels.
    """
    width, height = size(encoded)
    if width * height > max_pixels:
        raise errors.UserError(f"is {width}x{height}; needs at most {max_pixels} pixels (data.max_pixels)")
    if encoded[:2] == b"\xff\xd8" and encoded.rfind(b"\xff\xd9") < 0:
        raise errors.UserError("is a JPEG without its end: cut off, or never written to the end")


def size(encoded: bytes) -> tuple[int, int]:
    """`(width, height)` as stored, without EXIF's turning.

    Raises:
      UserError: it is of another format, or its header is damaged.
    """
    for magic, parse in ((b"\xff\xd8\xff", _jpeg), (b"\x89PNG\r\n\x1a\n", _png), (b"RIFF", _webp), (b"BM", _bmp)):
        if encoded.startswith(magic):
            try:
                return parse(encoded)
            except (struct.error, IndexError, ValueError):
                raise errors.UserError("has a damaged header, or is cut off in it") from None
    raise errors.UserError("is not a JPEG, PNG, WebP or BMP" if encoded else "is empty")


def shown(name: str) -> str:
    """The name of a file in one line of text: quoted where it has line breaks, or bytes that are no text."""
    return name if name.isprintable() else repr(name)


def _without_waiting(path, flags):
    """Opens a pipe without waiting for somebody to write into it; of no effect on files."""
    return os.open(path, flags | os.O_NONBLOCK)


def _jpeg(encoded):
    """From marker to marker up to the frame header, over stray bytes between them as libjpeg goes."""
    at = 2
    while True:
        at = encoded.index(b"\xff", at)
        while encoded[at] == 0xFF:
            at += 1
        marker = encoded[at]
        at += 1
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", encoded, at + 3)
            return width, height
        if marker in (_SCAN, _END):
            raise ValueError
        if marker and marker not in _NO_LENGTH:
            at += max(2, struct.unpack_from(">H", encoded, at)[0])


def _png(encoded):
    kind, width, height = struct.unpack_from(">4sII", encoded, 12)
    if kind != b"IHDR":
        raise ValueError
    return width, height


def _webp(encoded):
    """The canvas of an extended file, which its frames cannot leave; else the one lossy or lossless image."""
    form, kind = struct.unpack_from("<4s4s", encoded, 8)
    if form != b"WEBP":
        raise ValueError
    if kind == b"VP8X":
        low_width, high_width, low_height, high_height = struct.unpack_from("<HBHB", encoded, 24)
        return 1 + low_width + (high_width << 16), 1 + low_height + (high_height << 16)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", encoded, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", encoded, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise ValueError


def _bmp(encoded):
    """16 bits per side in OS/2's header, else 32, the height negative where the first row is on top."""
    (header,) = struct.unpack_from("<I", encoded, 14)
    width, height = struct.unpack_from("<HH" if header == 12 else "<ii", encoded, 18)
    return abs(width), abs(height)
