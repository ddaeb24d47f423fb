"""Sources of encoded images, and the decoder that training reads them through.

A source has a length, `source[i]` (the bytes of image i) and `source.names[i]`. Sources hold paths and no open files,
so that they can be sent to worker processes. Their order is sorted and does not depend on the machine.
"""

import dataclasses
import hashlib
import importlib.resources
import math
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from pconv_jax import errors
from pconv_jax.data import grid_source, tfds_source
from pconv_jax.reading import files, folders, images

# The photographs in scikit-image's wheel (0.26); its downloads are never used. They are split by photograph, and the
# two views of the motorcycle, one scene, are on the same side: no evaluation photograph is ever trained on.
TRAIN_PHOTOS = (
    "astronaut.png",
    "brick.png",
    "clock_motion.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "retina.jpg",
)
EVALUATION_PHOTOS = ("camera.png", "chelsea.png", "moon.png", "rocket.jpg")

_MAX_SKIPS = 16  # After this many unreadable images in a row, reading fails.


@dataclasses.dataclass(frozen=True)
class FileSource:
    """Files under a root directory.

    Attributes:
      root: absolute path of the directory.
      names: paths of the files relative to it, with forward slashes.
    """

    root: str
    names: tuple[str, ...]

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        return files.read(os.path.join(self.root, self.names[index]))

    def fingerprint(self) -> str:
        """Returns a hash of the files' names and sizes, so that a run notices that it resumes with other data."""
        sha = hashlib.sha256()
        for name in self.names:
            path = os.path.join(self.root, name)
            size = os.path.getsize(path) if os.path.exists(path) else -1  # A dead link is skipped when it is read.
            sha.update(f"{name}\0{size}\n".encode("utf-8", "surrogateescape"))
        return f"{len(self)} files, sha256 {sha.hexdigest()}"


def photos() -> tuple[FileSource, FileSource]:
    """Returns the photographs that ship inside scikit-image as `(train, evaluation)`."""
    root = str(importlib.resources.files("skimage") / "data")
    return FileSource(root, TRAIN_PHOTOS), FileSource(root, EVALUATION_PHOTOS)


def folder(path: str) -> FileSource:
    """Returns all images under a directory (`folders.images_below`).

    Raises:
      UserError: it is not a directory, or has no image in it.
    """
    root = os.path.abspath(files.expand(path))
    return FileSource(root, tuple(folders.images_below(root, needs="set data.path to a folder of images")))


def split(source: FileSource, fraction: float) -> tuple[FileSource, FileSource]:
    """Splits a source by file, by a hash of each name: the order of the files and the seed do not matter.

    Args:
      source: the files to split.
      fraction: share of the files that is held out for evaluation, in [0, 1]; at least one file is on each side.

    Returns:
      `(train, evaluation)`.

    Raises:
      UserError: there are fewer than two files.
    """
    count = len(source)
    if count < 2:
        raise errors.UserError(
            f"{source.root} has {count} image; needs at least 2, one of them for evaluation: add images, or "
            "set data.eval_path to another folder"
        )
    held_out = min(max(1, round(fraction * count)), count - 1)
    ranked = sorted(source.names, key=lambda name: (zlib.crc32(name.encode("utf-8", "surrogateescape")), name))
    return (
        FileSource(source.root, tuple(sorted(ranked[held_out:]))),
        FileSource(source.root, tuple(sorted(ranked[:held_out]))),
    )


def without(source: FileSource, other: FileSource) -> FileSource:
    """Returns a source without the files that also belong to another one, with links resolved.

    Args:
      source: the files to keep.
      other: the files to leave out.

    Raises:
      UserError: no file is left.
    """
    taken = {os.path.realpath(os.path.join(other.root, name)) for name in other.names}
    names = tuple(n for n in source.names if os.path.realpath(os.path.join(source.root, n)) not in taken)
    if not names:
        raise errors.UserError(
            f"all images of {source.root} are evaluation images of {other.root}: they need to be apart"
        )
    if len(names) < len(source):
        logging.info(
            "%d evaluation images lie among the training images and are left out there", len(source) - len(names)
        )
    return FileSource(source.root, names)


def decode(
    encoded: bytes, channels: int = 3, max_pixels: float = math.inf, warn: Callable[[str], object] = lambda text: None
) -> np.ndarray:
    """Decodes an image for training: upright, 8 bits, without alpha.

    Args:
      encoded: the bytes of the file.
      channels: 3 for RGB, 1 for grey (luma).
      max_pixels: largest number of pixels that is decoded.
      warn: called with a sentence about content that may not be meant for training.

    Returns:
      uint8 `[H, W, channels]`.

    Raises:
      UserError: the image is damaged, larger than `max_pixels`, or of a kind that is not read.
      MemoryError: there is not enough memory, which says nothing about the image.
    """
    image = images.decode(encoded, max_pixels, channels, setting="data.max_pixels")
    if image.damage:
        raise errors.UserError(image.damage)
    if image.alpha is not None and not image.alpha.all():
        warn(f"{np.mean(image.alpha == 0):.0%} of it is wholly transparent: the colours hidden there are trained on")
    return images.to_8_bits(image, channels)


