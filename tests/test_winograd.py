"""Tests that Winograd's convolution equals the direct one, and that VGG16 uses it where it is meant to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pconv_jax.models import vgg
from pconv_jax.ops.cpu import primitives, winograd

SIZES = [(8, 16), (5, 7), (1, 1), (3, 2), (6, 9), (4, 4)]


def direct(x, kernel):
    return primitives.xla_conv(x, kernel, 1, ((1, 1), (1, 1)))


def by_winograd(x, kernel):
    return winograd.conv(x, kernel, primitives.XLA)


def case(height, width, dtype, inputs=5, outputs=6):
    """Returns features, a kernel of He's scale, and a gradient of the output."""
    rng = np.random.default_rng(height)
    x, dy = (rng.normal(size=(2, height, width, channels)) for channels in (inputs, outputs))
    kernel = rng.normal(size=(3, 3, inputs, outputs)) * np.sqrt(2 / (9 * inputs))
    return [jnp.asarray(array, dtype) for array in (x, kernel, dy)]


def lowered(function, *arrays, platform="cpu"):
    """Returns the StableHLO text of a function for a platform."""
    return jax.jit(function).trace(*arrays).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("size", SIZES)
def test_equals_the_direct_convolution(size):
    """The result and both gradients equal the direct ones in float64, at widths that are no multiple of four too."""
    with jax.enable_x64(True):
        x, kernel, dy = case(*size, np.float64)
        results = []
        for convolution in (by_winograd, direct):
            y, transpose = jax.vjp(convolution, x, kernel)
            results.append((y, *transpose(dy)))
        for result, expected in zip(*jax.device_get(results), strict=True):
            np.testing.assert_allclose(result, expected, rtol=0, atol=1e-13 * np.abs(expected).max())


def test_error_in_float32():
    """With VGG16's 256 channels, result and gradient are within 2e-6 root mean square and 3e-5 at most, relatively."""
    x, kernel, dy = case(16, 16, np.float32, 256, 256)
    with jax.enable_x64(True):
        expected, transpose = jax.vjp(direct, *(array.astype(jnp.float64) for array in (x, kernel)))
        expected, expected_gradient = jax.device_get((expected, transpose(dy.astype(jnp.float64))[0]))
    y, transpose = jax.vjp(by_winograd, x, kernel)
    for result, exact in ((y, expected), (transpose(dy)[0], expected_gradient)):
        error = (np.asarray(result, np.float64) - exact) / np.std(exact)
        assert np.sqrt(np.mean(error**2)) < 2e-6
        assert np.abs(error).max() < 3e-5


@pytest.mark.parametrize(
    ("impl", "dtype", "platform", "expected"),
    [
        ("auto", "float32", "cpu", 36),
        ("xla", "float32", "cpu", 0),
        ("auto", "bfloat16", "cpu", 0),
        ("auto", "float32", "cuda", 0),
    ],
)
def test_vgg16_uses_it_in_float32_on_a_cpu(impl, dtype, platform, expected):
    """Six of the seven layers have six convolutions of three rows and one column each; other programs have none."""
    options = {"order": "RGB", "scale": 1.0, "mean": (0.5,) * 3, "std": (0.3,) * 3, "dtype": jnp.dtype(dtype)}
    model, image = vgg.VGG16Features(**options, conv_impl=impl), jnp.zeros((1, 16, 16, 3))
    params = model.init(jax.random.key(0), image)["params"]
    text = lowered(lambda image: model.apply({"params": params}, image), image, platform=platform)
    convolutions = [line for line in text.splitlines() if "stablehlo.convolution" in line]
    assert sum("tensor<3x1x" in line for line in convolutions) == expected
    assert len(convolutions) == (expected + 1 if expected else 7)
