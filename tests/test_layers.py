"""Tests of the layers: partial convolution as a Flax layer, and batch normalisation over valid positions."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pconv_jax.models import layers
from pconv_jax.ops import partial_conv


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
def test_kaiming_is_flax_up_to_rounding(shape):
    """Only the shape of the draw differs from Flax's initialiser, so both give the same weights from the same key.

    They are equal to the bit with JAX 0.10. Newer compilers round the two shapes differently, by up to two units in the
    last place with JAX 0.12.
    """
    flax_kaiming = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
    ours, theirs = (jax.jit(lambda key, f=f: f(key, shape))(jax.random.key(3)) for f in (layers.kaiming, flax_kaiming))
    np.testing.assert_array_max_ulp(np.asarray(ours), np.asarray(theirs), maxulp=4)


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"kernel_size": 3}, (2, 9, 8, 4)),
        ({"kernel_size": (3, 5), "strides": 2, "use_bias": False}, (2, 9, 8, 4)),
        ({"kernel_size": 3, "padding": "VALID", "kernel_dilation": 2}, (2, 9, 8, 4)),
        ({"kernel_size": 3, "padding": [(1, 0), (2, 1)], "feature_group_count": 2}, (2, 9, 8, 4)),
        ({"kernel_size": 3, "precision": "highest"}, (2, 9, 4)),
        ({"kernel_size": (1, 3, 3)}, (1, 3, 5, 4, 2)),
    ],
)
def test_the_layer_is_the_operator_with_the_parameters_of_flax(options, shape):
    """The parameters have the names and shapes of `nn.Conv`'s; inside a valid image the values are nn.Conv's, too."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape).astype(np.float32)
    mask = (rng.uniform(size=(*shape[:-1], 1)) < 0.7).astype(np.float32)
    layer = layers.PartialConv(6, **options)
    rank = len(shape) - 2
    kernel_size = options["kernel_size"]
    flax_options = {**options, "kernel_size": (kernel_size,) * rank if isinstance(kernel_size, int) else kernel_size}
    theirs = nn.Conv(6, **flax_options)
    variables = jax.jit(theirs.init)(jax.random.key(0), x)
    shapes = jax.eval_shape(layer.init, jax.random.key(0), x, mask)
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, variables)
    params = variables["params"]
    operator_options = {name: value for name, value in options.items() if name not in ("kernel_size", "use_bias")}
    if "kernel_dilation" in options:
        operator_options["dilation"] = operator_options.pop("kernel_dilation")
    expected = partial_conv.partial_conv(x, mask, params["kernel"], params.get("bias"), **operator_options)
    for ours, value in zip(layer.apply(variables, x, mask), expected, strict=True):
        np.testing.assert_array_equal(ours, value)
    y, new_mask = layer.apply(variables, x)
    sums = partial_conv.partial_conv(jnp.ones_like(x), None, jnp.ones_like(params["kernel"]), **operator_options)[1]
    assert new_mask.shape == sums.shape and (np.asarray(new_mask) == 1).all()
    if options.get("padding") == "VALID":
        np.testing.assert_allclose(y, theirs.apply(variables, x), rtol=1e-5, atol=1e-5)


def test_the_layer_takes_masks_of_channel_groups_and_computes_in_bfloat16():
    """A mask of two channels serves concatenated features; `dtype` is that of the features, and masks are float32."""
    x, mask = example(shape=(1, 6, 6, 5))
    masks = np.concatenate([mask, np.ones_like(mask)], axis=-1)
    layer = layers.PartialConv(3, 3, dtype=jnp.bfloat16)
    variables = layer.init(jax.random.key(0), x, masks, group_sizes=(2, 3))
    y, new_mask = layer.apply(variables, x, masks, group_sizes=(2, 3))
    assert (y.dtype, new_mask.dtype, variables["params"]["kernel"].dtype) == (jnp.bfloat16, jnp.float32, jnp.float32)
    params = variables["params"]
    expected, _ = partial_conv.partial_conv(x, masks, params["kernel"], params["bias"], group_sizes=(2, 3))
    np.testing.assert_allclose(np.asarray(y, np.float32), expected, rtol=0.05, atol=0.05)
