"""Checks, reading and writing of weights files, for the tools that convert them."""

import importlib
import os
import re
import tempfile

import numpy as np

from pconv_jax import errors
from pconv_jax.tools import download, torch_checkpoint


def check_absent(path: str, *, overwrite: bool):
    """Checks that an npz can be written to a path, before anything is downloaded.

    Args:
      path: the npz.
      overwrite: whether an existing file is replaced.

    Raises:
      UserError: the folder does not exist, the path is a folder, or the file exists.
    """
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise errors.UserError(f"no folder {folder} for {path}: make it, or choose another --out")
    if os.path.isdir(path):
        raise errors.UserError(f"{path} is a folder; needs the name of a file: choose another --out")
    if os.path.exists(path) and not overwrite:
        raise errors.UserError(f"{path} exists: choose another --out, or pass --overwrite")


def check_installed(package: str):
    """Checks that an optional package can be imported.

    Raises:
      UserError: it is not installed.
    """
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise errors.UserError(f"{error.name} is not installed: pip install {error.name}") from error


def write(path: str, arrays: dict[str, np.ndarray], load, *, overwrite: bool):
    """Writes arrays to an npz, completely or not at all.

    Args:
      path: the npz.
      arrays: arrays by name.
      load: reads the finished file once, so that a file that cannot be used is never left.
      overwrite: whether an existing file is replaced.

    Raises:
      UserError: the file exists and `overwrite` is False, or `load` refuses the new file.
      OSError: it cannot be written.
    """
    check_absent(path, overwrite=overwrite)
    with tempfile.TemporaryDirectory(prefix=".weights_", dir=os.path.dirname(os.path.abspath(path))) as folder:
        temporary = os.path.join(folder, "weights.npz")
        np.savez(temporary, **arrays)
        load(temporary)
        os.replace(temporary, path)


def check_name(path: str, home: str = "https://download.pytorch.org/models"):
    """Checks a file whose name ends in the first digits of its SHA-256, as those that PyTorch publishes do.

    Args:
      path: the file.
      home: address from which it can be downloaded again, for the error message.

    Raises:
      UserError: the digits are not those of the file.
    """
    name = os.path.basename(path)
    digits = re.search(r"-([0-9a-f]{8,64})\.pth$", name)
    if os.path.isfile(path) and digits:
        fix = f"download it again ({home}/{name}), or rename it if you changed it"
        download.check(path, f"sha256:{digits[1]}", fix)


def by_hand(files: dict[str, download.Published], out: str, command: str, error: OSError) -> errors.UserError:
    """Returns an error that explains how to download files on another machine and convert them here.

    Args:
      files: published files by the flag that takes them.
      out: the npz; the files are to be put into its folder.
      command: the command to run then, without `--out` and the flags of `files`.
      error: the reason why the download failed.
    """
    folder = os.path.dirname(os.path.abspath(out))
    paths = {flag: os.path.join(folder, file.name) for flag, file in files.items()}
    names = " and ".join(file.name for file in files.values())
    steps = [
        f"download ({file.megabytes} MB)\n  {file.url}\nput it at\n  {paths[flag]}\n" for flag, file in files.items()
    ]
    arguments = " ".join(f"{flag}={path}" for flag, path in paths.items())
    return errors.UserError(
        f"cannot download {names} ({error}). By hand: on a machine with a network, {''.join(steps)}and run\n"
        f"  {command} --out={out} {arguments}"
    )


def tensors(path: str, names) -> dict[str, np.ndarray]:
    """Reads tensors of a PyTorch state dict from a .pth or safetensors file, recognised by its content.

    Args:
      path: the file.
      names: names of the tensors.

    Returns:
      The tensors by name, without those that the file lacks.

    Raises:
      UserError: the file does not exist, is damaged or is of another kind.
    """
    if not os.path.isfile(path):
        raise errors.UserError(f"no file {path}: give the weights, or leave the flag out to download them")
    with open(path, "rb") as file:
        start = file.read(32)
    if start.startswith((torch_checkpoint.LEGACY_START, b"PK")):
        return torch_checkpoint.read(path, names)
    if start[8:9] != b"{":
        raise errors.UserError(f"{path} starts with {start!r}; needs a .pth or safetensors: download it again")
    check_installed("safetensors")
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            present = set(file.keys())
            return {name: file.get_tensor(name) for name in names if name in present}
    except Exception as error:  # All errors of this library mean that the file is damaged or of another kind.
        raise errors.UserError(f"{path} cannot be read as safetensors ({error}): download it again") from error


def take(arrays: dict[str, np.ndarray], path: str, name: str, shape: tuple[int, ...], what: str) -> np.ndarray:
    """Returns one array after checking it.

    Args:
      arrays: arrays by name.
      path: file that they come from, for the error message.
      name: name of the array.
      shape: shape that it must have.
      what: description of the right file, for the error message.

    Raises:
      UserError: the array is missing, has another shape or is not finite.
    """
    if name not in arrays:
        raise errors.UserError(f"{path} lacks {name}: give {what}")
    array = arrays[name]
    if array.shape != shape:
        raise errors.UserError(f"{name} in {path} has shape {array.shape}; needs {shape}: give {what}")
    if array.dtype.kind != "f" or not np.isfinite(array).all():
        raise errors.UserError(
            f"{name} in {path} is {array.dtype} or not finite; needs finite floats: download it again"
        )
    return array
