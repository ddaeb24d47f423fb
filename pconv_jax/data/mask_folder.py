"""Lists and reads the mask images of a folder.

Decoding a PNG of 512 x 512 takes 0.4 ms, a third of the cost of a mask drawn from it. Decoded masks therefore stay in
memory as bits (32 KiB each), up to `MAX_CACHED` bytes in a process; masks beyond that are decoded each time.
"""

import functools
import os
import threading

import numpy as np

from pconv_jax import errors
from pconv_jax.data import sources
from pconv_jax.reading import files as image_files
from pconv_jax.reading import folders, images, mask_images

MAX_CACHED = 2**29  # Room for 16,384 masks of 512 x 512: all of NVIDIA's test set.

_MAX_PIXELS = 100_000_000


@functools.lru_cache(maxsize=8)
def files(path: str) -> tuple[str, ...]:
    """Returns the paths of the mask images under a directory at any depth, sorted, without hidden files.

    Raises:
      UserError: it is not a directory, or holds no mask image.
    """
    names = folders.images_below(path, needs="set the path of the mask folder", noun="mask images")
    return tuple(os.path.join(image_files.expand(path), name) for name in names)


def relative(file: str, path: str) -> str:
    """Returns the path of a file relative to its mask folder, with forward slashes.

    Args:
      file: path of the mask image.
      path: path of the mask folder.
    """
    return os.path.relpath(file, image_files.expand(path)).replace(os.sep, "/")


def fingerprint(path: str) -> str:
    """Returns a hash of the names and sizes of a folder's mask images, so that a run notices that they changed.

    Raises:
      UserError: it is not a directory, or holds no mask image.
    """
    names = tuple(relative(file, path) for file in files(path))
    return sources.FileSource(image_files.expand(path), names).fingerprint()


def read_hole(path: str, polarity: str) -> np.ndarray:
    """Reads a mask image by the rule of `mask_images.hole`.

    Args:
      path: path of the mask image.
      polarity: "white_hole" or "black_hole".

    Returns:
      uint8 `[H, W]`, 1 = hole.

    Raises:
      OSError: it cannot be read.
      UserError: it cannot be decoded, or is no mask.
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
    """Returns a key that changes when the file does; `(None,)` if its status cannot be read (opening it will fail)."""
    try:
        about = os.stat(path)
    except OSError:
        return (None,)
    return about.st_mtime_ns, about.st_size


def _decode(path, polarity):
    image = images.decode(image_files.read(path), _MAX_PIXELS)
    if image.damage:
        raise errors.UserError(image.damage)
    return mask_images.hole(image, polarity)


class _Cache:
    """Thread-safe dictionary of masks `(shape, bits)` with at most `MAX_CACHED` bytes; entries are never removed."""

    def __init__(self):
        self._masks, self._bytes, self._lock = {}, 0, threading.Lock()
        self.get = self._masks.get

    def add(self, key, mask):
        """Stores a mask if there is room for it.

        Args:
          key: identifies the file in its present state.
          mask: `(shape, bits)`, the packed bits of a bool array.
        """
        with self._lock:
            if key not in self._masks and self._bytes + mask[1].nbytes <= MAX_CACHED:
                self._masks[key], self._bytes = mask, self._bytes + mask[1].nbytes


_cache = _Cache()
