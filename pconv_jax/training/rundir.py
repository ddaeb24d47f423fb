"""The run directory, which holds all that a run writes and all that `evaluate` and `inpaint` need.

A new run directory has config.json, data.json (fingerprints of images, masks and weights) and versions.json (the
versions of the libraries, and the implementation of the convolutions).
"""

import contextlib
import errno
import fcntl
import json
import os

import ml_collections
from absl import logging

from pconv_jax import errors
from pconv_jax.training import validation, versions

CONFIG, DATA, VERSIONS, LOCK = "config.json", "data.json", "versions.json", "lock"
TEMPORARY = ".tmp"  # The suffix of files that are being written.
FULL = (errno.ENOSPC, errno.EDQUOT)  # The disk is full, or the user's quota is used up.

_IMAGES = ("train", "evaluation")  # The uses that every data.json has; the others were added later.


class NotWritten(OSError):
    """A file of a run could not be written; the message explains what to do."""


@contextlib.contextmanager
def own(workdir: str, config: ml_collections.ConfigDict, data: dict[str, str], implementation: str | None = None):
    """Claims the run directory for this process alone, as a context.

    Args:
      workdir: the run directory.
      config: the config of the run.
      data: as in `claim`.
      implementation: as in `claim`.

    Raises:
      UserError, OSError: as `claim` and `lock`. A directory that is refused is not changed.
    """
    check(workdir, config, data)  # Checked before a lock is made, which a foreign directory must not get.
    with lock(workdir):
        claim(workdir, config, data, implementation)  # It checks again, because another process may have been faster.
        yield


def claim(workdir: str, config: ml_collections.ConfigDict, data: dict[str, str], implementation: str | None = None):
    """Creates the run directory, or checks that the same run may continue in it.

    Args:
      workdir: the run directory.
      config: the config of the run.
      data: fingerprints of images, mask folders and VGG16's weights by use. With others the run would continue with
        another shuffle, split or loss. A use that an older version has not recorded is added, with a log line.
      implementation: the implementation of the convolutions (`build.implementation`). Another one than before is a
        warning, as other versions of the libraries are.

    Raises:
      UserError: it is a file or another program's directory, or belongs to a run with another config (the differing
        keys are listed) or with other data.
      OSError: it cannot be made.
    """
    path = os.path.join(workdir, CONFIG)
    recorded = versions.libraries() | ({versions.IMPLEMENTATION: implementation} if implementation else {})
    if not check(workdir, config, data):
        with _writing(workdir):
            os.makedirs(workdir, exist_ok=True)
            write_atomically(os.path.join(workdir, DATA), json.dumps(data, indent=2) + "\n")
            write_atomically(os.path.join(workdir, VERSIONS), json.dumps(recorded, indent=2) + "\n")
            write_atomically(path, json.dumps(config.to_dict(), indent=2) + "\n")
        return
    before = _read_json(os.path.join(workdir, DATA))
    new = [use for use in data if use not in before]
    if new:
        logging.warning(
            "%s has no record of its %s, so it is not known whether they have changed; they are recorded now",
            workdir,
            ", ".join(new),
        )
        with _writing(workdir):
            write_atomically(os.path.join(workdir, DATA), json.dumps({**before, **data}, indent=2) + "\n")
    _warn_of_other_versions(workdir, recorded)


def check(workdir: str, config: ml_collections.ConfigDict, data: dict[str, str]) -> bool:
    """Returns True if the directory holds this run, False if it holds none; writes nothing.

    Args:
      workdir: the run directory.
      config: the config of the run.
      data: as in `claim`.

    Raises:
      UserError: as `claim`.
    """
    if os.path.exists(workdir) and not os.path.isdir(workdir):
        raise errors.UserError(f"{workdir} is a file; needs a directory: choose another --workdir")
    if not os.path.exists(os.path.join(workdir, CONFIG)):
        if os.path.isdir(workdir) and not all(_unfinished(workdir, name) for name in os.listdir(workdir)):
            raise errors.UserError(f"{workdir} is not empty and has no {CONFIG}: choose another --workdir")
        return False
    check_config(workdir, config)
    _refuse_other_data(workdir, data)
    return True


def check_config(workdir: str, config: ml_collections.ConfigDict):
    """Checks that a run directory belongs to a config.

    Args:
      workdir: the run directory.
      config: the config.

    Raises:
      UserError: it belongs to another config; the differing keys are listed.
    """
    before = validation.flatten(read_config(workdir))
    wanted = validation.flatten(json.loads(json.dumps(config.to_dict())))
    differing = [
        f"{key}: {before.get(key, 'absent')} there, {wanted.get(key, 'absent')} now"
        for key in sorted(before.keys() | wanted.keys())
        if before.get(key, "absent") != wanted.get(key, "absent")
    ]
    if differing:
        raise errors.UserError(
            f"{workdir} belongs to a run with another config ({'; '.join(differing)}): choose another --workdir, or "
            "go on with the same config"
        )


@contextlib.contextmanager
def lock(workdir: str):
    """Keeps other processes from training in the directory, as a context. Creates the directory if there is none.

    Raises:
      UserError: another process trains there.
      OSError: the directory cannot be written to.
    """
    refusal = f"another process trains in {workdir}: wait until it ends, or choose another --workdir"
    with contextlib.ExitStack() as held:
        with _writing(workdir):
            os.makedirs(workdir, exist_ok=True)
            held.enter_context(exclusively(os.path.join(workdir, LOCK), refusal))
        yield


