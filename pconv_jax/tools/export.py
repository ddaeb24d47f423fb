"""Exports a network as a file that fills photographs without this package: StableHLO for JAX, or ONNX.

    python -m pconv_jax.tools.export --format=stablehlo --out=photographs.stablehlo
    python -m pconv_jax.tools.export --format=onnx --out=photographs.onnx [--weights=FILE] [--levels=5]

The file holds the weights, which are those of the package by default, and the whole image pyramid: a photograph and
its mask go in, the filled photograph comes out. Batch and size are free, as long as height and width are multiples of
a number that ONNX files have in their metadata. docs/export.md shows how to use both kinds of file.
"""

import importlib.util
import os
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from pconv_jax import command_line, errors
from pconv_jax.inpainting import fill_function, weights_file
from pconv_jax.tools import onnx_files, weight_files
from pconv_jax.training import rundir

PLATFORMS = ("cpu", "cuda", "tpu")
TOLERANCE = 1e-4  # Largest difference between ONNX and JAX, of images in [0, 1].


class Network(NamedTuple):
    """A network to export.

    Attributes:
      fill: the function of `fill_function.make`.
      channels: number of channels of its images.
      multiple: height and width are multiples of it.
      metadata: texts that describe it, by name.
    """

    fill: fill_function.Fill
    channels: int
    multiple: int
    metadata: dict[str, str]


def define_flags(flag_values: flags.FlagValues):
    """Adds the flags of `python -m pconv_jax.tools.export`."""
    flags.DEFINE_string("weights", None, "Weights file; default: those that the package contains.", flag_values)
    flags.DEFINE_enum("format", None, ["stablehlo", "onnx"], "Format of the file.", flag_values, required=True)
    flags.DEFINE_string("out", None, "File to write, e.g. photographs.onnx.", flag_values, required=True)
    flags.DEFINE_bool("overwrite", False, "Replace --out if it exists.", flag_values)
    flags.DEFINE_integer(
        "levels",
        None,
        f"Levels of the image pyramid: more for larger holes, and a larger multiple of the size. Default: "
        f"{fill_function.LEVELS}, or 1 for a network that takes no guess.",
        1,
        12,
        flag_values=flag_values,
    )


def main(flag_values: flags.FlagValues):
    """Exports the network and writes the file.

    Raises:
      UserError: there are no such weights, they cannot be exported, a library is missing, or the exported network
        computes something else. Nothing was written.
      OSError: the file cannot be written.
    """
    weight_files.check_absent(flag_values.out, overwrite=flag_values.overwrite)
    if flag_values.format == "onnx":
        _require_onnx()
    else:
        weight_files.check_installed("flatbuffers")
    network = load(flag_values.weights or weights_file.PRETRAINED, flag_values.levels)
    content, checked = checked_onnx(network) if flag_values.format == "onnx" else (stablehlo(network), "")
    rundir.write_atomically(flag_values.out, content)
    print(
        f"{flag_values.out}: {network.metadata['name']}, {network.metadata['levels']} levels, height and width "
        f"multiples of {network.multiple}, {len(content) / 1e6:.1f} MB{checked}"
    )


def load(path: str, levels: int | None = None) -> Network:
    """Reads a weights file.

    Args:
      path: path of the file.
      levels: levels of the image pyramid; None for the default.

    Raises:
      UserError: it is no weights file, or its network does not fill photographs.
    """
    weights = weights_file.read(path)
    model = weights.model().clone(conv_impl="xla")  # The implementations for CPUs exist on no other platform.
    levels = levels or (fill_function.LEVELS if model.guess else 1)
    multiple = fill_function.multiple(model.depth, levels)
    metadata = {
        "name": str(weights.about.get("name", os.path.basename(path))),
        "levels": str(levels),
        "multiple": str(multiple),
        "mask": "1 valid, 0 hole, -1 padding to a multiple",
        "licence": str(weights.about.get("licence", "")),
        "variables_sha256": weights_file.sha256(weights.variables),
    }
    return Network(fill_function.make(model, weights.variables, levels), model.channels, multiple, metadata)


def stablehlo(network: Network) -> bytes:
    """Returns the network as `jax.export` serialises it, for every platform and any batch and size."""
    import flatbuffers  # noqa: F401, because jax.export serialises with it and does not declare it
    from jax import export

    batch, height, width = export.symbolic_shape(f"b, {network.multiple}*h, {network.multiple}*w")
    image, mask = (
        jax.ShapeDtypeStruct((batch, height, width, channels), jnp.float32) for channels in (network.channels, 1)
    )
    return bytes(export.export(jax.jit(network.fill), platforms=PLATFORMS)(image, mask).serialize())


def checked_onnx(network: Network) -> tuple[bytes, str]:
    """Returns the network as ONNX, and a text about the comparison with JAX.

    Raises:
      UserError: its output differs from that of JAX.
    """
    content = onnx_files.convert(network.fill, network.channels, network.multiple, network.metadata)
    rng, side = np.random.default_rng(0), network.multiple
    image = rng.uniform(size=(1, side, 2 * side, network.channels)).astype(np.float32)
    mask = np.ones((1, side, 2 * side, 1), np.float32)
    mask[:, side // 4 : side // 2, side // 4 : side] = 0
    mask[:, :, -(side // 4) :] = -1
    output = onnx_files.run(content, image, mask)
    difference = float(np.abs(output - jax.jit(network.fill)(image, mask)).max())
    if not difference <= TOLERANCE:
        raise errors.UserError(
            f"onnxruntime's output differs from JAX's by {difference:.2g}; needs at most {TOLERANCE}: report it"
        )
    return content, f", onnxruntime differs from JAX by {difference:.1g} at most"


def _require_onnx():
    """Raises a UserError if the libraries for ONNX are missing."""
    missing = [name for name in onnx_files.LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise errors.UserError(
            f"--format=onnx needs {' and '.join(missing)}, which this environment lacks. jax2onnx wants an older "
            "orbax-checkpoint than training does, so give it an environment of its own: python3 -m venv onnx && "
            'onnx/bin/pip install ".[onnx]" && onnx/bin/python -m pconv_jax.tools.export --format=onnx ..'
        )


if __name__ == "__main__":
    command_line.run(main, define_flags)
