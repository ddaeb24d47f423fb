"""Converts InceptionV3's weights for the Frechet inception distance into one npz, for evaluate --fid_weights.

    python -m pconv_jax.tools.prepare_inception --out=inception.npz
    python -m pconv_jax.tools.prepare_inception --out=inception.npz --file=pt_inception-2015-12-05-6726825d.pth

The file is pytorch-fid's conversion of TensorFlow's inception-2015-12-05; published FIDs are of these weights, and
those of torchvision's Inception are not comparable. Batch normalisation is folded into the convolutions.
"""

import os
import tempfile

import numpy as np
from absl import flags

from pconv_jax import command_line, errors
from pconv_jax.models import inception
from pconv_jax.tools import download, weight_files

_TOOL = "python -m pconv_jax.tools.prepare_inception"
_HOME = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights"
SOURCE = download.Published(f"{_HOME}/pt_inception-2015-12-05-6726825d.pth", 95.6, "sha256:6726825d")
EPSILON = 1e-3  # The epsilon of Inception's batch normalisation.

_CLASSES = "fc.bias"  # It has 1008 classes here and 1000 in torchvision's file.
_NORM = ("weight", "bias", "running_mean", "running_var")


def prepare(out, *, file=None, overwrite=False, source=SOURCE):
    """Downloads InceptionV3's weights unless they are given, and converts them.

    Args:
      out: npz to write.
      file: weights on this machine; None downloads them.
      overwrite: whether an existing `out` is replaced.
      source: the published file.

    Returns:
      A sentence that describes what was written.

    Raises:
      UserError: a file is missing, is not what it should be, or cannot be downloaded. Nothing is left behind.
      OSError: `out` cannot be written.
    """
    weight_files.check_absent(out, overwrite=overwrite)
    with tempfile.TemporaryDirectory(prefix=".inception_", dir=os.path.dirname(os.path.abspath(out))) as folder:
        try:
            path = file or download.get(source, folder)
        except download.Unreachable as error:
            raise weight_files.by_hand({"--file": source}, out, _TOOL, error) from error
        weight_files.check_name(path, _HOME)
        weight_files.write(out, _convert(path), inception.load, overwrite=overwrite)
    return (
        f"{out}: InceptionV3 for FID from {os.path.basename(path)}, batch normalisation folded in. Use it with "
        f"evaluate --fid_weights={out}"
    )


def _convert(path):
    """Reads the weights, and returns kernels (HWIO) and biases by the names of `inception.expected`."""
    what = SOURCE.name
    wanted = {name.removesuffix("/kernel"): s for name, s in inception.expected().items() if name.endswith("/kernel")}
    layers = {layer: layer.replace("/", ".") for layer in wanted}
    names = [f"{name}.{part}" for name in layers.values() for part in ("conv.weight", *(f"bn.{p}" for p in _NORM))]
    tensors = weight_files.tensors(path, [*names, _CLASSES])
    if tensors.get(_CLASSES, np.zeros(1008)).shape != (1008,):
        raise errors.UserError(
            f"{path} has {tensors[_CLASSES].size} classes and not 1008, so it is torchvision's Inception, whose "
            f"distances are not comparable with published FID: give {what}"
        )
    arrays = {}
    for layer, name in layers.items():
        height, width, inputs, outputs = wanted[layer]
        kernel = weight_files.take(tensors, path, f"{name}.conv.weight", (outputs, inputs, height, width), what)
        norm = [weight_files.take(tensors, path, f"{name}.bn.{part}", (outputs,), what) for part in _NORM]
        gamma, beta, mean, variance = (part.astype(np.float64) for part in norm)
        if variance.min() < 0:
            raise errors.UserError(f"{name}.bn.running_var in {path} is negative: give {what}")
        scale = gamma / np.sqrt(variance + EPSILON)
        arrays[f"{layer}/kernel"] = np.ascontiguousarray(kernel.transpose(2, 3, 1, 0) * scale, np.float32)
        arrays[f"{layer}/bias"] = (beta - mean * scale).astype(np.float32)
    return arrays


def define_flags(flag_values: flags.FlagValues):
    """Adds the flags of `python -m pconv_jax.tools.prepare_inception`."""
    flags.DEFINE_string("out", None, "Npz to write.", flag_values, required=True)
    flags.DEFINE_string("file", None, "Weights on this machine, instead of a download.", flag_values)
    flags.DEFINE_bool("overwrite", False, "Replace --out if it exists.", flag_values)


def main(flag_values: flags.FlagValues):
    """Prepares the weights, and prints what was written."""
    print(prepare(flag_values.out, file=flag_values.file, overwrite=flag_values.overwrite))


if __name__ == "__main__":
    command_line.run(main, define_flags)
