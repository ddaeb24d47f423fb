"""Inputs on disk, for other programs and other runs: `images/<name>.png`, `masks/<name>.png` and `manifest.json`.

Images are whole, the truth included: who fills them masks them first. Masks are white (255) where the hole is. Hashes
are SHA-256 of the pixels, not of the files: bytes row by row, RGB or grey, masks 1 = valid and 0 = hole. Whoever
decodes the same hashes has the same inputs.
"""

import json
import os
import shutil

import cv2
import numpy as np
import PIL.Image

from pconv_jax.evaluation import inputs
from pconv_jax.training import rundir

FILE, IMAGES, MASKS = "manifest.json", "images", "masks"

_ORIGIN = ("image", "mask", "crop")
_LISTED = 5
_SMALLEST = 11  # SSIM's window


class Manifest:
    """The inputs of a manifest, by index; `size` is `(height, width)` of all of them and `channels` 1 or 3.

    Raises:
      ValueError: there is none, it cannot be read, or files are missing, surplus or of other sizes. What the pixels
        are is checked when they are read.
    """

    def __init__(self, directory: str):
        self.directory = directory
        content = _content(os.path.join(directory, FILE))
        self.size, self.channels = tuple(content["size"]), content["channels"]
        self._entries = content["examples"]
        for part in (IMAGES, MASKS):
            check_files(os.path.join(directory, part), self.names, self.size, self.channels if part == IMAGES else 1)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the examples, in order."""
        return tuple(entry["name"] for entry in self._entries)

    def __len__(self):
        return len(self._entries)

    def __getitem__(self, index):
        entry = self._entries[index]
        image = read(self._path(IMAGES, entry), self.channels)
        hole = read(self._path(MASKS, entry), 1)
        grey = int(np.count_nonzero((hole != 0) & (hole != 255)))
        if grey or not hole.any():
            found = f"has {grey} grey pixels" if grey else "has no hole"
            raise ValueError(f"{self._path(MASKS, entry)} {found}; needs 255 for the hole and 0 elsewhere")
        found = inputs.describe(image, (hole == 0).astype(np.uint8), index, {key: entry[key] for key in _ORIGIN})
        for part, key in ((IMAGES, "image_sha256"), (MASKS, "mask_sha256")):
            if found.about[key] != entry[key]:
                raise ValueError(
                    f"the pixels of {self._path(part, entry)} are not those of {FILE} ({key} {found.about[key]} there, "
                    f"{entry[key]} wanted): restore the file, or write the manifest again"
                )
        return inputs.Example(found.image, found.mask, {**found.about, "name": entry["name"]})

    def _path(self, part, entry):
        return os.path.join(self.directory, part, f"{entry['name']}.png")


def write(directory: str, batches, about: dict) -> int:
    """Writes a manifest, whole or not at all.

    Args:
      directory: to make; it may be there if it is empty.
      batches: of `inputs.batches`.
      about: what else to say in `manifest.json`.

    Returns:
      The number of examples.

    Raises:
      ValueError: the directory is not empty.
      OSError: it cannot be written.
    """
    if os.path.exists(directory) and not (os.path.isdir(directory) and not os.listdir(directory)):
        raise ValueError(f"{directory} is there and not an empty directory: give --write_manifest another")
    temporary = f"{os.path.abspath(directory)}.{os.getpid()}{rundir.TEMPORARY}"
    entries = []
    try:
        for part in (IMAGES, MASKS):
            os.makedirs(os.path.join(temporary, part))
        for example in (example for batch in batches for example in batch):
            entries.append(example.about)
            shape = example.image.shape
            for part, pixels in ((IMAGES, example.image), (MASKS, 255 * (1 - example.mask))):
                _write_png(os.path.join(temporary, part, f"{example.name}.png"), pixels)
        content = {**about, "size": shape[:2], "channels": shape[2], "hole": 255, "examples": entries}
        rundir.write_atomically(os.path.join(temporary, FILE), json.dumps(content, indent=1) + "\n")
        os.replace(temporary, directory)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return len(entries)


def check_files(directory: str, names: tuple[str, ...], size: tuple[int, int], channels: int):
    """Raises ValueError unless a directory holds exactly `<name>.png` for each name, of the size and channels.

    Hidden files do not count. All that is wrong is listed, before any pixel is decoded.
    """
    if not os.path.isdir(directory):
        raise ValueError(f"{directory} is not a directory; needs one with {len(names)} files <name>.png")
    wanted = {f"{name}.png" for name in names}
    found = {name for name in os.listdir(directory) if name[0] != "."}
    problems = [
        f"{len(files)} {what} ({_listed(files)})"
        for what, files in (("missing", wanted - found), ("that no input has the name of", found - wanted))
        if files
    ]
    unfit = [f"{name} {wrong}" for name in sorted(wanted & found) if (wrong := _unfit(directory, name, size, channels))]
    if unfit:
        problems.append(f"{len(unfit)} unfit ({_listed(unfit)})")
    if problems:
        raise ValueError(f"{directory} does not match the {len(names)} inputs: {'; '.join(problems)}")


def read(path: str, channels: int) -> np.ndarray:
    """A PNG as uint8 `[H, W, channels]`.

    Raises:
      ValueError: it is damaged.
    """
    try:
        with PIL.Image.open(path) as image:
            pixels = np.asarray(image)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path} is damaged ({error}): write it again") from error
    return pixels.reshape(*pixels.shape[:2], channels)


def _unfit(directory, name, size, channels):
    """What is wrong with a file by its header, or None."""
    wanted = f"{size[1]}x{size[0]} {'RGB' if channels == 3 else 'grey'}"
    try:
        with PIL.Image.open(os.path.join(directory, name), formats=["PNG"]) as image:
            fits = (image.height, image.width) == size and image.mode == ("RGB" if channels == 3 else "L")
            return None if fits else f"is {image.width}x{image.height} {image.mode}, needs {wanted} of 8 bits"
    except (OSError, SyntaxError):
        return "is not a PNG"


def _listed(names):
    names = sorted(names)
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{', '.join(names[:_LISTED])}{more}"


def _content(path):
    """`manifest.json`, checked."""
    if not os.path.isfile(path):
        raise ValueError(f"{path} is missing: write a manifest with --run=DIR --write_manifest=DIR")
    with open(path, encoding="utf-8") as file:
        try:
            content = json.load(file)
        except ValueError as error:
            raise ValueError(f"{path} is not JSON ({error}): write the manifest again") from error
    keys = {"name", *_ORIGIN, "image_sha256", "mask_sha256"}
    try:
        height, width = content["size"]
        sound = min(height, width) >= _SMALLEST and content["channels"] in (1, 3) and content["hole"] == 255
        names = [entry["name"] for entry in content["examples"]]
        sound &= len(set(names)) == len(names) > 0 and all(keys <= entry.keys() for entry in content["examples"])
        sound &= all(name == os.path.basename(name) and name[0] != "." for name in names)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        sound = False
    if not sound:
        raise ValueError(
            f"{path} is not a manifest; needs size (at least {_SMALLEST}x{_SMALLEST}), channels (1 or 3), hole (255) "
            f"and examples, each with {', '.join(sorted(keys))}, their names all different: write it again"
        )
    return content


def _write_png(path, pixels):
    pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.shape[-1] == 3 else pixels
    encoded = cv2.imencode(".png", pixels)[1]
    with open(path, "wb") as file:
        file.write(encoded.tobytes())
