"""Shapes, random arrays and gradients of single layers, which the tests of every implementation of a layer share."""

import jax
import jax.numpy as jnp
import numpy as np

# Each decoder layer: (batch, height and width of low, channels of low, of skip, of the output, kernel size).
POLYPHASE = {  # layers that the implementation "auto" computes one output phase at a time
    "dec1": (2, 8, 8, 16, 3, 3, 3),
    "dec2": (1, 8, 8, 16, 8, 8, 3),
    "not square": (2, 5, 7, 3, 2, 4, 3),
    "one position, one channel": (3, 1, 1, 1, 1, 1, 3),
    "one row": (2, 1, 6, 3, 1, 2, 3),
}
LOW_RESOLUTION = {
    "few: dec7": (2, 2, 2, 8, 8, 16, 3),
    "few: one position": (1, 1, 1, 2, 1, 3, 3),
    "few: not square, window 5": (1, 1, 3, 2, 3, 6, 5),
}
DECODER = {**POLYPHASE, **LOW_RESOLUTION}
# Each encoder layer: (batch, height and width, input channels, output channels, kernel size, stride).
ENCODER = {
    "enc5": (2, 4, 4, 8, 16, 3, 2),
    "window 7, stride 1": (1, 3, 5, 2, 8, 7, 1),
    "odd size, window 5": (1, 5, 7, 2, 8, 5, 2),
    "one position, one channel": (1, 1, 1, 1, 1, 3, 2),
}


def random_mask(rng, shape, valid):
    """Returns a bool mask `[N, H, W, 1]` with a large hole and scattered valid pixels.

    Args:
      rng: NumPy generator.
      shape: `(N, H, W)`.
      valid: fraction of valid pixels. Below 1 the upper half is a hole, so that some kernels see no valid pixel.
    """
    mask = rng.uniform(size=(*shape, 1)) < valid
    mask[:, : shape[1] * (valid < 1) // 2] = False
    return mask


def decoder_layer(n, h, w, c, d, o, k, *, valid=0.3, dtype=np.float64):
    """Returns `[low, low_mask, skip, skip_mask, kernel, bias]` of a decoder layer, for a shape of `DECODER`."""
    rng = np.random.default_rng(0)
    low, skip = rng.normal(size=(n, h, w, c)), rng.normal(size=(n, 2 * h, 2 * w, d))
    masks = random_mask(rng, low.shape[:3], valid), random_mask(rng, skip.shape[:3], valid)
    kernel, bias = rng.normal(size=(k, k, c + d, o)), rng.normal(size=o)
    return [jnp.asarray(a, dtype) for a in (low, masks[0], skip, masks[1], kernel, bias)]


def encoder_layer(n, h, w, c, o, k, *, valid=0.3, dtype=np.float64):
    """Returns `[x, mask, kernel, bias]` of an encoder layer, for a shape of `ENCODER` without its stride."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, h, w, c))
    arrays = x, random_mask(rng, x.shape[:3], valid), rng.normal(size=(k, k, c, o)), rng.normal(size=o)
    return [jnp.asarray(a, dtype) for a in arrays]


def cotangent(*shape):
    """Returns random weights for the sum of an output, of which the gradients are taken."""
    return np.random.default_rng(1).normal(size=shape)


def with_gradients(layer):
    """Returns a compiled function `(arrays, cotangent) -> (y, new mask, gradients of sum(y * cotangent))`.

    Args:
      layer: a function of arrays that returns `(y, new mask)`. The gradients are by each of its arrays.
    """

    @jax.jit
    def call(arrays, cotangent):
        y, transpose, m = jax.vjp(lambda *a: layer(*a), *arrays, has_aux=True)
        return y, m, transpose(cotangent.astype(y.dtype))

    return call


def lowered(layer, arrays, platform):
    """Returns the StableHLO text of a layer's gradients for a platform, which this machine need not have."""
    call = jax.jit(jax.grad(lambda *a: layer(*a)[0].sum(), (0, 2)))
    return call.trace(*arrays).lower(lowering_platforms=(platform,)).as_text()
