"""Holds the photographs of a session: their files as they are, and the versions that fillings have made.

Everything lies in one folder of the server's own. Decoded pixels are kept for the photographs that were used last.
"""

import collections
import contextlib
import dataclasses
import os
import secrets
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from pconv_jax import errors
from pconv_jax.data import masks
from pconv_jax.inpainting import photograph
from pconv_jax.reading import files, kinds
from pconv_jax.web import saving, versions

MOST = 1000  # Photographs that are sent to a session; a folder may have more.
_CACHED_BYTES = 2**29  # Decoded pixels that are kept, beside the last two photographs, whatever their size.


class Unknown(LookupError):
    """There is no photograph, version or filling of this number: it was closed, or the server was started again."""


class Full(Exception):
    """The session holds as much as it may."""


@dataclasses.dataclass
class Entry:
    """A photograph of the session.

    Attributes:
      id: its random identifier.
      name: its name as people know it: that of the file, or in a folder the path below the folder.
      source: its path in the folder, or None for one that was sent.
      about: facts for the page, or None as long as it was not opened.
      derived: its versions by number, without the original.
    """

    id: str
    name: str
    source: str | None = None
    about: dict[str, Any] | None = None
    derived: dict[int, versions.Version] = dataclasses.field(default_factory=dict)
    count: int = 0  # Of versions so far, those that were forgotten included.


