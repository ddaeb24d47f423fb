"""Converts VGG16's first seven convolutions and their input convention into one npz, for loss.vgg16_weights.

    python -m pconv_jax.tools.prepare_vgg16 --out=vgg16.npz                           # torchvision's, as in the paper
    python -m pconv_jax.tools.prepare_vgg16 --out=vgg16.npz --source=keras            # the original ones of Caffe
    python -m pconv_jax.tools.prepare_vgg16 --out=vgg16.npz --file=vgg16-397923af.pth

A file may be safetensors or a .pth with torchvision's names, Keras' .h5, or an npz, and is recognised by its content.
torchvision's weights stay in the cache of the hub's client (553 MB); Keras' file is removed after the conversion.
"""

import os
import tempfile

from absl import flags

from pconv_jax import command_line, errors
from pconv_jax.models import vgg
from pconv_jax.tools import download, vgg16_files, weight_files

_TIMM = download.HubFile("timm/vgg16.tv_in1k", "3394518cba29aee1ea82a49d971be90d2dd1dab7", "model.safetensors")
SOURCES = {
    "torchvision": download.Published(
        url=f"https://huggingface.co/{_TIMM.repo}/resolve/{_TIMM.revision}/{_TIMM.name}",
        megabytes=553.4,
        checksum="sha256:57b026918159a6bf9faf8405c3a551903768e7138989d9c6224a14227203fad8",
        hub=_TIMM,
    ),
    "keras": download.Published(
        url="https://storage.googleapis.com/tensorflow/keras-applications/vgg16/"
        "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
        megabytes=58.9,
        checksum="md5:6d6bbae143d832006294945121d1f1fc",  # The checksum in Keras' own code.
    ),
}
_READERS = {"torchvision": "safetensors", "keras": "h5py"}  # The package that reads each download.

_TOOL = "python -m pconv_jax.tools.prepare_vgg16"


def prepare(out, *, source=None, file=None, overwrite=False, sources=SOURCES):
    """Downloads VGG16's weights unless they are given, and converts them.

    Args:
      out: npz to write.
      source: "torchvision" or "keras"; by default the origin of `file`, or torchvision.
      file: weights on this machine; None downloads them.
      overwrite: whether an existing `out` is replaced.
      sources: published files by origin.

    Returns:
      A sentence that describes what was written, and the input convention of the network.

    Raises:
      UserError: a file is missing, is not what it should be, or cannot be downloaded. Nothing is left behind.
      OSError: `out` cannot be written.
    """
    weight_files.check_absent(out, overwrite=overwrite)
    if file is not None:
        _check_name(file, sources["keras"])
        return _convert(file, out, source, overwrite)
    source = source or "torchvision"
    weight_files.check_installed(_READERS[source])  # before the download
    folder = os.path.dirname(os.path.abspath(out))
    with tempfile.TemporaryDirectory(prefix=".vgg16_", dir=folder) as temporary:
        try:
            path = download.get(sources[source], temporary)
        except download.Unreachable as error:
            raise weight_files.by_hand({"--file": sources[source]}, out, _TOOL, error) from error
        return _convert(path, out, source, overwrite)


def _convert(path, out, source, overwrite):
    layout, arrays = vgg16_files.read(path)
    if source not in (None, layout.name):
        raise errors.UserError(f"{path} has {layout.name}'s weights, and --source={source}: leave --source out")
    converted = vgg16_files.convert(path, layout, arrays)
    weight_files.write(out, converted, vgg.load, overwrite=overwrite)
    order, scale, mean, std, gain = (converted[key].tolist() for key in vgg.CONVENTION)
    return (
        f"{out}: VGG16 conv1_1 to conv3_3 from {os.path.basename(path)} ({layout.name}), which expects {order} in "
        f"[0, {scale:g}], mean {mean}, std {std}, features times {gain:.4g}. "
        f"Use it with --config.loss.vgg16_weights={out}"
    )


def _check_name(file, keras):
    """Checks a file that has the name of a published one."""
    weight_files.check_name(file)
    if os.path.isfile(file) and os.path.basename(file) == keras.name:
        download.check(file, keras.checksum, f"download it again ({keras.url}), or rename it if you changed it")


def define_flags(flag_values: flags.FlagValues):
    """Adds the flags of `python -m pconv_jax.tools.prepare_vgg16`."""
    flags.DEFINE_string("out", None, "Npz to write.", flag_values, required=True)
    flags.DEFINE_enum(
        "source", None, list(SOURCES), "Origin of the weights; torchvision unless --file is given.", flag_values
    )
    flags.DEFINE_string("file", None, "Weights on this machine, instead of a download.", flag_values)
    flags.DEFINE_bool("overwrite", False, "Replace --out if it exists.", flag_values)


def main(flag_values: flags.FlagValues):
    """Prepares the weights, and prints what was written."""
    options = {"source": flag_values.source, "file": flag_values.file, "overwrite": flag_values.overwrite}
    print(prepare(flag_values.out, **options))


if __name__ == "__main__":
    command_line.run(main, define_flags)
