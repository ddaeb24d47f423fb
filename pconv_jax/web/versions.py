"""Versions of a photograph: each holds only what one filling changed, and builds on its parent.

Version 0 is the original. Versions are never changed and form a tree, so that undo and redo choose another one, and
two tabs do not disturb each other.
"""

import dataclasses
from typing import Any

import numpy as np

from pconv_jax.inpainting import photograph


@dataclasses.dataclass(frozen=True)
class Version:
    """One filling of a photograph.

    Attributes:
      version: its number, from 1.
      parent: the version that was filled; 0 is the original.
      changed: `(x, y, width, height)` of the pixels that it changed.
      area: share of the photograph that was filled.
      options: the options of the filling.
      warnings: sentences about the filling.
      seconds: how long it took.
    """

    version: int
    parent: int
    changed: tuple[int, int, int, int]
    area: float
    options: dict[str, Any]
    warnings: tuple[str, ...]
    seconds: float


def box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Returns `(x, y, width, height)` of the hole of a mask, uint8 `[H, W]` with 1 = valid."""
    rows, columns = np.flatnonzero((mask == 0).any(axis=1)), np.flatnonzero((mask == 0).any(axis=0))
    return int(columns[0]), int(rows[0]), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1


def write(path: str, photo: photograph.Photograph, mask: np.ndarray):
    """Writes the pixels in the hole of a filled photograph.

    Args:
      path: the file.
      photo: the filled photograph.
      mask: uint8 `[H, W]`, 1 = valid, with a hole.
    """
    x, y, width, height = box(mask)
    hole = mask[y : y + height, x : x + width] == 0
    planes = {"pixels": photo.pixels} | ({} if photo.alpha is None else {"alpha": photo.alpha})
    values = {name: plane[y : y + height, x : x + width][hole] for name, plane in planes.items()}
    with open(path, "wb") as file:
        np.savez(file, hole=np.packbits(hole), **values)


def apply(path: str, photo: photograph.Photograph, version: Version) -> photograph.Photograph:
    """Returns a photograph with the pixels of one version put into it.

    Args:
      path: the file that `write` has written.
      photo: the parent of the version.
      version: the version.
    """
    x, y, width, height = version.changed
    with np.load(path, allow_pickle=False) as file:
        hole = np.unpackbits(file["hole"], count=width * height).reshape(height, width).astype(bool)
        planes = {}
        for name in set(file.files) - {"hole"}:
            planes[name] = getattr(photo, name).copy()
            planes[name][y : y + height, x : x + width][hole] = file[name]
    return dataclasses.replace(photo, **planes)
