"""The run directory: all that a run writes, config.json, data.json, versions.json first. `evaluate` needs no more."""

import contextlib
import fcntl
import importlib.metadata
import json
import os

import cv2
import ml_collections
from absl import logging

from pconv_jax.training import config as config_rules

CONFIG, DATA, VERSIONS, LOCK = "config.json", "data.json", "versions.json", "lock"
TEMPORARY = ".tmp"  # ends the names of files that were not finished


def claim(workdir: str, config: ml_collections.ConfigDict, data: dict[str, str]):
    """Creates the run directory, or checks that the same run may go on in it.

    Args:
      workdir: the run directory.
      config: of the run.
      data: fingerprints of the images by use. Another shuffle and another split would follow from other images.

    Raises:
      ValueError: it is a file or another program's directory, or belongs to a run with another config (the differing
        keys are listed) or with other images.
    """
    path = os.path.join(workdir, CONFIG)
    if os.path.exists(workdir) and not os.path.isdir(workdir):
        raise ValueError(f"{workdir} is a file; needs a directory: choose another --workdir")
    if not os.path.exists(path):
        if os.path.isdir(workdir) and any(not _unfinished(name) for name in os.listdir(workdir)):
            raise ValueError(f"{workdir} is not empty and has no {CONFIG}: choose another --workdir")
        os.makedirs(workdir, exist_ok=True)
        write_atomically(os.path.join(workdir, DATA), json.dumps(data, indent=2) + "\n")
        write_atomically(os.path.join(workdir, VERSIONS), json.dumps(versions(), indent=2) + "\n")
        write_atomically(path, json.dumps(config.to_dict(), indent=2) + "\n")
        return
    before = config_rules.flatten(read_config(workdir))
    now = config_rules.flatten(json.loads(json.dumps(config.to_dict())))
    differing = [
        f"{key}: {before.get(key, 'absent')} there, {now.get(key, 'absent')} now"
        for key in sorted(before.keys() | now.keys())
        if before.get(key, "absent") != now.get(key, "absent")
    ]
    if differing:
        raise ValueError(
            f"{workdir} belongs to a run with another config ({'; '.join(differing)}): choose another --workdir, or "
            "go on with the same config"
        )
    _refuse_other_data(workdir, data)
    _warn_of_other_versions(workdir)


def lock(workdir: str):
    """Keeps other processes from training in the directory, as a context.

    Raises:
      ValueError: another process trains there.
    """
    refusal = f"another process trains in {workdir}: wait until it ends, or choose another --workdir"
    return exclusively(os.path.join(workdir, LOCK), refusal)


@contextlib.contextmanager
def exclusively(path: str, refusal: str):
    """Holds a lock on a file, which is made if need be. The system releases it however this process ends.

    Raises:
      ValueError: another process holds it; the text is `refusal`.
    """
    with open(path, "a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(refusal) from None
        yield


def read_config(workdir: str) -> ml_collections.ConfigDict:
    """The config of a run.

    Raises:
      ValueError: the directory holds no run, or its config cannot be read.
    """
    path = os.path.join(workdir, CONFIG)
    if not os.path.isfile(path):
        raise ValueError(f"{workdir} holds no run ({CONFIG} is missing): give the directory that training wrote")
    with open(path, encoding="utf-8") as file:
        try:
            values = json.load(file)
        except ValueError as error:
            raise ValueError(f"{path} is not JSON ({error}): restore it, or choose another --workdir") from error
    return ml_collections.ConfigDict(values, convert_dict=True)


def read_data(workdir: str) -> dict[str, str]:
    """Fingerprints of the images of a run, by use; none where there is no record of them."""
    path = os.path.join(workdir, DATA)
    if not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def versions() -> dict[str, str]:
    """Of the libraries that decide results."""
    return {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "grain", "numpy")} | {
        "opencv": cv2.__version__
    }


def write_atomically(path: str, content: str | bytes):
    """Writes a file that is there whole or not at all."""
    temporary = f"{path}.{os.getpid()}{TEMPORARY}"
    try:
        with open(temporary, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.remove(temporary)
        raise


def _unfinished(name):
    """What a process that was killed in `claim` may have left."""
    return name in (DATA, VERSIONS) or name.endswith(TEMPORARY)


def _warn_of_other_versions(workdir):
    path, now = os.path.join(workdir, VERSIONS), versions()
    if not os.path.exists(path):
        return
    with open(path, encoding="utf-8") as file:
        before = json.load(file)
    changed = [f"{name} {before.get(name)} -> {now[name]}" for name in now if before.get(name) != now[name]]
    if changed:
        logging.warning(
            "%s began with other versions (%s): it goes on, but not bit for bit as it would have",
            workdir,
            ", ".join(changed),
        )


def _refuse_other_data(workdir, data):
    before = read_data(workdir)
    differing = [f"{use}: {before.get(use)} there, {data[use]} now" for use in data if before.get(use) != data[use]]
    if differing:
        raise ValueError(
            f"{workdir} belongs to a run on other images ({'; '.join(differing)}): choose another --workdir, or "
            "restore the images"
        )
