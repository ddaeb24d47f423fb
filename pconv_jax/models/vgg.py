"""VGG16 through its third pooling layer (Simonyan and Zisserman 2015), the features of the perceptual and style terms.

The weights come from a file; none ship with the project. The file says how it wants to be fed, because the two common
sets of weights differ: torchvision's takes RGB in [0, 1] with mean and std, Keras' takes BGR in [0, 255] minus a mean.
Feeding one with the scale of the other changes the loss by orders of magnitude, and so do features on another scale.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from pconv_jax import errors
from pconv_jax.models import npz_weights
from pconv_jax.ops.cpu import dispatch

# (layer, output channels); None is a 2 x 2 max-pooling after which features are taken.
LAYERS = (
    ("conv1_1", 64),
    ("conv1_2", 64),
    None,
    ("conv2_1", 128),
    ("conv2_2", 128),
    None,
    ("conv3_1", 256),
    ("conv3_2", 256),
    ("conv3_3", 256),
    None,
)
CONVENTION = ("order", "scale", "mean", "std", "gain")
_TOOL = "python -m pconv_jax.tools.prepare_vgg16"


class VGG16Features(nn.Module):
    """Features after pool1, pool2 and pool3.

    Attributes:
      order: "RGB" or "BGR", the channel order of the weights.
      scale: the value of white, 1 or 255.
      mean, std: per channel, in `order` and on `scale`: the network sees `(scale * image - mean) / std`.
      gain: factor of the features, which brings them to the scale that the weights of the losses are for.
      dtype: of the computation.
      conv_impl: how convolutions are computed, of `dispatch.IMPLS`; all are equal up to rounding.
    """

    order: str
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    gain: float = 1.0
    dtype: jnp.dtype = jnp.float32
    conv_impl: str = "auto"

    @nn.compact
    def __call__(self, image):
        """`[N, H, W, 3]` RGB in [0, 1] -> three feature maps of 64, 128 and 256 channels, at 1/2, 1/4, 1/8 the size."""
        x = image[..., ::-1] if self.order == "BGR" else image
        x = (x * self.scale - jnp.asarray(self.mean, x.dtype)) / jnp.asarray(self.std, x.dtype)
        x = x.astype(self.dtype)
        features = []

        def convolve(x, kernel, *_, **__):  # of strides, padding and the rest nn.Conv has but what LAYERS needs
            return dispatch.ordinary_conv(x, kernel, 1, self.conv_impl)

        for layer in LAYERS:
            if layer is None:
                x = max_pool(x)
                features.append(x * jnp.asarray(self.gain, x.dtype))
            else:
                name, channels = layer
                x = nn.relu(nn.Conv(channels, (3, 3), dtype=self.dtype, conv_general_dilated=convolve, name=name)(x))
        return features


def max_pool(x):
    """`[N, H, W, C] -> [N, H // 2, W // 2, C]`, as `flax.linen.max_pool` over 2 x 2 with stride 2, gradient included.

    By selection: the gradient of a window reduction is a scatter, with which XLA on a CPU takes ten times as long. Of
    equal values the first gets the gradient.
    """
    n, height, width, channels = x.shape
    windows = x[:, : height // 2 * 2, : width // 2 * 2].reshape(n, height // 2, 2, width // 2, 2, channels)
    upper, lower = (_larger(windows[:, :, i, :, 0], windows[:, :, i, :, 1]) for i in (0, 1))
    return _larger(upper, lower)


def _larger(first, second):
    return jnp.where(first >= second, first, second)


def load(path, dtype=jnp.float32, impl="auto"):
    """Reads an npz of `<layer>/kernel` (HWIO), `<layer>/bias`, `order`, `scale`, `mean`, `std`, and `gain` (or 1).

    Returns:
      `(module, params)` such that `module.apply({"params": params}, image)` gives the features.

    Raises:
      UserError: no such file; or it is no npz, lacks an array or holds one of another shape.
    """
    missing = f"no VGG16 weights at {path}: run {_TOOL} --out={path}, or set loss.vgg16_weights to an empty string"
    arrays = npz_weights.read(path, missing, f"{_TOOL} --out=vgg16.npz --file={path}")
    params, inputs = {}, 3
    for name, outputs in (layer for layer in LAYERS if layer is not None):
        params[name] = {
            "kernel": npz_weights.take(arrays, path, f"{name}/kernel", (3, 3, inputs, outputs)),
            "bias": npz_weights.take(arrays, path, f"{name}/bias", (outputs,)),
        }
        inputs = outputs
    convention = {
        "order": str(npz_weights.take(arrays, path, "order", ())),
        "scale": float(npz_weights.take(arrays, path, "scale", ())),
        "mean": tuple(map(float, npz_weights.take(arrays, path, "mean", (3,)))),
        "std": tuple(map(float, npz_weights.take(arrays, path, "std", (3,)))),
        "gain": float(npz_weights.take({"gain": np.float32(1), **arrays}, path, "gain", ())),
    }
    if convention["order"] not in ("RGB", "BGR"):
        raise errors.UserError(f'{path} has order "{convention["order"]}"; needs "RGB" or "BGR"')
    return VGG16Features(**convention, dtype=dtype, conv_impl=impl), params
