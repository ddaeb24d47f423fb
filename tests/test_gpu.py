"""Tests on a GPU (`./launch.sh test -m gpu -n0`): operator and step equal those of the CPU, and bfloat16 trains."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import loops
import runs
from pconv_jax.ops.cpu import dispatch
from pconv_jax.training import build

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def gpu():
    """Returns the GPU, with products in full float32, because TF32 rounds to ten bits."""
    if jax.default_backend() != "gpu":
        pytest.skip(f"needs a GPU; the default device is a {jax.default_backend()}")
    with jax.default_matmul_precision("highest"):
        yield jax.devices()[0]


def step_on(device, config, batch):
    """Runs one training step on one device and returns the state after it and the metrics, on the host."""
    train_step = jax.pmap(
        runs.train_step(config, runs.phases(config)[0]),
        axis_name="batch",
        in_axes=(None, 0, None),
        out_axes=(None, None),
        devices=[device],
    )
    shards = {name: x[None] for name, x in batch.items()}
    return jax.device_get(train_step(build.initial_state(config), shards, {}))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("impl", dispatch.IMPLS)
def test_partial_conv_is_the_loop(stride, impl):
    rng = np.random.default_rng(stride)
    x, kernel, bias = (rng.normal(size=s).astype(np.float32) for s in ((2, 12, 10, 5), (3, 3, 5, 7), (7,)))
    mask = (rng.random((2, 12, 10, 1)) < 0.4).astype(np.float32)
    y, new_mask = dispatch.conv(*map(jnp.asarray, (x, mask, kernel, bias)), stride, impl)
    pads = ((1, 1), (1, 1))
    expected, expected_mask = loops.partial_conv(x, mask, kernel, bias, (stride, stride), pads, (1, 1), 1, (5,))
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(new_mask, expected_mask)


@pytest.mark.parametrize("norm", ["batch", "masked_batch"])
def test_a_step_is_that_of_the_cpu(gpu, norm):
    """Statistics, momentum and metrics agree.

    Parameters are not compared, because Adam's first update is a sign, which would hide errors of the gradients.
    """
    config = runs.tiny(**{"model.norm": norm})
    batch = runs.batch(config)
    (state, metrics), (expected, expected_metrics) = (
        step_on(device, config, batch) for device in (gpu, jax.devices("cpu")[0])
    )
    for name, value in expected_metrics.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-4, err_msg=name)
    for part in ("batch_stats", "opt_state"):
        leaves = (jax.tree.leaves(getattr(one, part)) for one in (state, expected))
        for a, b in zip(*leaves, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * max(1.0, np.max(np.abs(b))))


def test_bfloat16_is_near_float32(gpu):
    """The loss is within a percent, everything is finite, and parameters and statistics stay float32."""
    (state, metrics), (_, expected) = (
        step_on(gpu, config, runs.batch(config))
        for config in (runs.tiny(**{"model.dtype": dtype}) for dtype in ("bfloat16", "float32"))
    )
    assert metrics["loss"] == pytest.approx(expected["loss"], rel=0.01)
    for leaf in jax.tree.leaves((state.params, state.batch_stats)):
        assert leaf.dtype == np.float32 and np.isfinite(leaf).all()
