"""Tests of the training step: what it changes, and that it is the same on one device and on four."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import runs
from pconv_jax.ops import losses, pyramid
from pconv_jax.training import build, parallel, steps


def step_on(devices, config, batches, state=None, phase=None):
    """Runs one training step per batch on simulated devices.

    Args:
      devices: number of devices.
      config: experiment config.
      batches: host batches.
      state: state before the first step; by default the config's initial state.
      phase: phase of the training; by default the config's first.

    Returns:
      The state after the last step, and the metrics of each step as floats.
    """
    mapped = jax.pmap(
        runs.train_step(config, phase or runs.phases(config)[0]),
        axis_name=parallel.AXIS,
        in_axes=(None, 0, None),
        out_axes=(None, None),
        devices=jax.devices()[:devices],
    )
    state, rows = state or runs.initial_state(config), []
    for batch in batches:
        state, metrics = mapped(state, {k: v.reshape(devices, -1, *v.shape[1:]) for k, v in batch.items()}, {})
        state, metrics = jax.device_get((state, metrics))
        rows.append({name: float(value) for name, value in metrics.items()})
    return state, rows


@pytest.mark.parametrize(
    "norm", ["batch", *(pytest.param(norm, marks=pytest.mark.slow) for norm in ("masked_batch", "group"))]
)
def test_one_device_equals_four(norm):
    """After five steps parameters, statistics and metrics agree, because batch normalisation is synchronised."""
    config = runs.tiny(**{"model.norm": norm})
    batches = [runs.batch(config, k) for k in range(5)]
    (one, rows_one), (four, rows_four) = (step_on(devices, config, batches) for devices in (1, 4))
    for a, b in zip(rows_one, rows_four, strict=True):
        for name in a:
            assert a[name] == pytest.approx(b[name], rel=2e-4), name
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(four.params), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5 + 1e-3 * np.abs(a).max())
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4), one.batch_stats, four.batch_stats)


@pytest.mark.slow
def test_gradients_on_four_devices_equal_those_on_one_exactly_enough():
    """One step of plain gradient descent agrees, in which Adam's division can neither hide nor enlarge a difference."""
    config = runs.tiny(**{"model.norm": "batch"})
    batch, model = runs.batch(config), build.unet_model(config)
    weights = functools.partial(steps.loss_weights, config.loss.weights.to_dict(), 0)
    train_step = steps.make_train_step(model, optax.sgd(1.0), weights, None, runs.phases(config)[0])
    fresh = runs.initial_state(config).replace(opt_state=optax.sgd(1.0).init({}))
    results = []
    for devices in (1, 4):
        mapped = jax.pmap(
            train_step,
            axis_name=parallel.AXIS,
            in_axes=(None, 0, None),
            out_axes=(None, None),
            devices=jax.devices()[:devices],
        )
        shards = {k: v.reshape(devices, -1, *v.shape[1:]) for k, v in batch.items()}
        results.append(jax.device_get(mapped(fresh, shards, {})[0].params))
    for a, b in zip(*(jax.tree.leaves(r) for r in results), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_the_mapped_step_keeps_one_copy_of_the_state():
    """The state has no device axis and is donated, metrics are scalars, and the step equals that of one device."""
    config = runs.tiny()
    expected, _ = step_on(1, config, [runs.batch(config)])
    train_step = parallel.map_step(runs.train_step(config, runs.phases(config)[0]))
    state = parallel.replicate(runs.initial_state(config))
    shapes = jax.tree.map(jnp.shape, state)
    after, metrics = train_step(state, next(parallel.prefetch(iter([runs.batch(config)]))), {})
    assert jax.tree.map(jnp.shape, after) == shapes
    assert int(after.step) == 1 and all(m.shape == () for m in metrics.values())
    terms = {"valid", "hole", "tv"}
    weighted = {f"weighted/{name}" for name in terms}
    assert set(metrics) == terms | weighted | {"loss", "grad_norm", "param_norm", "skipped"}
    assert state.params["enc1"]["conv"]["kernel"].is_deleted()
    for a, b in zip(jax.tree.leaves(after.batch_stats), jax.tree.leaves(expected.batch_stats), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    for a, b in zip(jax.tree.leaves(after.opt_state), jax.tree.leaves(expected.opt_state), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)


def test_the_loss_is_the_weighted_sum_by_name():
    """The config's weights reach the terms of their names, and the norms are over all values together."""
    config = runs.tiny(**{"loss.weights.valid": 2.0, "loss.weights.hole": 3.0, "loss.weights.tv": 5.0})
    after, (row,) = step_on(1, config, [runs.batch(config)])
    squares = sum(np.square(np.asarray(leaf, np.float64)).sum() for leaf in jax.tree.leaves(after.params))
    assert row["param_norm"] == pytest.approx(np.sqrt(squares), rel=1e-5)
    assert row["loss"] == pytest.approx(2 * row["valid"] + 3 * row["hole"] + 5 * row["tv"], rel=1e-5)
    for name, weight in (("valid", 2), ("hole", 3), ("tv", 5)):
        assert row[f"weighted/{name}"] == pytest.approx(weight * row[name], rel=1e-6)


def test_the_weights_of_style_rise():
    """The weights of style rise linearly to the config's values and stay there; other weights are constant."""
    weights = runs.tiny(**{"loss.weights.style_comp": 60.0}).loss.weights.to_dict()
    at = [steps.loss_weights(weights, 4, step) for step in (0, 1, 3, 9)]
    assert [float(w["style_out"]) for w in at] == [30.0, 60.0, 120.0, 120.0]
    assert [float(w["style_comp"]) for w in at] == [15.0, 30.0, 60.0, 60.0]
    assert {(w["hole"], w["perceptual"]) for w in at} == {(6.0, 0.05)}
    assert steps.loss_weights(weights, 0, 0) == weights


@pytest.mark.parametrize("devices", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_accumulation_changes_memory_and_nothing_else(devices):
    """Four parts computed in turn give the step of the whole batch, since every term is a mean over examples."""
    whole, parts = (runs.tiny(**{"model.norm": "group", "train.accumulate": k}) for k in (1, 4))
    batches = [runs.batch(whole, k) for k in range(2)]
    (a, rows_a), (b, rows_b) = (step_on(devices, config, batches) for config in (whole, parts))
    for one, other in zip(rows_a, rows_b, strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    for one, other in zip(jax.tree.leaves(a.params), jax.tree.leaves(b.params), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5 + 1e-3 * np.abs(one).max())


def test_accumulation_updates_the_statistics_part_by_part():
    """Two parts update the running statistics twice, as two batches of half the size do."""
    config = runs.tiny(**{"optim.lr": 0.0, "train.accumulate": 2})
    batch = runs.batch(config)
    after, _ = step_on(1, config, [batch])
    halves = [{k: v[i : i + 4] for k, v in batch.items()} for i in (0, 4)]
    expected, _ = step_on(1, runs.tiny(**{"optim.lr": 0.0}), halves)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), after.batch_stats, expected.batch_stats)


def test_remat_changes_memory_and_nothing_else():
    """The step is the same if blocks are rematerialised."""
    kept, again = (runs.tiny(**{"model.remat": remat}) for remat in (False, True))
    batch = runs.batch(kept)
    (a, rows_a), (b, rows_b) = (step_on(1, config, [batch]) for config in (kept, again))
    assert rows_a[0] == pytest.approx(rows_b[0], rel=1e-5)
    for one, other in zip(jax.tree.leaves(a.batch_stats), jax.tree.leaves(b.batch_stats), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
    model, variables = build.unet_model(again), runs.initial_state(again).eval_variables
    image, mask = jax.numpy.zeros((1, 16, 16, 3)), jax.numpy.ones((1, 16, 16, 1))
    program = str(jax.make_jaxpr(lambda v: model.apply(v, image, mask))(variables))
    assert program.count("remat") == 4, "one per block"


@pytest.mark.parametrize(("step", "decay"), [(0, 0.1), (5, 0.4), (26, 0.75), (500, 0.75)])
def test_the_average_follows_the_parameters(step, decay):
    """ema' = d * ema + (1 - d) * params, with d = min(0.75, (1 + step) / (10 + step))."""
    config = runs.tiny(**{"optim.ema": 0.75})
    before = runs.initial_state(config).replace(step=np.int32(step))
    after, _ = step_on(1, config, [runs.batch(config)], before)
    expected = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, before.ema, after.params)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), after.ema, expected)


