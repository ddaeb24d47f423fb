"""Images for tests: noise, in which every pixel is different, encoded files, and a source of images in memory."""

import dataclasses
import struct
import zlib

import cv2
import numpy as np


def noise(seed, height=40, width=60, channels=3):
    """Returns uniform noise, uint8 `[H, W, C]`."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def encode(image, extension=".png"):
    """Returns the bytes of an image file.

    Args:
      image: RGB or grey, uint8 `[H, W, C]`.
      extension: file type, e.g. ".png".
    """
    image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.shape[-1] == 3 else image
    return cv2.imencode(extension, image)[1].tobytes()


def png(width, height, depth, colour_type, rows, *chunks):
    """Returns a PNG by the specification: `rows` begin with their filter bytes, `chunks` come before the pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@dataclasses.dataclass(frozen=True)
class MemorySource:
    """A source of encoded images in memory, with the interface of the package's sources of files."""

    encoded: tuple[bytes, ...]

    @property
    def names(self):
        return tuple(f"image{i}.png" for i in range(len(self.encoded)))

    def __len__(self):
        return len(self.encoded)

    def __getitem__(self, index):
        return self.encoded[index]
