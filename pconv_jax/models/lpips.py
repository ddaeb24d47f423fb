"""LPIPS, the learned perceptual distance of two images (Zhang et al., CVPR 2018, arXiv 1801.03924), version 0.1.

The features of an ImageNet network after five of its activations are scaled to unit length along the channels. Their
squared differences are weighted per channel by weights that were fitted to human judgements, averaged over the
positions and summed over the five layers. The weights come from a file; none ship with the project.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from pconv_jax import errors
from pconv_jax.models import npz_weights

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # normalise RGB in [-1, 1] for the first layer
EPSILON = 1e-10  # added to the length of a feature vector before division

_TAP = "tap"  # marks the layers whose features are compared
# Rows: (layer, channels, kernel size, stride, padding), each with ReLU; (window, stride) of max-pooling; _TAP.
NETWORKS = {
    "alex": (
        *(("conv1", 64, 11, 4, 2), _TAP, (3, 2)),
        *(("conv2", 192, 5, 1, 2), _TAP, (3, 2)),
        *(("conv3", 384, 3, 1, 1), _TAP),
        *(("conv4", 256, 3, 1, 1), _TAP),
        *(("conv5", 256, 3, 1, 1), _TAP),
    ),
    "vgg": (
        *(("conv1_1", 64, 3, 1, 1), ("conv1_2", 64, 3, 1, 1), _TAP, (2, 2)),
        *(("conv2_1", 128, 3, 1, 1), ("conv2_2", 128, 3, 1, 1), _TAP, (2, 2)),
        *(("conv3_1", 256, 3, 1, 1), ("conv3_2", 256, 3, 1, 1), ("conv3_3", 256, 3, 1, 1), _TAP, (2, 2)),
        *(("conv4_1", 512, 3, 1, 1), ("conv4_2", 512, 3, 1, 1), ("conv4_3", 512, 3, 1, 1), _TAP, (2, 2)),
        *(("conv5_1", 512, 3, 1, 1), ("conv5_2", 512, 3, 1, 1), ("conv5_3", 512, 3, 1, 1), _TAP),
    ),
}
TAPS = {"alex": (64, 192, 384, 256, 256), "vgg": (64, 128, 256, 512, 512)}  # channels per tap
SMALLEST = {"alex": 31, "vgg": 16}  # smallest side of an image for which every tap has a position

TOOL = "python -m pconv_jax.tools.prepare_lpips --out=lpips.npz"


class Features(nn.Module):
    """A network of `NETWORKS`; returns its features at the five taps.

    Attributes:
      network: "alex" or "vgg".
    """

    network: str

    @nn.compact
    def __call__(self, image):
        """Maps `[N, H, W, 3]` RGB in [-1, 1] to five maps `[N, h, w, TAPS]` of unit length along the channels."""
        x, features = (image - jnp.asarray(SHIFT, image.dtype)) / jnp.asarray(SCALE, image.dtype), []
        for row in NETWORKS[self.network]:
            if row == _TAP:
                features.append(x / (jnp.sqrt(jnp.sum(x * x, axis=-1, keepdims=True)) + EPSILON))
            elif len(row) == 2:
                window, stride = row
                x = nn.max_pool(x, (window, window), strides=(stride, stride))
            else:
                name, channels, window, stride, padding = row
                x = nn.relu(nn.Conv(channels, (window, window), stride, padding, name=name)(x))
        return features


def distance(features, others, linear):
    """Returns LPIPS from the features of two batches of images.

    Args:
      features: features of the first images, five maps as `Features` returns them.
      others: of the second images.
      linear: five vectors `[channels]` of weights, none negative.

    Returns:
      `[N]`, 0 for equal images.
    """
    layers = zip(features, others, linear, strict=True)
    return sum(jnp.mean(jnp.square(a - b) @ weight, axis=(1, 2)) for a, b, weight in layers)


def expected(network: str) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the arrays of the weights file by name.

    The names are `<layer>/kernel` (HWIO), `<layer>/bias` and `linear<i>`; the file also holds `network`.
    """
    side = SMALLEST[network]
    layers = npz_weights.shapes(Features(network), jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32))
    return layers | {f"linear{i}": (channels,) for i, channels in enumerate(TAPS[network])}


def load(path: str):
    """Reads a weights file.

    Args:
      path: path of an npz with `network` and the arrays of `expected`.

    Returns:
      `(module, params, linear)` for `module.apply({"params": params}, image)` and `distance`.

    Raises:
      UserError: the file does not exist, is not an npz, is of an unknown network, lacks an array, or has one of another
        shape.
    """
    missing = f"no LPIPS weights at {path}: run {TOOL}, or leave --lpips_weights out"
    arrays = npz_weights.read(path, missing, TOOL)
    network = str(npz_weights.take(arrays, path, "network", ()))
    if network not in NETWORKS:
        raise errors.UserError(
            f'{path} has network "{network}"; needs {" or ".join(NETWORKS)}: make it again with {TOOL}'
        )
    params = npz_weights.params(arrays, path, expected(network))
    linear = [params.pop(f"linear{i}") for i in range(len(TAPS[network]))]
    if min(float(weight.min()) for weight in linear) < 0:
        raise errors.UserError(f"{path} has negative linear weights; LPIPS has none: make it again with {TOOL}")
    return Features(network), params, linear
