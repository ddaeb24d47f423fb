"""Tests of batch normalisation over valid positions against loops and Flax's own."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pconv_jax.models import layers


def example(seed=0, shape=(3, 6, 5, 4)):
    rng = np.random.default_rng(seed)
    x = rng.normal(2.0, 3.0, shape).astype(np.float32)
    return x, (rng.uniform(size=(*shape[:3], 1)) < 0.6).astype(np.float32)


def apply(norm, variables, *args):
    y, updates = jax.jit(lambda v, *a: norm.apply(v, *a, mutable=["batch_stats"]))(variables, *args)
    return np.asarray(y), updates["batch_stats"]


def start(norm, x, mask, seed=1):
    """Returns variables whose scale, shift and statistics are not the initial ones."""
    variables, rng = norm.init(jax.random.key(0), x, mask), np.random.default_rng(seed)
    return jax.tree.map(lambda v: rng.uniform(0.5, 1.5, v.shape).astype(np.float32), variables)


def test_statistics_are_those_of_the_valid_positions():
    """Mean and variance equal a loop over valid positions; the running ones change by a tenth."""
    x, mask = example()
    norm = layers.MaskedBatchNorm(use_running_average=False)
    variables = start(norm, x, mask)
    y, stats = apply(norm, variables, x, mask)
    valid = np.array([x[n, i, j] for n, i, j in np.ndindex(mask.shape[:3]) if mask[n, i, j, 0]], np.float64)
    mean, var = valid.mean(axis=0), valid.var(axis=0)
    scale, bias = variables["params"]["scale"], variables["params"]["bias"]
    expected = (x - mean) / np.sqrt(var + 1e-5) * scale + bias
    np.testing.assert_allclose(np.where(mask, y, 0), np.where(mask, expected, 0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(stats["mean"], 0.9 * variables["batch_stats"]["mean"] + 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.9 * variables["batch_stats"]["var"] + 0.1 * var, rtol=1e-5)


@pytest.mark.parametrize("running", [False, True])
def test_equals_flax_where_everything_is_valid(running):
    """The same variables give Flax's result and new statistics."""
    x, mask = example()
    ones = np.ones_like(mask)
    ours = layers.MaskedBatchNorm(use_running_average=running)
    theirs = nn.BatchNorm(use_running_average=running, momentum=0.9)
    variables = start(ours, x, ones)
    (y, stats), (expected, expected_stats) = apply(ours, variables, x, ones), apply(theirs, variables, x)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    assert jax.tree.structure(stats) == jax.tree.structure(expected_stats)
    for a, b in zip(jax.tree.leaves(stats), jax.tree.leaves(expected_stats), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_holes_are_not_read():
    """NaN in holes gives the same values and statistics, and finite gradients."""
    x, mask = example()
    norm = layers.MaskedBatchNorm(use_running_average=False)
    variables = start(norm, x, mask)
    spoiled = np.where(mask, x, np.nan).astype(np.float32)
    (a, stats_a), (b, stats_b) = apply(norm, variables, x, mask), apply(norm, variables, spoiled, mask)
    np.testing.assert_array_equal(np.where(mask, a, 0), np.where(mask, b, 0))
    assert np.isfinite(b).all()
    jax.tree.map(np.testing.assert_array_equal, stats_a, stats_b)

    def loss(x):
        return jnp.sum(jnp.where(mask != 0, norm.apply(variables, x, mask, mutable=["batch_stats"])[0], 0) ** 2)

    gradient = jax.jit(jax.grad(loss))(spoiled)
    assert np.isfinite(gradient).all() and not np.where(mask, 0, gradient).any()


def test_nothing_valid_is_safe():
    """Values and gradients are finite, and the running statistics stay."""
    x, mask = example()
    norm = layers.MaskedBatchNorm(use_running_average=False)
    variables = start(norm, x, mask)
    y, stats = apply(norm, variables, x, np.zeros_like(mask))
    assert np.isfinite(y).all()
    jax.tree.map(np.testing.assert_array_equal, stats, variables["batch_stats"])


def test_devices_share_their_statistics():
    """Two halves of a batch, one without valid positions, give the result of one device."""
    x, mask = example(shape=(4, 6, 5, 4))
    mask[2:] = 0
    norm = layers.MaskedBatchNorm(use_running_average=False, axis_name="devices")
    variables = start(layers.MaskedBatchNorm(use_running_average=False), x, mask)
    expected, expected_stats = apply(layers.MaskedBatchNorm(use_running_average=False), variables, x, mask)
    mapped = jax.vmap(
        lambda x, m: norm.apply(variables, x, m, mutable=["batch_stats"]), axis_name="devices", out_axes=(0, None)
    )
    y, updates = mapped(x.reshape(2, 2, 6, 5, 4), mask.reshape(2, 2, 6, 5, 1))
    np.testing.assert_allclose(y.reshape(x.shape), expected, rtol=1e-5, atol=1e-5)
    for a, b in zip(jax.tree.leaves(updates["batch_stats"]), jax.tree.leaves(expected_stats), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("shape", [(3, 3, 11, 4), (5, 5, 6, 16)])
def test_kaiming_is_flax_bit_for_bit(shape):
    """Only the shape of the draw differs from Flax's initialiser, so parameters of older runs are the same."""
    flax_kaiming = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
    ours, theirs = (jax.jit(lambda key, f=f: f(key, shape))(jax.random.key(3)) for f in (layers.kaiming, flax_kaiming))
    np.testing.assert_array_equal(ours, theirs)
