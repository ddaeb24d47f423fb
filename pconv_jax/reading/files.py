"""Reads the bytes of files: never waits for a pipe, retries when a disk or network fails, and prints any file name."""

import errno
import os
import stat
import time

from absl import logging

from pconv_jax import errors

MAX_BYTES = 2**31  # Largest file that is read: more than any image needs.

# Error codes that say something about the file. All others concern a disk, a network or this process, and may pass.
_ABOUT_THE_FILE = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EACCES)
_ABOUT_THE_FILE += (errno.EPERM, errno.ENXIO, errno.ENODEV, errno.EINVAL)
_PAUSES = (1, 10)  # Seconds before the second and the third attempt to read.


class Unreachable(OSError):
    """A file that cannot be read at the moment. Replacing it by another would change the results of the run."""


def read(path: str) -> bytes:
    """Returns the bytes of a file.

    Raises:
      OSError: it does not exist, or cannot be opened.
      UserError: it is too large, or is not a regular file: reading a pipe would wait for a writer, and a device has no
        end.
      Unreachable: a disk or a network failed, and failed again 1 and 11 seconds later.
    """
    pauses = list(_PAUSES)
    while True:
        try:
            return _read(path)
        except OSError as error:
            if error.errno in _ABOUT_THE_FILE:
                raise
            if not pauses:
                text = f"{error.strerror}, three times: mend or restore it, and the same command goes on"
                raise Unreachable(error.errno, text, path) from error
            logging.warning("%s: %s; tried again in %d s", printable(path), error.strerror, pauses[0])
            time.sleep(pauses.pop(0))


def printable(name: str) -> str:
    """Returns a file name as one line of text: quoted and escaped if it has line breaks or bytes that are not text."""
    return name if name.isprintable() else repr(name)


def expand(path: str) -> str:
    """Returns a path in which a leading `~` is replaced by the home directory."""
    return os.path.expanduser(path)


def _read(path):
    with open(path, "rb", opener=_open_without_waiting) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise errors.UserError("is a pipe or a device; needs a file")
        if status.st_size > MAX_BYTES:
            raise errors.UserError(f"has {status.st_size} bytes; needs at most {MAX_BYTES}")
        return file.read()


def _open_without_waiting(path, flags):
    """Opens a pipe without waiting for a writer; the flag has no effect on regular files."""
    return os.open(path, flags | os.O_NONBLOCK)
