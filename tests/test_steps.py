"""The training step: what it changes, and that it is the same on one device and on four."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import runs
from pconv_jax.training import build, parallel, state, steps


def step_on(devices, config, batches):
    """Runs steps mapped over the first `devices` CPU devices; returns the last state and all metrics."""
    mapped = jax.pmap(
        steps.from_config(config, None),
        axis_name=parallel.AXIS,
        in_axes=(None, 0),
        out_axes=(None, None),
        devices=jax.devices()[:devices],
    )
    now, rows = state.from_config(config), []
    for batch in batches:
        now, metrics = mapped(now, {k: v.reshape(devices, -1, *v.shape[1:]) for k, v in batch.items()})
        now, metrics = jax.device_get((now, metrics))
        rows.append({name: float(value) for name, value in metrics.items()})
    return now, rows


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_one_device_equals_four(norm):
    """Five steps: parameters, statistics and metrics agree, because batch normalisation is synchronised."""
    config = runs.tiny(**{"model.norm": norm})
    batches = [runs.batch(config, k) for k in range(5)]
    (one, rows_one), (four, rows_four) = (step_on(devices, config, batches) for devices in (1, 4))
    for a, b in zip(rows_one, rows_four, strict=True):
        for name in a:
            assert a[name] == pytest.approx(b[name], rel=2e-4), name
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(four.params), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5 + 1e-3 * np.abs(a).max())
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4), one.batch_stats, four.batch_stats)


def test_gradients_on_four_devices_equal_those_on_one_exactly_enough():
    """One step of plain descent, so that Adam's division cannot hide or blow up a difference."""
    config = runs.tiny(**{"model.norm": "batch"})
    batch, model = runs.batch(config), build.unet_model(config)
    train_step = steps.make_train_step(model, optax.sgd(1.0), config.loss.weights.to_dict(), None, 0.0)
    fresh = state.from_config(config).replace(opt_state=optax.sgd(1.0).init({}))
    results = []
    for devices in (1, 4):
        mapped = jax.pmap(
            train_step,
            axis_name=parallel.AXIS,
            in_axes=(None, 0),
            out_axes=(None, None),
            devices=jax.devices()[:devices],
        )
        shards = {k: v.reshape(devices, -1, *v.shape[1:]) for k, v in batch.items()}
        results.append(jax.device_get(mapped(fresh, shards)[0].params))
    for a, b in zip(*(jax.tree.leaves(r) for r in results), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_the_mapped_step_keeps_one_copy_of_the_state():
    """No device axis on the state, scalars as metrics, the old state is donated, and it is the step of one device."""
    config = runs.tiny()
    expected, _ = step_on(1, config, [runs.batch(config)])
    train_step = parallel.map_step(steps.from_config(config, None))
    now = parallel.replicate(state.from_config(config))
    shapes = jax.tree.map(jnp.shape, now)
    after, metrics = train_step(now, next(parallel.prefetch(iter([runs.batch(config)]))))
    assert jax.tree.map(jnp.shape, after) == shapes
    assert int(after.step) == 1 and all(m.shape == () for m in metrics.values())
    assert set(metrics) == {"loss", "valid", "hole", "tv", "grad_norm", "param_norm", "skipped"}
    assert now.params["enc1"]["conv"]["kernel"].is_deleted()
    for a, b in zip(jax.tree.leaves(after.batch_stats), jax.tree.leaves(expected.batch_stats), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    for a, b in zip(jax.tree.leaves(after.opt_state), jax.tree.leaves(expected.opt_state), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)


def test_the_loss_is_the_weighted_sum_by_name():
    """The config's weights reach the terms they are named after."""
    config = runs.tiny(**{"loss.weights.valid": 2.0, "loss.weights.hole": 3.0, "loss.weights.tv": 5.0})
    _, (row,) = step_on(1, config, [runs.batch(config)])
    assert row["loss"] == pytest.approx(2 * row["valid"] + 3 * row["hole"] + 5 * row["tv"], rel=1e-5)


def test_the_average_follows_the_parameters():
    """ema' = d * ema + (1 - d) * params, after every step."""
    config = runs.tiny(**{"optim.ema": 0.75})
    fresh = jax.device_get(state.from_config(config))
    after, _ = step_on(1, config, [runs.batch(config)])
    expected = jax.tree.map(lambda old, new: 0.75 * old + 0.25 * new, fresh.params, after.params)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), after.ema, expected)


def test_skipped_images_are_counted_over_devices():
    config = runs.tiny()
    batch = runs.constant_batch(config) | {"skipped": np.arange(8, dtype=np.int32)}
    for devices in (1, 4):
        assert step_on(devices, config, [batch])[1][0]["skipped"] == 28


def test_training_learns_a_constant():
    """Fifty steps on grey images bring the loss down by ten."""
    config = runs.tiny(**{"optim.lr": 1e-2, "model.norm": "none"})
    _, rows = step_on(1, config, [runs.constant_batch(config)] * 50)
    assert rows[-1]["loss"] < 0.1 * rows[0]["loss"]


def test_prediction_is_composited_and_clamped():
    """Valid pixels are the image's, bit for bit; filled ones lie in [0, 1]."""
    config = runs.tiny(**{"model.norm": "none"})
    model, variables = build.unet_model(config), state.from_config(config).eval_variables
    batch = runs.batch(config)
    variables = jax.tree.map(lambda x: 20 * x, variables)
    output, filled = jax.jit(steps.make_predict(model))(variables, batch["image"], batch["mask"])
    valid = np.broadcast_to(batch["mask"] == 1, filled.shape)
    np.testing.assert_array_equal(np.round(np.asarray(filled) * 255)[valid], batch["image"][valid])
    assert np.min(filled) >= 0 and np.max(filled) <= 1 and np.max(np.abs(output)) > 1


def test_batches_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match=r"train\.batch_size is 6 on 4 devices; needs a multiple of 4: use 4 or 8"):
        parallel.check_batch("train.batch_size", 6)
    with pytest.raises(ValueError, match=r"is 3 on 4 devices; needs a multiple of 4: use 4$"):
        parallel.check_batch("train.batch_size", 3)
    parallel.check_batch("train.batch_size", 8)
