"""Weights files: the parameters of a network and everything else that filling photographs with it needs.

A safetensors file. Its tensors are named by their place in the network, e.g. `params/enc1/conv/kernel`; kernels are
float16 where a run was exported, everything else is float32. Its metadata hold one JSON object, under the key
`pconv_jax` (one, because safetensors writes several in random order, and the same run is to give the same file):

    version            of this format, VERSION
    model              the `model` section of the run's config
    pyramid            settings of the image pyramid (`pyramid.Settings`), or null
    variables_sha256   SHA-256 of all tensors as float32 (`sha256`)
    about              name and step of the training run, licence of the weights, credits of the training photographs;
                       of weights that others trained also layout, origin, and name and SHA-256 of the source
"""

import dataclasses
import hashlib
import json
import os
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from pconv_jax import errors
from pconv_jax.inpainting import pyramid
from pconv_jax.models import unet

VERSION = 1
KEY = "pconv_jax"
PRETRAINED = os.path.join(os.path.dirname(__file__), "weights", "photographs.safetensors")


@dataclasses.dataclass(frozen=True)
class Weights:
    """A network that is ready to be applied.

    Attributes:
      section: the `model` section of a config, as plain values.
      variables: parameters and running statistics, float32.
      settings: settings of the image pyramid; None where the network is applied once.
      about: `name`, `step`, `licence`, `credits`; of weights that others trained also `layout`, `origin`, `source`
        and `source_sha256`.
    """

    section: dict[str, Any]
    variables: Any
    settings: pyramid.Settings | None
    about: dict[str, Any]

    def model(self) -> unet.UNet:
        """Returns the network.

        Raises:
          UserError: the section has options that this version does not know.
        """
        try:
            return unet.from_section(self.section)
        except TypeError as error:
            raise errors.UserError(f"the network has options that this version of pconv_jax lacks ({error})") from error


def write(path: str, weights: Weights, *, kernel_dtype: type[np.floating] = np.float16):
    """Writes a weights file; not atomically, which is left to the caller.

    Args:
      path: path of the file.
      weights: what to write.
      kernel_dtype: kernels are rounded to it: float16, or float32 for weights that are to stay as they are.

    Raises:
      UserError: a value is not finite in its dtype.
    """
    flat = {}
    for name, value in _flat(weights.variables).items():
        with np.errstate(over="ignore"):  # reported below
            flat[name] = np.asarray(value, kernel_dtype if np.ndim(value) == 4 else np.float32)
        if not np.isfinite(flat[name]).all():
            raise errors.UserError(f"{name} is not finite in {flat[name].dtype}: train again, or choose another run")
    metadata = {
        "version": VERSION,
        "model": weights.section,
        "pyramid": None if weights.settings is None else dataclasses.asdict(weights.settings),
        "variables_sha256": _sha256(flat),
        "about": weights.about,
    }
    metadata = {KEY: json.dumps(metadata, sort_keys=True)}
    safetensors.numpy.save_file(flat, path, metadata)


def read(path: str) -> Weights:
    """Reads a weights file.

    Args:
      path: path of the file.

    Raises:
      UserError: there is no such file, it is damaged, of another kind, or made by a later version.
    """
    if not os.path.isfile(path):
        raise errors.UserError(f"no weights at {path}: give a file that tools.export_weights wrote, or --run=DIR")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(KEY, "{}")
            flat = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, TypeError) as error:
        raise errors.UserError(f"{path} cannot be read as safetensors ({error}): copy or export it again") from error
    try:
        metadata = json.loads(text)
        if metadata.get("version") != VERSION:
            raise errors.UserError(
                f"its format has the version {metadata.get('version')}; needs {VERSION}: export it again"
            )
        section, settings = dict(metadata["model"]), metadata["pyramid"]
        settings = None if settings is None else pyramid.Settings(**settings)
        weights = Weights(section, None, settings, dict(metadata["about"]))
        expected = shapes(weights.model())
    except errors.UserError as error:
        raise errors.UserError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise errors.UserError(f"{path} has metadata that do not describe a network ({error!r}): export it") from error
    if {name: value.shape for name, value in flat.items()} != expected:
        differing = sorted(
            name for name in flat.keys() | expected if name not in flat or flat[name].shape != expected.get(name)
        )
        raise errors.UserError(
            f"{path} does not hold the tensors of its network ({', '.join(differing[:3])}): export it"
        )
    if _sha256(flat) != metadata["variables_sha256"]:
        raise errors.UserError(f"{path} is damaged: its tensors do not have the recorded SHA-256; copy it again")
    flat = {name: np.asarray(value, np.float32) for name, value in flat.items()}
    return dataclasses.replace(weights, variables=flax.traverse_util.unflatten_dict(flat, sep="/"))


def shapes(model: unet.UNet) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each variable of a network by its name in a weights file; nothing is computed."""
    side = 2**model.depth
    image, mask = jnp.zeros((1, side, side, model.channels)), jnp.ones((1, side, side, 1))
    guess = (image,) if model.guess else ()
    variables = jax.eval_shape(lambda key: model.init(key, image, mask, *guess), jax.random.key(0))
    return {name: leaf.shape for name, leaf in _flat(variables).items()}


def sha256(variables) -> str:
    """Returns the SHA-256 of variables as they are read from a file, to identify the weights that made a result."""
    return _sha256(_flat(variables))


def _sha256(flat):
    digest = hashlib.sha256()
    for name in sorted(flat):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(flat[name], np.float32).tobytes())
    return digest.hexdigest()


def _flat(variables):
    """Returns `{"params/enc1/conv/kernel": array, ..}`."""
    return flax.traverse_util.flatten_dict(dict(variables), sep="/")