PYRAMID = {
    "data.size": 32,
    "model.guess": True,
    "train.pyramid_levels": 3,
    "model.norm": "none",
    "loss.weights.log_mse": 2.0,
}


def test_the_pyramid_trains_each_level_on_its_input_when_filling():
    """The loss is a mean over levels, weighted 4 to 2 to 1, of terms on the enlarged composite of the coarser level."""
    config = runs.tiny(**PYRAMID)
    batch, model, fresh = runs.batch(config), build.unet_model(config), build.initial_state(config)
    _, (row,) = step_on(1, config, [batch], fresh)
    target, mask = batch["image"] / np.float32(255), batch["mask"].astype(np.float32)
    levels, complete = [(target, mask)], [target]
    for _ in range(2):
        levels.append(pyramid.coarsen(*levels[-1]))
        complete.append(pyramid.coarsen(complete[-1], np.ones_like(complete[-1][..., :1]))[0])
    guess, hole, log_mse = pyramid.interpolate(*levels[-1]), 0, 0
    apply = jax.jit(model.apply)
    for level in (2, 1, 0):
        image, valid = levels[level]
        output, _ = apply({"params": fresh.params}, image, valid, guess)
        hole += 2 ** (2 - level) / 7 * losses.hole(output, complete[level], valid)
        log_mse += 2 ** (2 - level) / 7 * losses.log_mse(output, complete[level], valid)
        if level:
            guess = pyramid.enlarge(np.where(valid != 0, image, output), levels[level - 1][0].shape[1:3])
    assert row["hole"] == pytest.approx(float(hole), rel=1e-4)
    assert row["log_mse"] == pytest.approx(float(log_mse), rel=1e-4)
    assert row["weighted/log_mse"] == pytest.approx(2 * row["log_mse"], rel=1e-6)


