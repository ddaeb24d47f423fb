"""VGG16 through its third pooling layer (Simonyan and Zisserman 2015), the features of the perceptual and style terms.

The weights come from a file; none ship with the project. The file also holds the normalisation of the input, because
the two common sets of weights differ: torchvision's takes RGB in [0, 1] with mean and std, Keras' takes BGR in
[0, 255] minus a mean. The wrong normalisation, or features on another scale, change the loss by orders of magnitude.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pconv_jax import errors
from pconv_jax.models import npz_weights
from pconv_jax.ops.cpu import dispatch

# Rows: (layer, output channels), or None for a 2x2 max-pooling whose output is a feature map.
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
    """VGG16 through its third pooling; returns the features after pool1, pool2 and pool3.

    Attributes:
      order: "RGB" or "BGR", the channel order of the weights.
      scale: the value of white, 1 or 255.
      mean: per channel, in `order` and on `scale`; the input is normalised to `(scale * image - mean) / std`.
      std: per channel, in `order` and on `scale`.
      gain: factor that brings the features to the scale for which the loss weights are meant.
      dtype: dtype of the computation.
      conv_impl: implementation of the convolutions, one of `dispatch.IMPLS`; all are equal up to rounding.
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
        """Maps `[N, H, W, 3]` RGB in [0, 1] to feature maps of 64, 128, 256 channels at 1/2, 1/4, 1/8 the size."""
        x = image[..., ::-1] if self.order == "BGR" else image
        x = (x * self.scale - jnp.asarray(self.mean, x.dtype)) / jnp.asarray(self.std, x.dtype)
        x = x.astype(self.dtype)
        features = []

        def convolve(x, kernel, *_, **__):  # The other arguments of nn.Conv have their defaults.
            return dispatch.frozen_conv(x, kernel, self.conv_impl)

        for layer in LAYERS:
            if layer is None:
                x = max_pool(x)
                features.append(x * jnp.asarray(self.gain, x.dtype))
            else:
                name, channels = layer
                x = nn.relu(nn.Conv(channels, (3, 3), dtype=self.dtype, conv_general_dilated=convolve, name=name)(x))
        return features


@jax.custom_vjp
def max_pool(x):
    """Pools `[N, H, W, C]` to `[N, H // 2, W // 2, C]` as `flax.linen.max_pool` over 2x2, gradient included.

    It compares and selects: the gradient of a window reduction is a scatter, which takes XLA on a CPU ten times as
    long. The first of equal values gets the gradient.
    """
    return _pool(x)[0]


def _pool(x):
    """Returns the maxima, and which value of each window is the maximum: in which row, and in which column per row."""
    n, height, width, channels = x.shape
    windows = x[:, : height // 2 * 2, : width // 2 * 2].reshape(n, height // 2, 2, width // 2, 2, channels)
    (a, b), (c, d) = ((windows[:, :, i, :, 0], windows[:, :, i, :, 1]) for i in (0, 1))
    upper, lower = jnp.maximum(a, b), jnp.maximum(c, d)
    return jnp.maximum(upper, lower), (upper >= lower, a >= b, c >= d)


def _pool_forward(x):
    y, first = _pool(x)
    return y, (x, first)


def _pool_backward(saved, dy):
    x, (in_upper, left_of_upper, left_of_lower) = saved
    n, height, width, channels = x.shape
    rows = [
        jnp.stack([jnp.where(in_row & left, dy, 0), jnp.where(in_row & ~left, dy, 0)], axis=3)
        for in_row, left in ((in_upper, left_of_upper), (~in_upper, left_of_lower))
    ]
    dx = jnp.stack(rows, axis=2).reshape(n, height // 2 * 2, width // 2 * 2, channels)
    return (jnp.pad(dx, ((0, 0), (0, height % 2), (0, width % 2), (0, 0))),)


max_pool.defvjp(_pool_forward, _pool_backward)


def load(path, dtype=jnp.float32, impl="auto"):
    """Reads a weights file.

    Args:
      path: path of an npz with `<layer>/kernel` (HWIO) and `<layer>/bias` of each layer, `order`, `scale`, `mean`,
        `std`, and optionally `gain` (1 if absent), as `VGG16Features` describes them.
      dtype: dtype of the computation.
      impl: implementation of the convolutions, one of `dispatch.IMPLS`.

    Returns:
      `(module, params)` such that `module.apply({"params": params}, image)` gives the features.

    Raises:
      UserError: the file does not exist, is not an npz, lacks an array, or has one of another shape.
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
