"""Converts the weights of LPIPS (an ImageNet network and linear layers) into one npz, for evaluate --lpips_weights.

    python -m pconv_jax.tools.prepare_lpips --out=lpips.npz                    # AlexNet, which papers report
    python -m pconv_jax.tools.prepare_lpips --out=lpips.npz --network=vgg
    python -m pconv_jax.tools.prepare_lpips --out=lpips.npz --backbone=alexnet-owt-7be5be79.pth --linear=alex.pth

Files that are not given are downloaded. The backbone is torchvision's AlexNet or VGG16, as .pth or safetensors. The
linear layers are those of version 0.1, alex.pth or vgg.pth; --linear also takes the wheel that
`pip download --no-deps lpips==0.1.4` fetches, which contains them.
"""

import hashlib
import os
import tempfile
import zipfile

import numpy as np
from absl import flags

from pconv_jax import command_line, errors
from pconv_jax.models import lpips
from pconv_jax.tools import download, weight_files

_TOOL = "python -m pconv_jax.tools.prepare_lpips"
_TORCH = "https://download.pytorch.org/models"
_LINEAR = "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1"
SOURCES = {  # The published files, by network and flag.
    "alex": {
        "--backbone": download.Published(f"{_TORCH}/alexnet-owt-7be5be79.pth", 244.4, "sha256:7be5be79"),
        "--linear": download.Published(
            f"{_LINEAR}/alex.pth", 0.01, "sha256:df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0"
        ),
    },
    "vgg": {
        "--backbone": download.Published(f"{_TORCH}/vgg16-397923af.pth", 553.4, "sha256:397923af"),
        "--linear": download.Published(
            f"{_LINEAR}/vgg.pth", 0.01, "sha256:a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868"
        ),
    },
}
# The layers of version 0.0 have the same names and shapes, and were fitted without the scaling of the input.
_OLD = (
    "18720f55913d0af89042f13faa7e536a6ce1444a0914e6db9461355ece1e8cd5",
    "b9e4236260c3dd988fc79d2a48d645d885afcbb21f9fd595e6744cf7419b582c",
)
# The indices i of the layers in torchvision's names, features.<i>.
_PLACES = {"alex": (0, 3, 6, 8, 10), "vgg": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)}
_LAST = "classifier.6.bias"  # It is NaN in torchvision's IMAGENET1K_FEATURES, which is refused.


def prepare(out, *, network="alex", backbone=None, linear=None, overwrite=False, sources=SOURCES):
    """Downloads LPIPS's weights unless they are given, and converts them.

    Args:
      out: npz to write.
      network: "alex" or "vgg".
      backbone: torchvision's weights on this machine; None downloads them.
      linear: alex.pth, vgg.pth or the wheel of lpips on this machine; None downloads them.
      overwrite: whether an existing `out` is replaced.
      sources: published files by network and flag.

    Returns:
      A sentence that describes what was written.

    Raises:
      UserError: a file is missing, is not what it should be, or cannot be downloaded. Nothing is left behind.
      OSError: `out` cannot be written.
    """
    weight_files.check_absent(out, overwrite=overwrite)
    files = {"--backbone": backbone, "--linear": linear}
    with tempfile.TemporaryDirectory(prefix=".lpips_", dir=os.path.dirname(os.path.abspath(out))) as folder:
        missing = {flag: sources[network][flag] for flag, path in files.items() if path is None}
        paths = {flag: path for flag, path in files.items() if path is not None}
        read = {flag: _READERS[flag](path, network, folder) for flag, path in paths.items()}  # before a download
        try:
            for flag, file in sorted(missing.items(), reverse=True):  # the small one first
                paths[flag] = download.get(file, folder)
                read[flag] = _READERS[flag](paths[flag], network, folder)
        except download.Unreachable as error:
            options = [f"--network={network}", *(f"{flag}={path}" for flag, path in files.items() if path is not None)]
            raise weight_files.by_hand(missing, out, " ".join([_TOOL, *options]), error) from error
        arrays = {"network": np.asarray(network), **read["--backbone"], **read["--linear"]}
        weight_files.write(out, arrays, lpips.load, overwrite=overwrite)
    names = " and ".join(os.path.basename(paths[flag]) for flag in sorted(paths))
    return f"{out}: LPIPS 0.1 with {network} from {names}. Use it with evaluate --lpips_weights={out}"


