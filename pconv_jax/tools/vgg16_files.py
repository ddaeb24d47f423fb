"""Reads published VGG16 weights of several origins and converts them into the npz that `models/vgg.py` loads.

Every origin (torchvision, Keras, Caffe) has its own array names, axis order and input convention. The kind of a file is
recognised by its content, not by its name. Only the layers conv1_1 to conv3_3 are kept, as float32.
"""

import dataclasses
import os
import zipfile

import numpy as np

from pconv_jax import errors
from pconv_jax.models import vgg
from pconv_jax.tools import torch_checkpoint, weight_files

LAYERS = tuple(layer[0] for layer in vgg.LAYERS if layer is not None)
OIHW, HWIO = (2, 3, 1, 0), (0, 1, 2, 3)  # The transpositions that bring a kernel of these axes into HWIO.


@dataclasses.dataclass(frozen=True)
class Layout:
    """The names, axes and input convention of the VGG16 weights of one origin.

    Attributes:
      name: name of the origin, for messages.
      names: names of the kernel and the bias of each of `LAYERS`.
      axes: transposition that brings a kernel into HWIO, `OIHW` or `HWIO`.
      vgg19: name of a kernel that only VGG19 has, whose first layers otherwise have the same shapes as VGG16's.
      convention: input convention of the network, by the keys of `vgg.CONVENTION`; None if the file contains it.
    """

    name: str
    names: tuple[tuple[str, str], ...]
    axes: tuple[int, int, int, int]
    vgg19: str
    convention: dict | None


# The paper's loss weights are meant for torchvision's features. The inputs of the original Caffe network, which Keras
# ships too, are 255 * 0.226 times as large (0.226 is torchvision's std), and so are its features. The style terms
# square them. Without this gain, the loss with the paper's weights starts at millions
# (github.com/MathiasGruber/PConv-Keras, issue 5); with torchvision's features it starts below three.
_CAFFE = {
    "order": "BGR",
    "scale": 255.0,
    "mean": (103.939, 116.779, 123.68),
    "std": (1.0, 1.0, 1.0),
    "gain": 1 / (255 * 0.226),
}
_BLOCKS = tuple(f"block{layer[4]}_conv{layer[6]}" for layer in LAYERS)
TORCHVISION = Layout(
    name="torchvision",
    names=tuple((f"features.{i}.weight", f"features.{i}.bias") for i in (0, 2, 5, 7, 10, 12, 14)),
    axes=OIHW,
    vgg19="features.16.weight",
    convention={
        "order": "RGB",
        "scale": 1.0,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "gain": 1.0,
    },
)
KERAS = Layout("keras", tuple((f"{b}/kernel", f"{b}/bias") for b in _BLOCKS), HWIO, "block3_conv4/kernel", _CAFFE)
CAFFE = Layout(
    name="caffe",
    names=tuple((f"{n}.weight_oihw{'_bgr' if n == 'conv1_1' else ''}", f"{n}.bias") for n in LAYERS),
    axes=OIHW,
    vgg19="conv3_4.weight_oihw",
    convention=_CAFFE,
)
OWN = Layout("pconv_jax", tuple((f"{n}/kernel", f"{n}/bias") for n in LAYERS), HWIO, "conv3_4/kernel", None)
_CLASSIFIER = "classifier.6.bias"  # It is NaN in torchvision's IMAGENET1K_FEATURES, which `_check_origin` refuses.


def read(path: str) -> tuple[Layout, dict[str, np.ndarray]]:
    """Recognises a weights file and reads the arrays that `convert` needs.

    Returns:
      The layout of the file, and its arrays by name.

    Raises:
      UserError: the file does not exist, is damaged or of an unknown kind, or the library that reads this kind is not
        installed.
    """
    if not os.path.isfile(path):
        raise errors.UserError(f"no file {path}: give the weights with --file, or leave --file out to download them")
    with open(path, "rb") as file:
        start = file.read(32)
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        weight_files.check_installed("h5py")
        return KERAS, _opened(path, "Keras' HDF5", _read_keras, KERAS)
    if start.startswith(torch_checkpoint.LEGACY_START):
        return TORCHVISION, torch_checkpoint.read(path, _wanted(TORCHVISION))
    if start.startswith(b"PK"):
        if _opened(path, "a zip", _is_torch):
            return TORCHVISION, torch_checkpoint.read(path, _wanted(TORCHVISION))
        return _opened(path, "an npz", _read_npz)
    if start[8:9] == b"{":
        weight_files.check_installed("safetensors")
        return TORCHVISION, _opened(path, "safetensors", _read_safetensors, TORCHVISION)
    raise errors.UserError(
        f"{path} starts with {start!r}; needs VGG16 as safetensors, .pth, Keras' .h5 or .npz: download it again"
    )


