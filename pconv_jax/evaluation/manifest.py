"""Evaluation sets on disk for other programs and runs: `images/<name>.png`, `masks/<name>.png` and `manifest.json`.

Images are whole and include the pixels behind the hole, so a program must apply the mask first. Masks are white (255)
in the hole. Hashes are SHA-256 of the pixels, not of the files: row by row, RGB or grey, masks as 1 = valid and
0 = hole. Equal hashes mean equal inputs.
"""

import json
import os
import shutil

import cv2
import numpy as np
import PIL.Image

from pconv_jax import errors
from pconv_jax.evaluation import inputs
from pconv_jax.training import rundir

FILE, IMAGES, MASKS = "manifest.json", "images", "masks"

_ORIGIN = ("image", "mask", "crop")
_LISTED = 5  # Names that an error message shows at most.
_SMALLEST = 11  # Side of SSIM's window, in pixels.


class Manifest:
    """An evaluation set that is read from a manifest directory. Pixels are checked against their hashes when read.

    Attributes:
      directory: the manifest directory.
      size: `(height, width)` of all images.
      channels: 1 or 3.

    Raises:
      UserError: there is no readable manifest, or files are missing, surplus, or of another size.
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
        """Returns the names of the examples, in order."""
        return tuple(entry["name"] for entry in self._entries)

    def __len__(self):
        return len(self._entries)

    def __getitem__(self, index):
        entry = self._entries[index]
        image = read(self._path(IMAGES, entry), self.channels)
        hole = read(self._path(MASKS, entry), 1)
        grey = int(np.count_nonzero((hole != 0) & (hole != 255)))
        if grey or not hole.any():
            problem = f"has {grey} grey pixels" if grey else "has no hole"
            raise errors.UserError(f"{self._path(MASKS, entry)} {problem}; needs 255 for the hole and 0 elsewhere")
        example = inputs.describe(image, (hole == 0).astype(np.uint8), index, {key: entry[key] for key in _ORIGIN})
        for part, key in ((IMAGES, "image_sha256"), (MASKS, "mask_sha256")):
            actual = example.about[key]
            if actual != entry[key]:
                raise errors.UserError(
                    f"the pixels of {self._path(part, entry)} are not those of {FILE} ({key} {actual} there, "
                    f"{entry[key]} wanted): restore the file, or write the manifest again"
                )
        return inputs.Example(example.image, example.mask, {**example.about, "name": entry["name"]})

    def _path(self, part, entry):
        return os.path.join(self.directory, part, f"{entry['name']}.png")


def write(directory: str, batches, about: dict) -> int:
    """Writes a manifest directory. If anything fails, no directory is left behind.

    Args:
      directory: directory to make; it may exist if it is empty.
      batches: batches of `inputs.batches`.
      about: further content of `manifest.json`.

    Returns:
      The number of examples.

    Raises:
      UserError: the directory is not empty.
      OSError: the directory cannot be written.
    """
    if os.path.exists(directory) and not (os.path.isdir(directory) and not os.listdir(directory)):
        raise errors.UserError(f"{directory} is there and not an empty directory: give --write_manifest another")
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
    """Checks that a directory holds exactly one `<name>.png` per name. Only headers are read; hidden files are ignored.

    Args:
      directory: the directory.
      names: the expected names.
      size: the expected `(height, width)`.
      channels: the expected number of channels, 1 or 3.

    Raises:
      UserError: files are missing, surplus, or of another size or kind; the message lists them.
    """
    if not os.path.isdir(directory):
        raise errors.UserError(f"{directory} is not a directory; needs one with {len(names)} files <name>.png")
    expected = {f"{name}.png" for name in names}
    present = {name for name in os.listdir(directory) if name[0] != "."}
    problems = [
        f"{len(files)} {what} ({_listed(files)})"
        for what, files in (("missing", expected - present), ("that no input has the name of", present - expected))
        if files
    ]
    unfit = [
        f"{name} {wrong}" for name in sorted(expected & present) if (wrong := _unfit(directory, name, size, channels))
    ]
    if unfit:
        problems.append(f"{len(unfit)} unfit ({_listed(unfit)})")
    if problems:
        raise errors.UserError(f"{directory} does not match the {len(names)} inputs: {'; '.join(problems)}")


def read(path: str, channels: int) -> np.ndarray:
    """Reads a PNG of 8 bits.

    Args:
      path: the file.
      channels: its number of channels, 1 or 3.

    Returns:
      uint8 `[H, W, channels]`.

    Raises:
      UserError: the file is damaged.
    """
    try:
        with PIL.Image.open(path) as image:
            pixels = np.asarray(image)
    except (OSError, SyntaxError) as error:
        raise errors.UserError(f"{path} is damaged ({error}): write it again") from error
    return pixels.reshape(*pixels.shape[:2], channels)


def _unfit(directory, name, size, channels):
    """Returns what is wrong with a file according to its header, or None."""
    needed = f"{size[1]}x{size[0]} {'RGB' if channels == 3 else 'grey'}"
    try:
        with PIL.Image.open(os.path.join(directory, name), formats=["PNG"]) as image:
            fits = (image.height, image.width) == size and image.mode == ("RGB" if channels == 3 else "L")
            return None if fits else f"is {image.width}x{image.height} {image.mode}, needs {needed} of 8 bits"
    except (OSError, SyntaxError):
        return "is not a PNG"


def _listed(names):
    names = sorted(names)
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{', '.join(names[:_LISTED])}{more}"


def _content(path):
    """Reads and checks `manifest.json`."""
    if not os.path.isfile(path):
        raise errors.UserError(f"{path} is missing: write a manifest with --run=DIR --write_manifest=DIR")
    with open(path, encoding="utf-8") as file:
        try:
            content = json.load(file)
        except ValueError as error:
            raise errors.UserError(f"{path} is not JSON ({error}): write the manifest again") from error
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
        raise errors.UserError(
            f"{path} is not a manifest; needs size (at least {_SMALLEST}x{_SMALLEST}), channels (1 or 3), hole (255) "
            f"and examples, each with {', '.join(sorted(keys))}, their names all different: write it again"
        )
    return content


def _write_png(path, pixels):
    pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.shape[-1] == 3 else pixels
    encoded = cv2.imencode(".png", pixels)[1]
    with open(path, "wb") as file:
        file.write(encoded.tobytes())
