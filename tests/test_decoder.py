"""Tests of the decoder layer against the loop over concatenated features, each half with its own holes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import loops
from pconv_jax.ops import decoder


def layer(low_channels=5, skip_channels=2, window=3, seed=0):
    """Returns random `low` of 3x4 and `skip` of 6x8 with different holes, kernel and bias."""
    rng = np.random.default_rng(seed)
    low, skip = rng.normal(size=(2, 3, 4, low_channels)), rng.normal(size=(2, 6, 8, skip_channels))
    low_mask, skip_mask = rng.uniform(size=(2, 3, 4, 1)) < 0.3, rng.uniform(size=(2, 6, 8, 1)) < 0.3
    kernel = rng.normal(size=(window, window, low_channels + skip_channels, 4))
    return [a.astype(np.float32) for a in (low, low_mask, skip, skip_mask, kernel, rng.normal(size=4))]


@pytest.mark.parametrize("window", [1, 3, 5])
def test_equals_the_loop(window):
    """The layer upsamples by two, concatenates and convolves; each half counts in sum(M) by its own mask."""
    low, low_mask, skip, skip_mask, kernel, bias = layer(window=window)
    y, m = decoder.decoder_conv(low, low_mask, skip, skip_mask, kernel, bias)
    up = [a.repeat(2, axis=1).repeat(2, axis=2) for a in (low, low_mask)]
    x, mask = np.concatenate([up[0], skip], -1), np.concatenate([up[1], skip_mask], -1)
    half = window // 2
    pads = ((half, half), (half, half))
    expected, expected_mask = loops.partial_conv(x, mask, kernel, bias, (1, 1), pads, (1, 1), 1, (5, 2))
    assert 0 < expected_mask.mean() < 1 or window > 1
    np.testing.assert_array_equal(m, expected_mask)
    np.testing.assert_allclose(y, expected, atol=1e-5 * np.abs(expected).max())


def test_upsampling_is_nearest_and_its_gradient_a_sum():
    x = np.arange(6, dtype=np.float32).reshape(1, 2, 3, 1)
    np.testing.assert_array_equal(decoder.upsample(x), x.repeat(2, axis=1).repeat(2, axis=2))
    weights = np.random.default_rng(0).normal(size=(1, 4, 6, 1)).astype(np.float32)
    gradient = jax.grad(lambda x: jnp.sum(weights * decoder.upsample(x)))(x)
    np.testing.assert_allclose(gradient, weights.reshape(1, 2, 2, 3, 2, 1).sum(axis=(2, 4)), rtol=1e-6)


def test_a_skip_of_another_size_is_refused():
    low, _, skip, *_ = layer()
    with pytest.raises(ValueError, match=r"skip is \(6, 7\); needs twice the size of low, which is \(3, 4\)"):
        decoder.up_concat(low, skip[:, :, :7])
