"""A folder of photographs to go through: lists them, and writes results beside them, never over them."""

import collections
import os

from pconv_jax import errors
from pconv_jax.inpainting import photograph_files
from pconv_jax.reading import files, folders
from pconv_jax.training import rundir

RESULTS = "filled"  # The folder of results, inside that of the photographs.


class Exists(Exception):
    """A result of an earlier session would be replaced."""


class Folder:
    """A folder of photographs.

    Attributes:
      name: the last part of its path.
      names: paths of the photographs below it.
    """

    def __init__(self, path: str):
        """Lists the photographs, at any depth but in `RESULTS`.

        Args:
          path: the folder; `~` is the home directory.

        Raises:
          UserError: it is not a folder, or has no photograph.
        """
        self._root = os.path.abspath(files.expand(path))
        self._results = os.path.join(self._root, RESULTS)
        self.name = files.printable(os.path.basename(self._root))
        self.names = folders.images_below(self._root, (self._results,), needs="give a folder of photographs")
        self._written: set[str] = set()
        stems = collections.Counter(os.path.splitext(name)[0] for name in self.names)
        self._ambiguous = {stem for stem, count in stems.items() if count > 1}

    def source(self, name: str) -> str:
        """Returns the path of a photograph, one of `names`."""
        return os.path.join(self._root, name)

    def saved(self, name: str) -> str | None:
        """Returns the result of a photograph, relative to the folder, or None if there is none."""
        paths = (self._result(name, extension) for extension in photograph_files.WRITTEN)
        return next((self._relative(path) for path in paths if os.path.lexists(path)), None)

    def write(self, name: str, extension: str, encoded: bytes, overwrite: bool) -> str:
        """Writes a result, complete or not at all. Results of this session may be replaced.

        Args:
          name: one of `names`.
          extension: extension of the result.
          encoded: its bytes.
          overwrite: whether a result of an earlier session may be replaced.

        Returns:
          The path of the result, relative to the folder.

        Raises:
          Exists: there is a result of an earlier session.
          UserError: the result would replace a photograph, or lie outside the folder.
          OSError: it cannot be written.
        """
        path = self._result(name, extension)
        relative = self._relative(path)
        directory = os.path.dirname(path)
        inside = os.path.join(os.path.realpath(self._root), RESULTS)
        if os.path.commonpath([os.path.realpath(directory), inside]) != inside:
            raise errors.UserError(f"{files.printable(relative)} is a link to another place: remove the link first")
        if os.path.lexists(path) and path not in self._written and not overwrite:
            raise Exists(f"{files.printable(relative)} is already there: replace it, or choose another format")
        os.makedirs(directory, exist_ok=True)
        rundir.write_atomically(path, encoded)
        self._written.add(path)
        return relative

    def _result(self, name, extension):
        """Returns the path of a result; photographs that differ in the extension alone keep theirs in the name."""
        stem = os.path.splitext(name)[0]
        return os.path.join(self._results, f"{name if stem in self._ambiguous else stem}{extension}")

    def _relative(self, path):
        return os.path.relpath(path, self._root).replace(os.sep, "/")
