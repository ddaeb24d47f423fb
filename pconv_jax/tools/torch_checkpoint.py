"""Reads the tensors of a torch checkpoint (.pth) as NumPy arrays, without torch and without running its code.

A checkpoint is a pickle and raw arrays: in a zip since torch 1.6, and one after another before, as in torchvision's
vgg16-397923af.pth of 2017. Unpickling calls any function that the pickle names. Here it may only name a dictionary and
the functions that rebuild a tensor, which are replaced by functions that record where the tensor lies. Any other name
is refused. The format is that of torch/serialization.py.
"""

import collections
import math
import pickle
import typing
import zipfile
from collections.abc import Callable

import numpy as np

from pconv_jax import errors

LEGACY_START = b"\x80\x02\x8a\x0a" + 0x1950A86A20F9469CFC6C.to_bytes(10, "little")  # The pickle of the magic number.


class _Storage(typing.NamedTuple):
    dtype: str
    key: str
    size: int


class Tensor:
    """The place of a tensor or a Parameter: storage, offset, shape and strides, counted in elements."""

    def __init__(self, data=None, *_):
        self.place = data.place if isinstance(data, Tensor) else data

    def __setstate__(self, state):
        if len(state) == 4:  # a tensor as torch wrote it before _rebuild_tensor
            self.place = state
        elif len(state) == 5:  # An old Parameter; later ones have only the flag of the gradient.
            self.place = state[0].place


def _rebuild(storage, offset, shape, strides, *_):
    return Tensor((storage, offset, shape, strides))


_DTYPES = {"Float": "<f4", "Double": "<f8", "Half": "<f2", "Long": "<i8", "Int": "<i4", "Bool": "|b1", "Byte": "|u1"}
_KNOWN = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _rebuild,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
    ("torch._utils", "_rebuild_parameter"): Tensor,
    ("torch.nn.parameter", "Parameter"): Tensor,
    **{("torch", f"{name}Tensor"): Tensor for name in _DTYPES},
    **{("torch", f"{name}Storage"): dtype for name, dtype in _DTYPES.items()},
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, file):
        super().__init__(file, encoding="utf-8")
        self.storages = {}

    def find_class(self, module, name):
        """Returns the replacement of a name in the pickle, and refuses names that no tensor needs.

        Args:
          module: the module that the pickle names.
          name: the name in it.
        """
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no tensor needs; nothing was run")
        return _KNOWN[module, name]

    def persistent_load(self, saved):
        kind, dtype, key, _, size, *view = saved
        if kind != "storage" or dtype not in _DTYPES.values() or any(part is not None for part in view):
            raise pickle.UnpicklingError(f"unknown storage {saved}")
        return self.storages.setdefault(key, _Storage(dtype, key, size))


def read(path: str, names) -> dict[str, np.ndarray]:
    """Reads tensors of a PyTorch state dict by name; the others are not read from disk.

    Args:
      path: the .pth file.
      names: names of the tensors.

    Returns:
      Those of the tensors that the file holds, by name.

    Raises:
      UserError: the file is broken, is no state dict, or names something else than tensors.
    """

    def choose(tensors):
        if not isinstance(tensors, dict):
            raise ValueError(f"it holds a {type(tensors).__name__} instead of a state dict")
        return {name: tensors[name] for name in names if isinstance(tensors.get(name), Tensor)}

    return select(path, choose)


def select(path: str, choose: Callable[[typing.Any], dict[str, "Tensor"]]) -> dict[str, np.ndarray]:
    """Reads the tensors that a function chooses; the others are not read from disk.

    Args:
      path: the .pth file.
      choose: receives the content of the checkpoint, nested dictionaries, lists and numbers with a `Tensor` in place
        of each tensor, and returns the tensors to read by name. A UserError that it raises is passed on.

    Returns:
      The chosen tensors, by name.

    Raises:
      UserError: the file is broken, or names something else than tensors.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return _read_zip(archive, choose)
        with open(path, "rb") as file:
            return _read_legacy(file, choose)
    except errors.UserError:
        raise
    except Exception as error:  # Damaged or hostile bytes can raise any exception while they are unpickled.
        reason = str(error) or type(error).__name__
        raise errors.UserError(
            f"{path} is no torch state dict of floats ({reason}): download it again, or save model.state_dict()"
        ) from error


def _read_zip(archive, choose):
    (index,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
    root = index.removesuffix("data.pkl")
    if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
        raise ValueError("it is big-endian")
    with archive.open(index) as file:
        tensors = _Unpickler(file).load()
    return _arrays(tensors, choose, lambda storage: archive.read(f"{root}data/{storage.key}"))


def _read_legacy(file, choose):
    _, _, system = (_Unpickler(file).load() for _ in range(3))  # magic number, version, machine
    if not system["little_endian"]:
        raise ValueError("it is big-endian")
    unpickler = _Unpickler(file)
    tensors = unpickler.load()
    starts = {}
    for key in _Unpickler(file).load():  # each storage: its size in 8 bytes, then its elements
        starts[key] = file.tell() + 8
        storage = unpickler.storages[key]
        file.seek(starts[key] + storage.size * np.dtype(storage.dtype).itemsize)

    def raw(storage):
        file.seek(starts[storage.key])
        return file.read(storage.size * np.dtype(storage.dtype).itemsize)

    return _arrays(tensors, choose, raw)


def _arrays(tensors, choose, raw):
    return {name: _array(*tensor.place, raw) for name, tensor in choose(tensors).items()}


def _array(storage, offset, shape, strides, raw):
    flat = np.frombuffer(raw(storage), storage.dtype)
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    inside = min(offset, *shape, *strides, 0) == 0 and last < flat.size and math.prod(shape) <= flat.size
    if flat.size != storage.size or not inside:  # strides that leave the storage would read foreign memory
        raise ValueError(f"a tensor of shape {shape} does not fit its {flat.size} of {storage.size} elements")
    return np.lib.stride_tricks.as_strided(flat[offset:], shape, [s * flat.itemsize for s in strides]).copy()
