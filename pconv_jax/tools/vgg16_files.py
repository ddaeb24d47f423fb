"""The files in which VGG16 comes, and their conversion into the one that `models/vgg.py` loads.

Each origin has names, an axis order and an input convention of its own. The kind of a file is read from its content,
never from its name. Only conv1_1 to conv3_3 are kept, as float32.
"""

import dataclasses
import os
import zipfile

import numpy as np

from pconv_jax import errors
from pconv_jax.models import vgg
from pconv_jax.tools import torch_checkpoint, weight_files

LAYERS = tuple(layer[0] for layer in vgg.LAYERS if layer is not None)
OIHW, HWIO = (2, 3, 1, 0), (0, 1, 2, 3)  # the axes that bring a kernel into HWIO


@dataclasses.dataclass(frozen=True)
class Layout:
    """How an origin writes VGG16.

    Attributes:
      name: of the origin, in messages.
      names: (kernel, bias) of each of LAYERS.
      axes: of a kernel, see OIHW.
      vgg19: a kernel that only the deeper VGG19 has; its other first layers have the same shapes.
      convention: what the network wants to see, the keys of `vgg.CONVENTION`; None where the file says it.
    """

    name: str
    names: tuple[tuple[str, str], ...]
    axes: tuple[int, int, int, int]
    vgg19: str
    convention: dict | None


# The paper's loss weights are for torchvision's features. The original network, which Keras ships too, sees inputs that
# vary 255 * 0.226 times as much (0.226: torchvision's std), and so do its features, of which style takes the square:
# with the paper's weights its loss starts at millions (github.com/MathiasGruber/PConv-Keras, issue 5), torchvision's
# below three.
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
_CLASSIFIER = "classifier.6.bias"  # NaN in torchvision's other weights, see _check_origin


def read(path: str) -> tuple[Layout, dict[str, np.ndarray]]:
    """The layout of a file, and those of its arrays that `convert` looks at.

    Raises:
      UserError: no such file; or it is broken or none of the kinds known here; or the library that
        reads this kind is not installed.
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
    """The arrays of the npz that `vgg.load` reads; `path` is where they came from, for messages.

    Raises:
      UserError: an array is missing, has another shape, or is not finite; or it is another network or convention.
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
    """torchvision has a second VGG16 with the same names, of which only the features are set, and fed otherwise."""
    if not np.isfinite(arrays.get(_CLASSIFIER, 0)).all():
        raise errors.UserError(
            f"{path} has a {_CLASSIFIER} of NaN, so it is torchvision's IMAGENET1K_FEATURES, which is fed otherwise: "
            "give IMAGENET1K_V1 (vgg16-397923af.pth)"
        )


def _take(path, arrays, name, shape):
    array = arrays[name]
    if array.shape != shape:
        raise errors.UserError(f"{name} in {path} has shape {array.shape}; needs {shape}: give VGG16 without changes")
    if array.dtype.kind != "f" or not np.isfinite(array).all():
        raise errors.UserError(
            f"{name} in {path} is {array.dtype} or not finite; needs finite floats: download it again"
        )
    return array.astype(np.float32)


def _wanted(layout):
    return [name for names in layout.names for name in names] + [layout.vgg19, _CLASSIFIER]


def _opened(path, kind, reader, *args):
    try:
        return reader(path, *args)
    except Exception as error:  # each library has errors of its own; they all mean that the file is not what it says
        raise errors.UserError(f"{path} cannot be read as {kind} ({error}): download it again") from error


def _is_torch(path):
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("data.pkl") for name in archive.namelist())


def _read_safetensors(path, layout):
    import safetensors

    with safetensors.safe_open(path, framework="numpy") as file:
        present = set(file.keys())
        return {name: file.get_tensor(name) for name in _wanted(layout) if name in present}


def _read_keras(path, layout):
    """A group per layer; what the arrays in it are called, and how deep they lie, depends on the version of Keras."""
    import h5py

    def arrays_in(group):
        for item in group.values():
            yield from arrays_in(item) if isinstance(item, h5py.Group) else (item[()],)

    with h5py.File(path, "r") as file:
        groups = [name.split("/")[0] for name in _wanted(layout) if "/" in name]
        found = [(group, array) for group in dict.fromkeys(groups) if group in file for array in arrays_in(file[group])]
    return {f"{group}/{'bias' if array.ndim == 1 else 'kernel'}": array for group, array in found}


def _read_npz(path):
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
