"""InceptionV3 as the Frechet inception distance uses it: the network of TensorFlow's inception-2015-12-05.

It differs from Szegedy et al. (CVPR 2016) in two points, which pytorch-fid describes: average pooling ignores positions
outside the image, and the last block pools by the maximum. Layers have pytorch-fid's names. Batch normalisation by
recorded statistics is folded into kernel and bias by the tool that makes the weights file.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from pconv_jax.models import npz_weights

SIDE, FEATURES = 299, 2048
TOOL = "python -m pconv_jax.tools.prepare_inception --out=inception.npz"


def _conv(x, name, channels, *window, stride=1, padding="SAME"):
    """Adds a convolution with ReLU to the current module; `window` is one kernel size for both sides, or one each."""
    window = window if len(window) == 2 else window * 2
    return nn.relu(nn.Conv(channels, window, stride, padding, name=name)(x))


def _tower(x, *layers):
    """Applies convolutions one after another, each given as `(name, channels, *window)`."""
    for layer in layers:
        x = _conv(x, *layer)
    return x


def _average(x):
    return nn.avg_pool(x, (3, 3), strides=(1, 1), padding="SAME", count_include_pad=False)


def _maximum(x, stride, padding):
    return nn.max_pool(x, (3, 3), strides=(stride, stride), padding=padding)


def _join(*branches):
    return jnp.concatenate(branches, axis=-1)


class BlockA(nn.Module):
    """The block at 35x35; `pool` is the number of channels of its pooling branch."""

    pool: int

    @nn.compact
    def __call__(self, x):
        return _join(
            _conv(x, "branch1x1", 64, 1),
            _tower(x, ("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)),
            _tower(x, ("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)),
            _conv(_average(x), "branch_pool", self.pool, 1),
        )


class BlockB(nn.Module):
    """The block that downsamples 35x35 to 17x17."""

    @nn.compact
    def __call__(self, x):
        double = _tower(x, ("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3))
        return _join(
            _conv(x, "branch3x3", 384, 3, stride=2, padding="VALID"),
            _conv(double, "branch3x3dbl_3", 96, 3, stride=2, padding="VALID"),
            _maximum(x, 2, "VALID"),
        )


class BlockC(nn.Module):
    """The block at 17x17; `width` is the number of channels inside the factorised 7x7 convolutions."""

    width: int

    @nn.compact
    def __call__(self, x):
        c, double = self.width, "branch7x7dbl_"
        return _join(
            _conv(x, "branch1x1", 192, 1),
            _tower(x, ("branch7x7_1", c, 1), ("branch7x7_2", c, 1, 7), ("branch7x7_3", 192, 7, 1)),
            _tower(
                x,
                (double + "1", c, 1),
                (double + "2", c, 7, 1),
                (double + "3", c, 1, 7),
                (double + "4", c, 7, 1),
                (double + "5", 192, 1, 7),
            ),
            _conv(_average(x), "branch_pool", 192, 1),
        )


class BlockD(nn.Module):
    """The block that downsamples 17x17 to 8x8."""

    @nn.compact
    def __call__(self, x):
        single = _conv(x, "branch3x3_1", 192, 1)
        seven = _tower(x, ("branch7x7x3_1", 192, 1), ("branch7x7x3_2", 192, 1, 7), ("branch7x7x3_3", 192, 7, 1))
        return _join(
            _conv(single, "branch3x3_2", 320, 3, stride=2, padding="VALID"),
            _conv(seven, "branch7x7x3_4", 192, 3, stride=2, padding="VALID"),
            _maximum(x, 2, "VALID"),
        )


class BlockE(nn.Module):
    """The block at 8x8; its pooling branch takes the maximum if `maximum`, else the average."""

    maximum: bool

    @nn.compact
    def __call__(self, x):
        single = _conv(x, "branch3x3_1", 384, 1)
        double = _tower(x, ("branch3x3dbl_1", 448, 1), ("branch3x3dbl_2", 384, 3))
        pooled = _maximum(x, 1, "SAME") if self.maximum else _average(x)
        return _join(
            _conv(x, "branch1x1", 320, 1),
            _conv(single, "branch3x3_2a", 384, 1, 3),
            _conv(single, "branch3x3_2b", 384, 3, 1),
            _conv(double, "branch3x3dbl_3a", 384, 1, 3),
            _conv(double, "branch3x3dbl_3b", 384, 3, 1),
            _conv(pooled, "branch_pool", 192, 1),
        )


def prepared(image):
    """Resizes `[N, H, W, 3]` in [0, 1] to `[N, SIDE, SIDE, 3]` in [-1, 1], bilinear without antialiasing."""
    return 2 * jax.image.resize(image, (image.shape[0], SIDE, SIDE, 3), "bilinear", antialias=False) - 1


class InceptionFeatures(nn.Module):
    """InceptionV3 without its classifier; returns the 2048 features."""

    @nn.compact
    def __call__(self, image):
        """Maps `[N, H, W, 3]` RGB in [0, 1], of any size, to `[N, 2048]`."""
        x = _conv(prepared(image), "Conv2d_1a_3x3", 32, 3, stride=2, padding="VALID")
        x = _conv(x, "Conv2d_2a_3x3", 32, 3, padding="VALID")
        x = _maximum(_conv(x, "Conv2d_2b_3x3", 64, 3), 2, "VALID")
        x = _conv(x, "Conv2d_3b_1x1", 80, 1)
        x = _maximum(_conv(x, "Conv2d_4a_3x3", 192, 3, padding="VALID"), 2, "VALID")
        for name, pool in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
            x = BlockA(pool, name=name)(x)
        x = BlockB(name="Mixed_6a")(x)
        for name, width in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
            x = BlockC(width, name=name)(x)
        x = BlockD(name="Mixed_7a")(x)
        x = BlockE(False, name="Mixed_7b")(x)
        x = BlockE(True, name="Mixed_7c")(x)
        return jnp.mean(x, axis=(1, 2))


def expected() -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the arrays of the weights file by name: `<layer>/kernel` (HWIO), `<layer>/bias`."""
    return npz_weights.shapes(InceptionFeatures(), jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32))


def load(path: str):
    """Reads a weights file.

    Args:
      path: path of an npz with the arrays of `expected`.

    Returns:
      `(module, params)` such that `module.apply({"params": params}, image)` gives the features.

    Raises:
      UserError: the file does not exist, is not an npz, lacks an array, or has one of another shape.
    """
    missing = f"no Inception weights at {path}: run {TOOL}, or leave --fid_weights out"
    arrays = npz_weights.read(path, missing, TOOL)
    return InceptionFeatures(), npz_weights.params(arrays, path, expected())
