"""Writes one random VGG16 in the file formats of every origin that the tool reads."""

import collections
import dataclasses
import functools
import io
import pickle
import sys
import types
import zipfile

import h5py
import numpy as np
import pytest
import safetensors.numpy

from pconv_jax.models import vgg

LAYERS = dict(filter(None, vgg.LAYERS))
FEATURES = dict(zip(LAYERS, (0, 2, 5, 7, 10, 12, 14), strict=True))
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
SPREAD = 255 * 0.226  # of the input of Caffe's network, in that of torchvision's
CAFFE_MEAN = np.array([103.939, 116.779, 123.68])
OWN_RGB = {"order": "RGB", "scale": 1.0, "mean": MEAN, "std": STD}


@functools.cache
def network():
    """Returns random kernels (HWIO) and biases by layer, for RGB in [0, 1] with torchvision's mean and std.

    conv1_1 reads one pixel, so that its padding, which each convention fills with another colour, makes no difference.
    """
    rng, layers, inputs = np.random.default_rng(0), {}, 3
    for name, outputs in LAYERS.items():
        kernel = rng.normal(0, np.sqrt(2 / (9 * inputs)), (3, 3, inputs, outputs)).astype(np.float32)
        layers[name] = kernel, rng.normal(0, 0.1, outputs).astype(np.float32)
        inputs = outputs
    middle = np.zeros((3, 3, 1, 1), np.float32)
    middle[1, 1] = 3
    return layers | {"conv1_1": (layers["conv1_1"][0] * middle, layers["conv1_1"][1])}


def caffe_network():
    """Returns the same network for BGR in [0, 255] minus a mean, with features that are larger by `SPREAD`.

    Without biases, features grow with the input; with them, when the biases do.
    """
    kernel, bias = network()["conv1_1"]
    kernel = kernel / (255 * STD)[:, None] * SPREAD
    bias = bias * SPREAD + (kernel * (CAFFE_MEAN[::-1] - 255 * MEAN)[:, None]).sum((0, 1, 2))
    deeper = {name: (kernel, bias * np.float32(SPREAD)) for name, (kernel, bias) in network().items()}
    return deeper | {"conv1_1": (kernel[:, :, ::-1].astype(np.float32), bias.astype(np.float32))}


def torchvision(change=()):
    """Returns arrays with torchvision's names, including layers that are not needed.

    Args:
      change: `{name: array}` to replace or add; None removes an array.
    """
    state = {"features.17.weight": np.ones((2, 2, 3, 3), np.float32), "classifier.6.bias": np.ones(4, np.float32)}
    for name, (kernel, bias) in network().items():
        state[f"features.{FEATURES[name]}.weight"] = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
        state[f"features.{FEATURES[name]}.bias"] = bias
    state |= dict(change)
    return {name: array for name, array in state.items() if array is not None}


def write_safetensors(path, change=()):
    safetensors.numpy.save_file(torchvision(change), path)


def write_keras(path, change=(), nested=False):
    """Writes an HDF5 file as Keras 1 did for the published one.

    Args:
      path: path of the file.
      change: `{layer: (kernel, bias)}` to replace.
      nested: write the groups one level deeper, as later versions of Keras do.
    """
    with h5py.File(path, "w") as file:
        file.create_group("block1_pool")
        file["block4_conv1/block4_conv1_W_1:0"] = np.ones((3, 3, 2, 2), np.float32)
        for name, arrays in (caffe_network() | dict(change)).items():
            group = f"block{name[4]}_conv{name[6]}"
            for array, kind in zip(arrays, ("kernel:0", "bias:0") if nested else ("W_1:0", "b_1:0"), strict=True):
                file[f"{group}/{group}/{kind}" if nested else f"{group}/{group}_{kind}"] = array


def write_caffe(path):
    arrays = {"conv4_1.bias": np.ones(2)}
    for name, (kernel, bias) in caffe_network().items():
        arrays[f"{name}.weight_oihw{'_bgr' if name == 'conv1_1' else ''}"] = kernel.transpose(3, 2, 0, 1)
        arrays[f"{name}.bias"] = bias
    np.savez(path, **arrays)


