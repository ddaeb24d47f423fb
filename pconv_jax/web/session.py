"""What one server holds: photographs, networks and the queue of fillings; what the page can do with them."""

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from pconv_jax import errors
from pconv_jax.inpainting import drawn_masks, filling, photograph, photograph_files
from pconv_jax.reading import files
from pconv_jax.web import filling_queue, folder, networks, photographs, previews, saving, versions

ADVICE = filling.Advice(
    polarity="invert the mask if the rest is meant",
    dilate="dilate covers soft edges",
    memory="start the server with a lower --tile",
)
MAX_DILATE = 1000  # Pixels.
MAX_ENSEMBLE = 8
_SOON = 512  # Longest side in pixels of photographs that the network is prepared for at once.


class Session:
    """The photographs, networks and fillings of one server.

    Attributes:
      photographs: the photographs.
      networks: the networks by `id`.
      queue: fillings that wait or run.
      folder: the folder that the server was started with, or None.
    """

    def __init__(
        self,
        choices: dict[str, networks.Choice],
        temporary: str,
        max_pixels: int = filling.MAX_PIXELS,
        source: folder.Folder | None = None,
    ):
        """Starts the thread that fills, which compiles the default network's functions first.

        Args:
          choices: the networks.
          temporary: an existing folder for files of the session.
          max_pixels: largest number of pixels of a photograph.
          source: the folder of photographs to go through, if any.
        """
        self.photographs = photographs.Photographs(temporary, max_pixels)
        self.networks, self.folder = choices, source
        for name in source.names if source else ():
            self.photographs.add_source(source.source(name), name)
        self.queue = filling_queue.FillingQueue()
        self._thumbnails = threading.Lock()  # Lets one thumbnail at a time be decoded, which bounds the memory.
        self._unprepared = networks.chosen(choices, "").sides
        self._prepare(_SOON)

    def open(self, identifier: str) -> photographs.Entry:
        """Opens a photograph, and prepares the network for its size.

        Args:
          identifier: `id` of the photograph.

        Raises:
          Unknown, UserError, OSError: there is none, or it cannot be read.
        """
        entry = self.photographs.opened(identifier)
        self._prepare(max(_about(entry)["width"], _about(entry)["height"]))
        return entry

    def thumbnail(self, identifier: str) -> bytes:
        """Returns a small PNG of an original.

        A photograph of the folder that is not open stays so: the thumbnails of a large folder would copy all of it.

        Args:
          identifier: `id` of the photograph.

        Raises:
          Unknown, UserError, OSError: there is none, or it cannot be read.
        """
        entry = self.photographs[identifier]
        if entry.source is None or entry.about is not None:
            return previews.thumbnail(self.photographs.pixels(identifier, 0))
        with self._thumbnails, errors.prefixed(f"{files.printable(entry.name)} "):
            return previews.thumbnail(photograph.decode(files.read(entry.source), self.photographs.max_pixels))

    def _prepare(self, longest):
        """Compiles the default network's functions for photographs of this size, as soon as no filling waits."""
        network = networks.chosen(self.networks, "")
        sides = [side for index, side in enumerate(network.sides) if not index or network.sides[index - 1] < longest]
        due = [side for side in self._unprepared if side in sides]
        self._unprepared = [side for side in self._unprepared if side not in due]
        self.queue.when_idle([lambda side=side: network.prepare(side) for side in due])

    def read_mask(self, identifier: str, polarity: str, encoded: bytes) -> tuple[np.ndarray, list[str]]:
        """Returns the mask that a file shows, and warnings.

        Args:
          identifier: `id` of the photograph.
          polarity: one of `drawn_masks.POLARITIES`; "alpha" reads the photograph's own transparency.
          encoded: the bytes of the mask file; not read with "alpha".

        Returns:
          `(mask uint8 [H, W] with 1 = valid, warnings)`.

        Raises:
          Unknown, UserError, OSError: the photograph or the mask cannot be read, or their sizes differ.
        """
        filling.Options(polarity)
        photo, name = self.photographs.pixels(identifier, 0), files.printable(self.photographs[identifier].name)
        if polarity == drawn_masks.ALPHA:
            if photo.alpha is None:
                raise errors.UserError(f"{name} has no transparency: paint the mask, or load one")
            mask = drawn_masks.from_image(photo, polarity)
            return mask, filling.area_warnings(mask, ADVICE)
        drawn = self._decoded(encoded)
        if drawn.size != photo.size:
            raise errors.UserError(
                f"{name} is {photo.size} and the mask {drawn.size} (width x height, upright); masks are not resized: "
                "export one of the photograph's size"
            )
        mask = _mask(drawn, polarity)
        return mask, filling.area_warnings(mask, ADVICE) + filling.grey_warnings(drawn, "the mask", ADVICE)

    def fill(
        self,
        identifier: str,
        base: int,
        encoded: bytes,
        position: tuple[int, int] | None,
        *,
        weights: str = "",
        ensemble: int = 1,
        dilate: int = 0,
        feather: int = 0,
        opaque: bool = False,
    ) -> filling_queue.Filling:
        """Lets a filling wait for its turn.

        Args:
          identifier: `id` of the photograph.
          base: the version to fill.
          encoded: bytes of the mask, white = hole.
          position: `(x, y)` of the mask in the photograph, outside of which all is valid; None for one of its size.
          weights: `id` of the network; empty for the default.
          ensemble, dilate, feather: as on the command line.
          opaque: whether hole pixels become opaque.

        Raises:
          Unknown, UserError, OSError, Full: the filling is refused.
        """
        options = filling.Options("white_hole", dilate, feather)
        network = networks.chosen(self.networks, weights).with_ensemble(ensemble)
        entry = self.photographs.opened(identifier)
        if base and base not in entry.derived:
            raise photographs.Unknown(f"there is no version {base} of {files.printable(entry.name)}")
        mask = self._placed(entry, encoded, position)
        packed = np.packbits(mask)  # A hundred masks may wait.
        about = {"weights": weights or next(iter(self.networks)), "ensemble": ensemble}
        about |= {"dilate": dilate, "feather": feather, "opaque": opaque}

        def work(report: Callable[[float], None]) -> versions.Version:
            started = time.monotonic()
            mask = np.unpackbits(packed, count=height * width).reshape(height, width)
            photo = self.photographs.pixels(identifier, base)
            with errors.prefixed(f"{files.printable(entry.name)}: "):
                hole = filling.hole(photo, mask, options.dilate, ADVICE)
                photo = filling.opaque(photo, hole.grown) if opaque else photo
                photo, notes = filling.fill(network, photo, hole, options.feather, advice=ADVICE, progress=report)
            report(1.0)  # A filling that was cancelled meanwhile leaves no version.
            warnings = (*filling.area_warnings(hole.grown, ADVICE), *notes)
            seconds = round(time.monotonic() - started, 3)
            return self.photographs.add_version(
                identifier, base, photo, hole.grown, options=about, warnings=warnings, seconds=seconds
            )

        height, width = mask.shape
        waiting = filling_queue.Filling(identifier, base, work)
        self.queue.add(waiting)
        return waiting

    def encode(self, identifier: str, version: int, format: str) -> tuple[str, bytes]:
        """Returns the name and the bytes of a result.

        Args:
          identifier: `id` of the photograph.
          version: number of the version.
          format: as for `saving.extension_of`.

        Raises:
          Unknown, UserError, OSError: there is none, or the format cannot hold it.
        """
        entry = self.photographs.opened(identifier)
        kind = _about(entry)["format"]
        extension = saving.extension_of(format, kind)
        photo = self.photographs.pixels(identifier, version)
        return saving.file_name(entry.name, format, kind), photograph_files.encode(photo, extension)

    def keep(self, identifier: str, version: int, format: str, overwrite: bool) -> str:
        """Writes a result beside the photographs of the folder, and returns its path below the folder.

        Args:
          identifier, version, format: as for `encode`.
          overwrite: whether a result of an earlier session may be replaced.

        Raises:
          Unknown, UserError, OSError, folder.Exists: it cannot be written.
        """
        entry = self.photographs[identifier]
        if self.folder is None or entry.source is None:
            raise errors.UserError("the server was not started with a folder: save the file instead")
        name, encoded = self.encode(identifier, version, format)
        return self.folder.write(entry.name, name[name.rindex(".") :], encoded, overwrite)

    def close(self, identifier: str):
        """Closes a photograph and cancels its fillings.

        Raises:
          Unknown: there is none.
        """
        self.photographs[identifier]
        for waiting in self.queue.listed():
            if waiting.photograph == identifier:
                self.queue.cancel(waiting)
        self.photographs.close(identifier)

    def _decoded(self, encoded):
        with errors.prefixed("the mask "):
            return photograph.decode(encoded, self.photographs.max_pixels)

    def _placed(self, entry, encoded, position):
        """Returns the mask of a filling, uint8 `[H, W]` with 1 = valid and of the photograph's size."""
        drawn, about = self._decoded(encoded), _about(entry)
        size = (about["height"], about["width"])
        x, y = position or (0, 0)
        height, width = drawn.pixels.shape[:2]
        fits = y + height <= size[0] and x + width <= size[1]
        if not fits or (position is None and (height, width) != size):
            raise errors.UserError(
                f"{files.printable(entry.name)} is {size[1]}x{size[0]} and the mask {drawn.size} at ({x}, {y}); "
                "masks are not resized: make one of the photograph's size"
            )
        mask = np.ones(size, np.uint8)
        mask[y : y + height, x : x + width] = _mask(drawn, "white_hole")
        if mask.all():
            raise errors.UserError("there is no hole: paint over what is to be filled")
        if not mask.any():
            raise errors.UserError(f"the mask is all hole: nothing is left to fill it from; {ADVICE.polarity}")
        return mask


def _mask(drawn, polarity):
    with errors.prefixed("the mask "):
        return drawn_masks.from_image(drawn, polarity)


def _about(entry) -> dict[str, Any]:
    assert entry.about is not None  # It was opened.
    return entry.about