class Photographs:
    """The photographs of a session. Its methods may be called from several threads.

    Attributes:
      max_pixels: largest number of pixels that is decoded.
    """

    def __init__(self, folder: str, max_pixels: int):
        """Prepares an empty session.

        Args:
          folder: an existing folder for files of the session.
          max_pixels: largest number of pixels that is decoded.
        """
        self.max_pixels = max_pixels
        self._folder = folder
        self._entries: dict[str, Entry] = {}
        self._cache: collections.OrderedDict[tuple[str, int], photograph.Photograph] = collections.OrderedDict()
        self._lock = threading.RLock()  # Also lets one photograph at a time be decoded, which bounds the memory.

    def __iter__(self) -> Iterator[Entry]:
        """Returns an iterator over the entries, in the order in which they were added."""
        with self._lock:
            return iter(list(self._entries.values()))

    def __getitem__(self, identifier: str) -> Entry:
        """Returns an entry, which may not be open.

        Raises:
          Unknown: there is none.
        """
        try:
            return self._entries[identifier]
        except KeyError:
            raise Unknown(f"there is no photograph {identifier[:40]}") from None

    def new_path(self) -> str:
        """Returns the path of a file of the session that does not exist.

        Raises:
          Full: `MOST` photographs were sent and are open.
        """
        if sum(entry.source is None for entry in self) >= MOST:
            raise Full(f"{MOST} photographs are open, which is the most: close some first")
        return self._path(secrets.token_hex(8))

    def add(self, path: str, name: str) -> Entry:
        """Adds a photograph that was sent.

        Args:
          path: `new_path`, where its bytes were written.
          name: its name as people know it, which may be anything.

        Raises:
          UserError: it is not a photograph that is read.
        """
        entry = Entry(os.path.basename(path), saving.safe_name(name))
        self._open(entry)
        self._entries[entry.id] = entry
        return entry

    def add_source(self, source: str, name: str) -> Entry:
        """Adds a photograph of a folder, which is read when it is opened.

        Args:
          source: its path.
          name: its path below the folder.
        """
        entry = Entry(secrets.token_hex(8), name, source)
        self._entries[entry.id] = entry
        return entry

    def opened(self, identifier: str) -> Entry:
        """Returns an entry whose `about` is there; one of a folder is read now, and its bytes are kept.

        Args:
          identifier: its `id`.

        Raises:
          Unknown: there is none.
          UserError, OSError: it cannot be read.
        """
        with self._lock:
            entry = self[identifier]
            if entry.about is None:
                assert entry.source is not None  # Others are open from the start.
                with errors.prefixed(f"{files.printable(entry.name)} "):
                    encoded = files.read(entry.source)
                try:
                    with open(self._path(entry.id), "wb") as file:  # The original in the folder may change meanwhile.
                        file.write(encoded)
                    self._open(entry)
                except BaseException:
                    os.remove(self._path(entry.id))
                    raise
            return entry

    def pixels(self, identifier: str, version: int) -> photograph.Photograph:
        """Returns the photograph of a version.

        Args:
          identifier: the photograph's `id`.
          version: number of the version; 0 is the original.

        Raises:
          Unknown: there is no such photograph or version.
          UserError, OSError: it cannot be read.
        """
        with self._lock:
            entry = self.opened(identifier)
            chain = [version]
            while chain[-1] and (identifier, chain[-1]) not in self._cache:
                chain.append(_version(entry, chain[-1]).parent)
            start = chain.pop()
            photo = self._cache[identifier, start] if start else self._decoded(entry)
            for number in reversed(chain):
                photo = versions.apply(self._path(identifier, number), photo, entry.derived[number])
            self._remember((identifier, version), photo)
            return photo

    def add_version(
        self,
        identifier: str,
        parent: int,
        photo: photograph.Photograph,
        mask: np.ndarray,
        **about: Any,
    ) -> versions.Version:
        """Adds a version of a photograph.

        Args:
          identifier: the photograph's `id`.
          parent: the version that was filled.
          photo: the filled photograph.
          mask: uint8 `[H, W]`, 1 = valid; the hole that was filled.
          **about: further fields of `versions.Version`.

        Raises:
          Unknown: the photograph was closed meanwhile.
          OSError: there is no space for it.
        """
        with self._lock:
            entry = self[identifier]
            if parent:
                _version(entry, parent)
            number = entry.count + 1
            versions.write(self._path(identifier, number), photo, mask)
            version = versions.Version(number, parent, versions.box(mask), masks.hole_area(mask), **about)
            entry.count, entry.derived[number] = number, version
            self._remember((identifier, number), photo)
            return version

    def forget(self, identifier: str, version: int):
        """Removes a version that no other one builds on.

        Args:
          identifier: the photograph's `id`.
          version: its number.

        Raises:
          Unknown: there is none.
          UserError: another version builds on it.
        """
        with self._lock:
            entry = self[identifier]
            _version(entry, version)
            if any(other.parent == version for other in entry.derived.values()):
                raise errors.UserError(f"version {version} cannot be forgotten: another one builds on it")
            del entry.derived[version]
            self._cache.pop((identifier, version), None)
            os.remove(self._path(identifier, version))

    def close(self, identifier: str):
        """Removes the files of a photograph. One that was sent is unknown afterwards, one of a folder is not open.

        Raises:
          Unknown: there is none.
        """
        with self._lock:
            entry = self[identifier]
            for key in [key for key in self._cache if key[0] == identifier]:
                del self._cache[key]
            for number in (0, *entry.derived):
                with contextlib.suppress(FileNotFoundError):
                    os.remove(self._path(identifier, number))
            entry.about = None
            entry.derived.clear()
            if entry.source is None:
                del self._entries[identifier]

    def _path(self, identifier, version=0):
        return os.path.join(self._folder, f"{identifier}.{version}" if version else identifier)

    def _open(self, entry):
        """Decodes a photograph and notes what the page shows of it."""
        with self._lock:
            photo = self._decoded(entry)
            with open(self._path(entry.id), "rb") as file:
                size, kind = os.fstat(file.fileno()).st_size, kinds.recognise(file.read(64))
            height, width, channels = photo.pixels.shape
            entry.about = {
                "width": width,
                "height": height,
                "bits": 8 * photo.pixels.itemsize,
                "channels": channels,
                "alpha": photo.alpha is not None,
                "transparent": photo.alpha is not None and bool(photo.alpha.min() < photo.white),
                "turned": photo.turned,
                "format": kind,
                "bytes": size,
                "warnings": list(photo.warnings),
                **saving.about(photo, entry.name, kind),
            }

    def _decoded(self, entry):
        key = (entry.id, 0)
        if key not in self._cache:
            with errors.prefixed(f"{files.printable(entry.name)} "):
                self._remember(key, photograph.decode(files.read(self._path(entry.id)), self.max_pixels))
        return self._cache[key]

    def _remember(self, key, photo):
        """Keeps decoded pixels, and drops those that were used longest ago."""
        self._cache[key] = photo
        self._cache.move_to_end(key)
        total = sum(other.pixels.nbytes for other in self._cache.values())
        while total > _CACHED_BYTES and len(self._cache) > 2:
            _, oldest = self._cache.popitem(last=False)
            total -= oldest.pixels.nbytes


def _version(entry, number):
    try:
        return entry.derived[number]
    except KeyError:
        raise Unknown(f"there is no version {number} of {files.printable(entry.name)}") from None
