"""Lets TFDS prepare image datasets where TensorFlow is not installed (github.com/tensorflow/datasets/issues/11058).

TFDS writes array_record files itself. It needs TensorFlow only to open archives, to list files and to encode the images
of datasets that come as arrays. This module does these three with the standard library and OpenCV.
"""

import contextlib
import glob
import importlib.util
import io
import os
import re
import shutil
import sys
import types

import cv2
import numpy as np


@contextlib.contextmanager
def stand_in():
    """Replaces TFDS's calls of TensorFlow within the block. It changes nothing if TensorFlow is installed."""
    if importlib.util.find_spec("tensorflow"):
        yield
        return
    from tensorflow_datasets.core import utils
    from tensorflow_datasets.core.download import extractor
    from tensorflow_datasets.core.features import image_feature

    with contextlib.ExitStack() as stack:
        tensorflow = _TensorFlow(
            io=types.SimpleNamespace(gfile=_gfile(stack)), compat=types.SimpleNamespace(as_text=os.fsdecode)
        )
        # The modules of the dataset, which its builder has imported. Of TFDS's core only the extractor is patched:
        # other modules need more of TensorFlow than is replaced here.
        datasets = [m for n, m in sys.modules.items() if re.match(r"tensorflow_datasets\.(?!core\b)", n)]
        for module in [extractor, *datasets]:
            if "tf" in vars(module):
                _replace(stack, module, "tf", tensorflow)
        for name in ("jpeg_cmyk_to_rgb", "png_to_jpeg"):  # ImageNet has 23 such images.
            _replace(stack, utils, name, _as_jpeg)
        _replace(stack, image_feature._ImageEncoder, "_encode_image", _encode)
        yield


class _TensorFlow(types.SimpleNamespace):
    """The replaced parts of TensorFlow. Any other part raises an error that names it and the missing package."""

    def __getattr__(self, name):
        raise ModuleNotFoundError(f"no tf.{name} without TensorFlow", name="tensorflow")


class _Reader(io.BufferedReader):
    """A reader that stays open after `with`: celeb_a reads members of its archive after the iteration over them."""

    def __exit__(self, *_):
        pass


def _gfile(stack):
    """Returns a replacement of `tf.io.gfile` for local files. Files opened for reading are closed with the stack."""

    def open_file(path, mode="r"):
        if mode == "rb":
            return stack.enter_context(contextlib.closing(_Reader(io.FileIO(path))))
        return open(path, mode, encoding=None if "b" in mode else "utf-8")

    return types.SimpleNamespace(
        GFile=open_file,
        copy=lambda source, target, overwrite=False: shutil.copyfile(source, target),
        exists=os.path.exists,
        glob=glob.glob,
        isdir=os.path.isdir,
        listdir=os.listdir,
        makedirs=lambda path: os.makedirs(path, exist_ok=True),
        walk=os.walk,
    )


def _replace(stack, owner, name, value):
    """Sets an attribute until the stack is closed."""
    stack.callback(setattr, owner, name, getattr(owner, name))
    setattr(owner, name, value)


def _as_jpeg(encoded, quality=100):
    """Converts an encoded image of any kind into an RGB JPEG."""
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def _encode(encoder, image):
    """Encodes an array `[H, W, C]` of a dataset as PNG or JPEG, whichever the dataset asks for."""
    if image.ndim != 3 or image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"image is {image.dtype} of shape {image.shape}; needs uint8 or uint16, [H, W, C]")
    swap = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}.get(image.shape[-1])
    image = image if swap is None else cv2.cvtColor(image, swap)
    return cv2.imencode(f".{encoder.encoding_format}", image)[1].tobytes()