def write_own(path, layers=None, **convention):
    arrays = {f"{name}/kernel": kernel for name, (kernel, _) in (layers or network()).items()}
    arrays |= {f"{name}/bias": bias for name, (_, bias) in (layers or network()).items()}
    np.savez(path, conv4_1=np.ones(2), **arrays, **(convention or OWN_RGB))


def write_own_bgr(path):
    write_own(path, caffe_network(), order="BGR", scale=255.0, mean=CAFFE_MEAN, std=np.ones(3), gain=1 / SPREAD)


class _Call:
    """An object that is pickled as a call of `function`, whose result then gets `state`."""

    def __init__(self, function, arguments, *state):
        self.reduced = (function, arguments, *state)

    def __reduce__(self):
        return self.reduced


@dataclasses.dataclass
class _Storage:
    key: str
    array: np.ndarray


def _fake_torch():
    """Returns modules with the names that torch's pickles refer to."""
    modules = {name: types.ModuleType(name) for name in ("torch", "torch._utils", "torch.nn.parameter")}
    for module, name in [
        ("torch", "FloatStorage"),
        ("torch", "LongStorage"),
        ("torch", "FloatTensor"),
        ("torch._utils", "_rebuild_tensor"),
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torch.nn.parameter", "Parameter"),
    ]:
        setattr(modules[module], name, type(name, (), {"__module__": module}))
    return modules


def _tensor(torch, storage, style):
    """Returns a tensor in the way torch pickles it: "v2" today, "parameter" in 2017, "oldest" before."""
    array = storage.array
    place = (storage, 0, array.shape, tuple(stride // array.itemsize for stride in array.strides))
    if style == "oldest":
        return _Call(torch["torch"].FloatTensor, (), place)
    if style == "parameter":
        inner = _Call(torch["torch._utils"]._rebuild_tensor, place)
        return _Call(torch["torch.nn.parameter"].Parameter, (inner,), (True, False, None))
    return _Call(torch["torch._utils"]._rebuild_tensor_v2, (*place, False, collections.OrderedDict()))


def write_torch(path, change=(), *, legacy=False, style="v2", surplus=()):
    """Writes a state dict as torch.save does.

    Args:
      path: path of the file.
      change: see `torchvision`.
      legacy: write a stream of pickles as before torch 1.6, in place of a zip file.
      style: see `_tensor`.
      surplus: other entries of the state dict.
    """
    content = collections.OrderedDict(torchvision(change)) | collections.OrderedDict(surplus)
    write_checkpoint(path, content, legacy=legacy, style=style)


def write_checkpoint(path, content, *, legacy=False, style="v2"):
    """Writes nested dictionaries and lists with arrays in place of tensors, as torch.save does.

    Args:
      path: path of the file.
      content: what is saved.
      legacy, style: see `write_torch`.
    """
    torch, pickled, storages = _fake_torch(), io.BytesIO(), []

    def with_tensors(value):
        if isinstance(value, np.ndarray):
            storages.append(_Storage(str(len(storages)), value))
            return _tensor(torch, storages[-1], style)
        if isinstance(value, dict):
            return type(value)((key, with_tensors(item)) for key, item in value.items())
        return [with_tensors(item) for item in value] if isinstance(value, list) else value

    class Pickler(pickle.Pickler):
        def persistent_id(self, item):
            if isinstance(item, _Storage):
                name = "LongStorage" if item.array.dtype.kind == "i" else "FloatStorage"
                kind = ("storage", getattr(torch["torch"], name), item.key, "cpu", item.array.size)
                return (*kind, None) if legacy else kind
            return None

    with pytest.MonkeyPatch.context() as patch:
        for name, module in torch.items():
            patch.setitem(sys.modules, name, module)
        Pickler(pickled, protocol=2).dump(with_tensors(content))
    if not legacy:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("vgg16/data.pkl", pickled.getvalue())
            archive.writestr("vgg16/byteorder", "little")
            for storage in storages:
                archive.writestr(f"vgg16/data/{storage.key}", storage.array.tobytes())
        return
    head = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}]
    with open(path, "wb") as file:
        file.write(b"".join(pickle.dumps(part, protocol=2) for part in head) + pickled.getvalue())
        pickle.dump([storage.key for storage in storages], file, protocol=2)
        for storage in storages:
            file.write(storage.array.size.to_bytes(8, "little") + storage.array.tobytes())