@contextlib.contextmanager
def exclusively(path: str, refusal: str):
    """Holds a lock on a file, as a context. The system releases it however this process ends.

    Args:
      path: the file, which is created if there is none.
      refusal: the message if another process holds the lock.

    Raises:
      UserError: another process holds it; the text is `refusal`.
    """
    with open(path, "a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise errors.UserError(refusal) from None
        yield


def read_config(workdir: str) -> ml_collections.ConfigDict:
    """Returns the config of a run, with the keys of this version.

    Raises:
      UserError: the directory holds no run, or its config cannot be read.
    """
    path = os.path.join(workdir, CONFIG)
    if not os.path.isfile(path):
        place = "" if os.path.isabs(workdir) else f" (it was looked for in {os.getcwd()})"
        raise errors.UserError(
            f"{workdir} holds no run ({CONFIG} is missing): give the directory that training wrote{place}"
        )
    values = _read_json(path)
    try:
        return ml_collections.ConfigDict(validation.rename_keys(values), convert_dict=True)
    except (ValueError, TypeError, AttributeError) as error:  # names that no key has
        raise errors.UserError(f"{path} is no config ({error}): restore it, or choose another --workdir") from error


def read_data(workdir: str) -> dict[str, str]:
    """Returns the fingerprints of a run's images, masks and weights by use; {} if none are recorded."""
    path = os.path.join(workdir, DATA)
    return _read_json(path) if os.path.exists(path) else {}


def write_atomically(path: str, content: str | bytes):
    """Writes a file so that it is complete or absent, even after a power failure.

    Args:
      path: the file.
      content: its content; text is encoded as UTF-8.
    """
    directory, name = os.path.split(path)
    # Shortened, because a name may have 255 bytes: 40 characters are at most 160.
    temporary = os.path.join(directory, f"{name[:40]}.{os.getpid()}{TEMPORARY}")
    try:
        with open(temporary, "wb") as file:
            file.write(content.encode(errors="backslashreplace") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_directory(os.path.dirname(path) or ".")
    except BaseException:
        if os.path.exists(temporary):
            os.remove(temporary)
        raise


def _unfinished(workdir, name):
    """Returns whether a file may come from a process that was killed in `claim`, and not from another program."""
    if name in (DATA, VERSIONS):
        return ("jax" if name == VERSIONS else "train") in _read_json(os.path.join(workdir, name))
    return name == LOCK or name.endswith(TEMPORARY)


def _sync_directory(path):
    """Writes a directory's entries to the disk, so that a new name survives a power failure."""
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # Some file systems cannot, and need not.
            raise
    finally:
        os.close(directory)


@contextlib.contextmanager
def explain_full_disk(workdir: str):
    """Turns an error about a full disk into one whose message says how to continue, as a context."""
    try:
        yield
    except OSError as error:
        if isinstance(error, NotWritten) or error.errno not in FULL:
            raise
        where = error.filename or workdir
        text = f"{error.strerror}: make room, and the same command goes on from the last checkpoint"
        raise NotWritten(error.errno, text, where) from error


@contextlib.contextmanager
def _writing(workdir):
    """Turns an error while writing into one whose message says what to do, as a context."""
    try:
        yield
    except OSError as error:
        where = error.filename or workdir
        text = f"{error.strerror or error}; {workdir} cannot be written: make room, or choose another --workdir"
        raise OSError(error.errno, text, where) from error


def _read_json(path):
    """Returns the JSON object in a file of a run."""
    try:
        with open(path, encoding="utf-8") as file:
            values = json.load(file)
    except OSError as error:
        raise errors.UserError(
            f"{path} cannot be read ({error.strerror}): restore it, or choose another --workdir"
        ) from error
    except (ValueError, RecursionError) as error:
        raise errors.UserError(f"{path} is not JSON ({error}): restore it, or choose another --workdir") from error
    if not isinstance(values, dict):
        raise errors.UserError(f"{path} is JSON, but not an object: restore it, or choose another --workdir")
    return values


def _warn_of_other_versions(workdir, current):
    path = os.path.join(workdir, VERSIONS)
    if not os.path.exists(path):
        return
    try:
        before = _read_json(path)
    except errors.UserError as error:
        logging.warning("%s; so it is not known whether the versions have changed", error)
        return
    changed = versions.changes(before, current)
    if changed:
        logging.warning(
            "%s began with other versions (%s): it continues, but not bit for bit as it would have",
            workdir,
            ", ".join(changed),
        )


def _refuse_other_data(workdir, data):
    before = _read_json(os.path.join(workdir, DATA))
    uses = [use for use in data if (use in before or use in _IMAGES) and before.get(use) != data[use]]
    if uses:
        differing = "; ".join(f"{use}: {before.get(use)} there, {data[use]} now" for use in uses)
        what = "images" if set(uses) & set(_IMAGES) else "masks or weights"
        raise errors.UserError(
            f"{workdir} belongs to a run on other {what} ({differing}): choose another --workdir, or restore the {what}"
        )