def convert(path: str, layout: Layout, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Converts the arrays of a weights file into those of the npz that `vgg.load` reads.

    Args:
      path: path of the file, for messages.
      layout: layout of the file.
      arrays: arrays of the file by name, both as `read` returns them.

    Returns:
      Kernels (HWIO) and biases as float32, and the input convention, by their names in the npz.

    Raises:
      UserError: an array is missing, has another shape or is not finite, or the file holds another network.
    """
    lacking = [name for names in layout.names for name in names if name not in arrays]
    if lacking:
        raise errors.UserError(
            f"{path} lacks {', '.join(lacking)}: give VGG16 with {layout.name}'s names, without batch norm"
        )
    if layout.vgg19 in arrays:
        raise errors.UserError(f"{path} has {layout.vgg19}, so it is VGG19: give VGG16")
    _check_origin(path, arrays)
    out, inputs = {}, 3
    for (layer, outputs), (kernel, bias) in zip(filter(None, vgg.LAYERS), layout.names, strict=True):
        shape = np.empty(4, int)
        shape[list(layout.axes)] = 3, 3, inputs, outputs
        kernel = _take(path, arrays, kernel, tuple(map(int, shape)))
        out[f"{layer}/kernel"] = np.ascontiguousarray(kernel.transpose(layout.axes))
        out[f"{layer}/bias"] = _take(path, arrays, bias, (outputs,))
        inputs = outputs
    convention = layout.convention or {"gain": 1.0, **{key: arrays[key] for key in vgg.CONVENTION if key in arrays}}
    scale, mean, std, gain = (np.asarray(convention[key], np.float64) for key in ("scale", "mean", "std", "gain"))
    if not (scale > 0 and np.isfinite(mean).all() and (std > 0).all() and 0 < gain < np.inf):
        raise errors.UserError(
            f"{path} has scale {scale}, mean {mean}, std {std}, gain {gain}; needs positive, finite, positive, positive"
        )
    return out | {key: np.asarray(value) for key, value in convention.items()}


def _check_origin(path, arrays):
    """Refuses torchvision's IMAGENET1K_FEATURES: a VGG16 with the same names, but with another input convention."""
    if not np.isfinite(arrays.get(_CLASSIFIER, 0)).all():
        raise errors.UserError(
            f"{path} has a {_CLASSIFIER} of NaN, so it is torchvision's IMAGENET1K_FEATURES, which expects other "
            "inputs: give IMAGENET1K_V1 (vgg16-397923af.pth)"
        )


def _take(path, arrays, name, shape):
    """Returns one array as float32 after checking its shape and values."""
    array = arrays[name]
    if array.shape != shape:
        raise errors.UserError(f"{name} in {path} has shape {array.shape}; needs {shape}: give VGG16 without changes")
    if array.dtype.kind != "f" or not np.isfinite(array).all():
        raise errors.UserError(
            f"{name} in {path} is {array.dtype} or not finite; needs finite floats: download it again"
        )
    return array.astype(np.float32)


def _wanted(layout):
    """Returns the names of the arrays that `convert` reads from a file of this layout."""
    return [name for names in layout.names for name in names] + [layout.vgg19, _CLASSIFIER]


def _opened(path, kind, reader, *args):
    """Calls `reader(path, *args)` and turns each of its errors into a UserError."""
    try:
        return reader(path, *args)
    except (
        Exception
    ) as error:  # Each library has its own errors; all of them mean that the file is damaged or of another kind.
        raise errors.UserError(f"{path} cannot be read as {kind} ({error}): download it again") from error


def _is_torch(path):
    """Returns whether a zip file is a PyTorch checkpoint."""
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("data.pkl") for name in archive.namelist())


def _read_safetensors(path, layout):
    import safetensors

    with safetensors.safe_open(path, framework="numpy") as file:
        present = set(file.keys())
        return {name: file.get_tensor(name) for name in _wanted(layout) if name in present}


def _read_keras(path, layout):
    """Reads Keras' HDF5: a group per layer, in which the names and depth of the arrays depend on Keras' version."""
    import h5py

    def arrays_in(group):
        for item in group.values():
            yield from arrays_in(item) if isinstance(item, h5py.Group) else (item[()],)

    with h5py.File(path, "r") as file:
        groups = [name.split("/")[0] for name in _wanted(layout) if "/" in name]
        pairs = [(group, array) for group in dict.fromkeys(groups) if group in file for array in arrays_in(file[group])]
    return {f"{group}/{'bias' if array.ndim == 1 else 'kernel'}": array for group, array in pairs}


def _read_npz(path):
    """Reads an npz of this package or of Caffe's weights, and returns its layout and arrays."""
    with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
        for layout in (OWN, CAFFE):
            if layout.names[0][0] in file.files:
                break
        else:
            raise errors.UserError(
                f"it has {', '.join(file.files) or 'nothing'}; needs {OWN.names[0][0]} and the others"
            )
        arrays = {name: file[name] for name in file.files}
    if layout is OWN:
        vgg.load(path)
    return layout, arrays
