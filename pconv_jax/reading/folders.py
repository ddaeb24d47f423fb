"""Lists the images of a folder by one rule, and reports the files that are left out."""

import collections
import os

from absl import logging

from pconv_jax import errors
from pconv_jax.reading import files, images


def images_below(
    root: str, but_not: tuple[str, ...] = (), *, needs: str = "give a folder of images", noun: str = "images"
) -> list[str]:
    """Lists the images under a directory, at any depth, by the extensions of `images.EXTENSIONS`.

    Links are followed, each directory is visited once, and hidden files and directories are left out. It logs one line
    with the number and kinds of the other files, and one for each directory that cannot be read.

    Args:
      root: the directory; `~` is the home directory.
      but_not: directories whose contents are left out, links resolved.
      needs: the end of the error messages, which names the setting to change.
      noun: what the images are called in the error messages.

    Returns:
      Paths relative to the directory, with forward slashes, sorted.

    Raises:
      UserError: it is not a directory, cannot be read, or has no image.
    """
    root = files.expand(root)
    if not os.path.isdir(root):
        raise errors.UserError(f"{files.printable(root)} is not a directory: {needs}{relative_hint(root)}")
    names, others, unreadable = [], collections.Counter(), []
    visited = {os.path.realpath(path) for path in (root, *but_not)}
    for directory, subdirectories, entries in os.walk(root, followlinks=True, onerror=unreadable.append):
        # Sorted, so that the first of several links to a directory is the one that counts.
        subdirectories[:] = [
            name
            for name in sorted(subdirectories)
            if not name.startswith(".") and _first_visit(os.path.join(directory, name), visited)
        ]
        for name in entries:
            if name.startswith("."):
                continue
            extension = os.path.splitext(name)[1].lower()
            if extension in images.EXTENSIONS:
                names.append(os.path.relpath(os.path.join(directory, name), root).replace(os.sep, "/"))
            else:
                others[extension or "no extension"] += 1
    for error in unreadable:
        logging.warning("%s: %s: its images are left out", files.printable(error.filename), error.strerror)
    if others:
        kinds = ", ".join(f"{count} {files.printable(kind)}" for kind, count in others.most_common(8))
        more = f", and {len(others) - 8} other kinds" if len(others) > 8 else ""
        logging.warning(
            "%s: %d files are left out, as their kind is not read: %s%s",
            files.printable(root),
            others.total(),
            kinds,
            more,
        )
    if not names:
        raise errors.UserError(f"no {noun} ({', '.join(images.EXTENSIONS)}) under {files.printable(root)}: {needs}")
    return sorted(names)


def relative_hint(path: str) -> str:
    """Returns the end of a message about a missing path: where a relative path was looked for."""
    return "" if os.path.isabs(path) else f" (it was looked for in {files.printable(os.getcwd())})"


def _first_visit(directory, visited):
    """Returns whether a directory was not visited before; a link to a parent would make the walk endless."""
    real = os.path.realpath(directory)
    is_first = real not in visited
    visited.add(real)
    return is_first