def _backbone(path, network, _):
    """Reads the backbone, and returns kernels (HWIO) and biases by the names of `lpips.NETWORKS`."""
    weight_files.check_name(path)
    what = "torchvision's AlexNet" if network == "alex" else "torchvision's VGG16, without batch norm"
    wanted = {name: shape for name, shape in lpips.expected(network).items() if "/" in name}
    layers = dict.fromkeys(name.split("/")[0] for name in wanted)
    places = {layer: f"features.{i}" for layer, i in zip(sorted(layers), _PLACES[network], strict=True)}
    names = [f"{place}.{part}" for place in places.values() for part in ("weight", "bias")]
    tensors = weight_files.tensors(path, [*names, _LAST])
    if not np.isfinite(tensors.get(_LAST, np.zeros(1))).all():
        raise errors.UserError(
            f"{path} has a {_LAST} of NaN, so it is torchvision's IMAGENET1K_FEATURES: give IMAGENET1K_V1"
        )
    arrays = {}
    for layer, place in places.items():
        height, width, inputs, outputs = wanted[f"{layer}/kernel"]
        kernel = weight_files.take(tensors, path, f"{place}.weight", (outputs, inputs, height, width), what)
        arrays[f"{layer}/kernel"] = np.ascontiguousarray(kernel.transpose(2, 3, 1, 0), np.float32)
        bias = weight_files.take(tensors, path, f"{place}.bias", (outputs,), what)
        arrays[f"{layer}/bias"] = bias.astype(np.float32)
    return arrays


def _linear(path, network, folder):
    """Reads the five vectors of channel weights from a .pth or from the wheel of `lpips`."""
    what = f"{network}.pth of LPIPS 0.1, or the wheel of lpips 0.1.4"
    file = _from_wheel(path, network, folder)
    names = [f"lin{i}.model.1.weight" for i in range(len(lpips.TAPS[network]))]
    tensors = weight_files.tensors(file, names)
    with open(file, "rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() in _OLD:
            raise errors.UserError(f"{path} is of LPIPS 0.0, fitted to inputs that were not scaled: give {what}")
    shapes = [(1, channels, 1, 1) for channels in lpips.TAPS[network]]
    taken = [weight_files.take(tensors, path, name, shape, what) for name, shape in zip(names, shapes, strict=True)]
    return {f"linear{i}": array.reshape(-1).astype(np.float32) for i, array in enumerate(taken)}


def _from_wheel(path, network, folder):
    """Returns the path of the .pth: `path` itself, or the file extracted from a wheel into `folder`."""
    if not zipfile.is_zipfile(path):
        return path
    with zipfile.ZipFile(path) as archive:
        member = f"lpips/weights/v0.1/{network}.pth"
        if member not in archive.namelist():
            return path
        return archive.extract(member, folder)


_READERS = {"--backbone": _backbone, "--linear": _linear}


def define_flags(flag_values: flags.FlagValues):
    """Adds the flags of `python -m pconv_jax.tools.prepare_lpips`."""
    flags.DEFINE_string("out", None, "Npz to write.", flag_values, required=True)
    flags.DEFINE_enum("network", "alex", list(SOURCES), "Which features.", flag_values)
    flags.DEFINE_string("backbone", None, "torchvision's weights on this machine, instead of a download.", flag_values)
    flags.DEFINE_string("linear", None, "alex.pth, vgg.pth or the wheel of lpips on this machine.", flag_values)
    flags.DEFINE_bool("overwrite", False, "Replace --out if it exists.", flag_values)


def main(flag_values: flags.FlagValues):
    """Prepares the weights, and prints what was written."""
    files = {"backbone": flag_values.backbone, "linear": flag_values.linear}
    print(prepare(flag_values.out, network=flag_values.network, overwrite=flag_values.overwrite, **files))


if __name__ == "__main__":
    command_line.run(main, define_flags)
