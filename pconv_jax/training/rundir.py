"""The run directory: config.json beside everything that a run writes. `evaluate` and `inpaint` need nothing else."""

import importlib.metadata
import json
import os

import cv2
import ml_collections

CONFIG = "config.json"


def claim(workdir: str, config: ml_collections.ConfigDict):
    """Creates the run directory, or checks that the same run may go on in it.

    Raises:
      ValueError: it is a file or another program's directory, or belongs to a run with another config (the differing
        keys are listed).
    """
    path = os.path.join(workdir, CONFIG)
    if os.path.exists(workdir) and not os.path.isdir(workdir):
        raise ValueError(f"{workdir} is a file; needs a directory: choose another --workdir")
    if not os.path.exists(path):
        if os.path.isdir(workdir) and os.listdir(workdir):
            raise ValueError(f"{workdir} is not empty and has no {CONFIG}: choose another --workdir")
        os.makedirs(workdir, exist_ok=True)
        write_atomically(path, json.dumps(config.to_dict(), indent=2) + "\n")
        return
    before, now = _flat(read_config(workdir).to_dict()), _flat(json.loads(json.dumps(config.to_dict())))
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


def versions() -> dict[str, str]:
    """Of the libraries that decide results."""
    return {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "grain", "numpy")} | {
        "opencv": cv2.__version__
    }


def write_atomically(path: str, text: str):
    """Writes a text file that is there whole or not at all."""
    temporary = f"{path}.{os.getpid()}.tmp"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(temporary, path)


def _flat(tree, prefix=""):
    flat = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
