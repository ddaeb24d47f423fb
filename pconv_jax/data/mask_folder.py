"""Mask images of a folder: which files there are, what they hold, and a fingerprint of them.

Decoding a PNG of 512 x 512 takes 0.4 ms, a third of what drawing a mask from it costs, so decoded masks stay in memory,
as bits: 32 KiB each, up to `MAX_CACHED` bytes in a process. Files beyond that are decoded each time.
"""

import functools
import os
import threading

import cv2
import numpy as np

from pconv_jax.data import encoded as encoded_images
from pconv_jax.data import sources

POLARITIES = ("white_hole", "black_hole")
EXTENSIONS = (".png", ".bmp", ".jpg", ".jpeg", ".webp")
MAX_CACHED = 2**29  # 16,384 masks of 512 x 512: all of NVIDIA's test set

_MAX_PIXELS = 100_000_000


@functools.lru_cache(maxsize=8)
def files(path: str) -> tuple[str, ...]:
    """The mask images under a directory, sorted, hidden files left out.

    Raises:
      ValueError: there is none.
    """
    if not os.path.isdir(os.path.expanduser(path)):
        raise ValueError(f"{path} is not a directory: set the path of the mask folder")
    found = []
    for directory, _, names in os.walk(os.path.expanduser(path)):
        found += [
            os.path.join(directory, name)
            for name in names
            if name.lower().endswith(EXTENSIONS) and not name.startswith(".")
        ]
    if not found:
        raise ValueError(f"no mask images ({', '.join(EXTENSIONS)}) under {path}: set the path of the mask folder")
    return tuple(sorted(found))


def relative(file: str, path: str) -> str:
    """The name of a file below its mask folder, with forward slashes."""
    return os.path.relpath(file, os.path.expanduser(path)).replace(os.sep, "/")


def fingerprint(path: str) -> str:
    """Of the names and sizes of a folder's mask images, to notice that a run goes on with others.

    Raises:
      ValueError: as `files`.
    """
    names = tuple(relative(file, path) for file in files(path))
    return sources.FileSource(os.path.expanduser(path), names).fingerprint()


def read_hole(path: str, polarity: str) -> np.ndarray:
    """A mask image as uint8 `[H, W]`, 1 = hole, binarised at 0.6 of white (the authors' recipe).

    Raises:
      OSError, ValueError: it cannot be read or decoded.
    """
    key = path, polarity, *_version(path)
    packed = _cache.get(key)
    if packed is None:
        hole = _decode(path, polarity)
        _cache.add(key, (hole.shape, np.packbits(hole)))
        return hole
    (height, width), bits = packed
    return np.unpackbits(bits, count=height * width).reshape(height, width)


def _version(path):
    """Another one if the file was changed; none where it cannot be looked at, which reading it will tell about."""
    try:
        about = os.stat(path)
    except OSError:
        return (None,)
    return about.st_mtime_ns, about.st_size


def _decode(path, polarity):
    encoded = encoded_images.read(path)
    encoded_images.check(encoded, _MAX_PIXELS)
    grey = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_GRAYSCALE)
    if grey is None:
        raise ValueError("is damaged, or cut off")
    kind = cv2.THRESH_BINARY if polarity == "white_hole" else cv2.THRESH_BINARY_INV
    return cv2.threshold(grey, 0.6 * 255, 1, kind)[1]


class _Cache:
    """Masks as `(shape, bits)` by key, of `MAX_CACHED` bytes at most; nothing is ever thrown out. For all threads."""

    def __init__(self):
        self._masks, self._bytes, self._lock = {}, 0, threading.Lock()
        self.get = self._masks.get

    def add(self, key, mask):
        """Keeps a mask, if it has room."""
        with self._lock:
            if key not in self._masks and self._bytes + mask[1].nbytes <= MAX_CACHED:
                self._masks[key], self._bytes = mask, self._bytes + mask[1].nbytes


_cache = _Cache()
