"""Reads the weights of a network from an npz that a tool of this project made, and checks the shape of each array."""

import os
import zipfile
import zlib

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from pconv_jax import errors


def read(path: str, missing: str, tool: str) -> dict[str, np.ndarray]:
    """Reads all arrays of an npz, without executing anything that it holds.

    Args:
      path: path of the file.
      missing: the message if the file does not exist.
      tool: the command that makes such a file, for the message if it is not an npz.

    Returns:
      The arrays by name.

    Raises:
      UserError: the file does not exist or is not an npz.
    """
    if not os.path.isfile(path):
        raise errors.UserError(missing)
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, TypeError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise errors.UserError(f"{path} is no npz ({error}): make one with {tool}") from error


def take(arrays: dict, path: str, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns one array after checking its shape.

    Args:
      arrays: all arrays by name.
      path: path of their file, for messages.
      name: name of the array.
      shape: shape that it needs to have.

    Raises:
      UserError: the array is missing or has another shape.
    """
    if name not in arrays:
        raise errors.UserError(f"{path} lacks {name}; it has {', '.join(sorted(arrays)) or 'nothing'}")
    if arrays[name].shape != shape:
        raise errors.UserError(f"{name} in {path} has shape {arrays[name].shape}; needs {shape}")
    return arrays[name]


def shapes(module: nn.Module, *inputs: jax.ShapeDtypeStruct) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every parameter of a module by `"<layer>/<parameter>"`, without computing anything.

    Args:
      module: the module.
      inputs: shapes and dtypes of its arguments.
    """
    params = jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]
    return {name: leaf.shape for name, leaf in flax.traverse_util.flatten_dict(params, sep="/").items()}


def params(arrays: dict, path: str, wanted: dict[str, tuple[int, ...]]):
    """Builds the parameter tree of a module, float32.

    Args:
      arrays: the parameters by `"<layer>/<parameter>"`.
      path: path of their file, for messages.
      wanted: shapes by name, as `shapes` returns them.

    Returns:
      Nested dictionaries of arrays.

    Raises:
      UserError: an array is missing, has another shape or is not finite.
    """
    flat = {name: take(arrays, path, name, shape) for name, shape in wanted.items()}
    for name, array in flat.items():
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise errors.UserError(
                f"{name} in {path} is {array.dtype} or not finite; needs finite floats: make it again"
            )
    params = {name: jnp.asarray(array, jnp.float32) for name, array in flat.items()}
    return flax.traverse_util.unflatten_dict(params, sep="/")