class DecodedSource:
    """Decodes a source; the next readable image replaces an unreadable one, which is named in the log and counted.

    Items are `(image, skipped)`: uint8 `[H, W, channels]`, and the number of unreadable images skipped for it.
    """

    def __init__(self, source, channels: int = 3, cache: bool = False, max_pixels: float = math.inf):
        """Wraps a source.

        Args:
          source: a source of encoded images.
          channels: 3 for RGB, 1 for grey.
          cache: whether decoded images stay in memory: for small sources, where decoding would take longer than
            training.
          max_pixels: images of more pixels count as unreadable and are not decoded.
        """
        self.source, self.channels, self.max_pixels = source, channels, max_pixels
        self._cache = {} if cache else None
        self._skipped, self._doubtful = set(), set()

    def __len__(self):
        return len(self.source)

    @property
    def names(self) -> Sequence[str]:
        """Returns the name of each image."""
        return self.source.names

    def fingerprint(self) -> str:
        """Returns the fingerprint of the source."""
        return self.source.fingerprint()

    def __getitem__(self, index):
        for skipped in range(min(_MAX_SKIPS, len(self.source))):
            image = self._decode((index + skipped) % len(self.source))
            if image is not None:
                return image, skipped
        name = files.printable(self.source.names[index])
        raise errors.UserError(f"{skipped + 1} images in a row cannot be decoded, from {name}: check the files")

    def _decode(self, index):
        """Returns image `index`, or None where it cannot be decoded."""
        if self._cache is not None and index in self._cache:
            return self._cache[index]
        name = self.source.names[index]
        try:
            image = decode(self.source[index], self.channels, self.max_pixels, lambda text: self._warn(name, text))
        except files.Unreachable:
            raise
        except (OSError, errors.UserError) as error:
            image = None
            if name not in self._skipped:
                self._skipped.add(name)
                logging.warning("skipped %s: %s (%d skipped so far)", files.printable(name), error, len(self._skipped))
        if self._cache is not None:
            self._cache[index] = image
        return image

    def _warn(self, name, text):
        """Logs a warning about an image, once."""
        if name not in self._doubtful:
            self._doubtful.add(name)
            logging.warning("%s: %s", files.printable(name), text)


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of source, as the config's `data.source` names it.

    Attributes:
      load: takes the config's `data` section and returns `(train, evaluation)`, two sources without a common image.
      required: the keys of `data` that this kind needs, each with a description of its value.
      own: the keys of `data` that only this kind reads and that are empty by default; with another kind they are
        refused. Keys hold texts if training/validation.py has no other rule for them.
      problems: takes `data` and returns a message for each other problem of its values.
      grids: whether `load` returns `grid_source.GridSource`, whose items are numbers on a grid, and not encoded images.
    """

    load: Callable[[Any], tuple[Any, Any]]
    required: Mapping[str, str] = dataclasses.field(default_factory=dict)
    own: tuple[str, ...] = ()
    problems: Callable[[Any], list[str]] = lambda data: []
    grids: bool = False


def _load_folder(data):
    if data.eval_path:
        evaluation = folder(data.eval_path)
        return without(folder(data.path), evaluation), evaluation
    return split(folder(data.path), data.eval_fraction)


def _load_tfds(data):
    splits = (data.train_split, data.eval_split)
    return tfds_source.train_and_evaluation(data.name, splits, data.image_feature, data.dir)


def _equal_splits(data):
    if data.train_split != data.eval_split or not data.train_split:
        return []
    return [f'data.train_split and data.eval_split are both "{data.eval_split}"; need to be apart']


# All kinds of sources. To add one, add an entry here and the keys that it reads to experiments/default.py.
SOURCES = {
    "photos": Kind(lambda data: photos()),
    "folder": Kind(_load_folder, {"path": "a folder of images"}, ("path", "eval_path")),
    "tfds": Kind(
        _load_tfds,
        {
            "name": "a dataset of TFDS, e.g. celeb_a",
            "image_feature": "the feature that holds the image",
            "train_split": "a split, e.g. train",
            "eval_split": "a split, e.g. validation",
        },
        ("name", "dir"),
        _equal_splits,
    ),
    "netcdf": Kind(
        grid_source.load,
        {"path": "NetCDF files, with commas between them or with wildcards"},
        ("path", "eval_path", "variable", "channel_axis", "grid"),
        grid_source.problems,
        grids=True,
    ),
}