def test_prediction_with_a_pyramid_keeps_valid_pixels_and_reads_no_hole():
    """The composite has the image's valid pixels, and other values in the hole give the same output."""
    config = runs.tiny(**PYRAMID)
    model, variables = build.unet_model(config), build.initial_state(config).eval_variables
    batch = runs.batch(config)
    predict = jax.jit(steps.make_predict(model, config.train.pyramid_levels))
    output, filled = predict(variables, batch["image"], batch["mask"])
    valid = np.broadcast_to(batch["mask"] == 1, filled.shape)
    np.testing.assert_array_equal(np.round(np.asarray(filled) * 255)[valid], batch["image"][valid])
    other = np.where(valid, batch["image"], 255 - batch["image"])
    np.testing.assert_array_equal(predict(variables, other, batch["mask"])[0], output)


def test_batch_statistics_follow_through_the_levels():
    """With batch normalisation, the running statistics are updated once per level of the pyramid."""
    changes = {"model.norm": "batch", "model.momentum": 0.5, "train.batch_size": 2, "train.pyramid_levels": 2}
    config = runs.tiny(**{**PYRAMID, **changes})
    after, _ = step_on(1, config, [runs.batch(config)])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after.batch_stats))
    kept = min(np.min(stats["norm"]["batch"]["var"]) for stats in after.batch_stats.values())
    assert kept >= 0.5**2  # one half of the initial 1 per level


def test_skipped_images_are_counted_over_devices():
    config = runs.tiny()
    batch = runs.constant_batch(config) | {"skipped": np.arange(8, dtype=np.int32)}
    for devices in (1, 4):
        assert step_on(devices, config, [batch])[1][0]["skipped"] == 28


def test_training_learns_a_constant():
    """Fifty steps on grey images reduce the loss to a tenth."""
    config = runs.tiny(**{"optim.lr": 1e-2, "model.norm": "none"})
    _, rows = step_on(1, config, [runs.constant_batch(config)] * 50)
    assert rows[-1]["loss"] < 0.1 * rows[0]["loss"]


def test_prediction_is_composited_and_clamped():
    """Valid pixels are the image's, bit for bit, and filled ones lie in [0, 1]."""
    config = runs.tiny(**{"model.norm": "none"})
    model, variables = build.unet_model(config), runs.initial_state(config).eval_variables
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
    with pytest.raises(ValueError, match=r"is 8 on 4 devices in 3 parts each; needs a multiple of 12: use 12$"):
        parallel.check_batch("train.batch_size", 8, 3)
    parallel.check_batch("train.batch_size", 8)
    parallel.check_batch("train.batch_size", 8, 2)
