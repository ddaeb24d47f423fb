"""Tests of training on grids: unknown values never count, loops of the area-weighted loss, and a whole run."""

import json
import os

import jax
import numpy as np
import pytest
import xarray

import climate
import networks
import runs
from pconv_jax import evaluate, infill, train
from pconv_jax.errors import UserError
from pconv_jax.evaluation import grid_evaluator
from pconv_jax.inpainting import weights_file
from pconv_jax.ops import losses, pyramid
from pconv_jax.training import build, optimizers, parallel, steps


def grids(seed=0, shape=(2, 8, 12, 2)):
    """Returns `(output, target, mask, weight)`."""
    rng = np.random.default_rng(seed)
    output, target = rng.normal(size=shape).astype(np.float32), rng.normal(size=shape).astype(np.float32)
    mask = (rng.uniform(size=(*shape[:3], 1)) < 0.6).astype(np.float32)
    known = (rng.uniform(size=shape) < 0.8).astype(np.float32)
    return output, target, mask, known * losses.area_weights(np.linspace(-85, 85, shape[1]))


def test_area_weights_are_the_cosine_of_latitude():
    """Cells count in proportion to their area, on average once; a pole counts 0."""
    latitude = np.linspace(-90, 90, 7)
    weights = losses.area_weights(latitude)
    assert weights.shape == (1, 7, 1, 1) and abs(weights[0, 0, 0, 0]) < 1e-9 and weights.mean() == pytest.approx(1)
    for degrees, weight in zip(latitude, weights.ravel(), strict=True):
        assert weight / weights[0, 3, 0, 0] == pytest.approx(np.cos(np.pi * degrees / 180), abs=1e-6)


def test_weighted_terms_equal_the_loop():
    """Every element counts by its weight, in a mean over all elements; `log_mse` is a weighted mean over the hole."""
    output, target, mask, weight = grids()
    of_valid = of_hole = 0.0
    squares, counts = np.zeros(2), np.zeros(2)
    for n, i, j, c in np.ndindex(output.shape):
        difference = abs(float(output[n, i, j, c]) - float(target[n, i, j, c]))
        if mask[n, i, j, 0]:
            of_valid += weight[n, i, j, c] * difference
        else:
            of_hole += weight[n, i, j, c] * difference
            squares[n] += weight[n, i, j, c] * difference**2
            counts[n] += weight[n, i, j, c]
    assert losses.valid(output, target, mask, weight) == pytest.approx(of_valid / output.size, rel=1e-5)
    assert losses.hole(output, target, mask, weight) == pytest.approx(of_hole / output.size, rel=1e-5)
    expected = np.mean(np.log(squares / counts + 1 / 255**2))
    assert losses.log_mse(output, target, mask, weight) == pytest.approx(expected, rel=1e-5)
    ones = np.ones_like(weight)
    for term in (losses.valid, losses.hole, losses.log_mse):
        assert term(output, target, mask, ones) == pytest.approx(float(term(output, target, mask)), rel=1e-6)


def test_decoding_separates_what_is_known():
    """NaN becomes 0, is not known, and is a hole for the network in all channels; uint8 images are scaled as ever."""
    image = np.ones((1, 2, 2, 2), np.float32)
    image[0, 0, 0, 1] = np.nan
    mask = np.array([[1, 1], [0, 1]], np.uint8).reshape(1, 2, 2, 1)
    values, valid, known = steps.decode(image, mask)
    np.testing.assert_array_equal(values, np.nan_to_num(image))
    np.testing.assert_array_equal(valid[0, ..., 0], [[0, 1], [0, 1]])
    np.testing.assert_array_equal(known, ~np.isnan(image))
    values, valid, known = steps.decode(np.full((1, 2, 2, 3), 255, np.uint8), mask)
    assert known is None and (np.asarray(values) == 1).all() and (np.asarray(valid) == mask).all()


def batch(seed=0, count=8):
    """Returns a batch of grids with unknown values and holes."""
    image = climate.values(count, seed=seed)[..., None]
    mask = (np.random.default_rng(seed).uniform(size=image.shape) < 0.6).astype(np.uint8)
    return {"image": image, "mask": mask, "skipped": np.zeros(count, np.int32)}


def step(config, examples, devices=1, area=None):
    """Returns the metrics of a training step, and the state after it."""
    experiment = build.experiment(config)
    train_step = experiment.make_step(runs.phases(config)[0])
    if area is not None:
        train_step = steps.make_train_step(
            build.unet_model(config),
            optimizers.from_config(config),
            lambda step: config.loss.weights.to_dict(),
            None,
            runs.phases(config)[0],
            area=area,
        )
    mapped = jax.pmap(
        train_step, parallel.AXIS, in_axes=(None, 0, None), out_axes=(None, None), devices=jax.devices()[:devices]
    )
    parts = {name: value.reshape(devices, -1, *value.shape[1:]) for name, value in examples.items()}
    state, metrics = jax.device_get(mapped(runs.initial_state(config), parts, {}))
    return {name: float(value) for name, value in metrics.items()}, state


def test_loss_is_that_of_known_values_alone():
    """The logged terms equal a loop over the known values in units of `input_std`, weighted by area."""
    config = climate.config("none", **{"model.norm": "none", "model.input_mean": (1.0,), "model.input_std": (2.0,)})
    examples, area = batch(), losses.area_weights(np.linspace(-80, 80, climate.GRID[0]))
    metrics, _ = step(config, examples, area=area)
    state = runs.initial_state(config)
    known = ~np.isnan(examples["image"])
    image, mask = np.where(known, examples["image"], 0), examples["mask"] * known
    output, _ = build.unet_model(config).apply(state.eval_variables, image, mask.astype(np.float32))
    totals = {"valid": 0.0, "hole": 0.0}
    for n, i, j, c in zip(*np.nonzero(known), strict=True):
        difference = abs(float(output[n, i, j, c]) - float(image[n, i, j, c])) / 2.0
        totals["valid" if mask[n, i, j, 0] else "hole"] += float(area[0, i, 0, 0]) * difference
    for name, total in totals.items():
        assert metrics[name] == pytest.approx(total / image.size, rel=1e-4), name
    assert np.isfinite(list(metrics.values())).all()


def test_devices_and_parts_of_a_batch_agree():
    """Four devices and a batch in four parts give the same step, however many values each part knows."""
    config = climate.config("none", **{"model.norm": "none"})
    examples = batch()
    examples["image"][:2] = np.nan
    four, state = step(config, examples, devices=4)
    parts, other = step(climate.config("none", **{"model.norm": "none", "train.accumulate": 4}), examples)
    for name in four:
        assert four[name] == pytest.approx(parts[name], rel=2e-4), name
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(other.params), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5 + 1e-3 * np.abs(a).max())


def test_scores_equal_the_loop():
    """Errors are those of hidden known values over all batches, per channel; nothing else counts."""
    rng, area = np.random.default_rng(0), losses.area_weights(np.linspace(-80, 80, 8))
    batches = []
    for seed in (0, 1):
        image = np.stack([climate.values(3, seed=seed), 5 * climate.values(3, seed=seed + 9)], axis=-1)
        batches.append({"image": image, "mask": (rng.uniform(size=(*image.shape[:3], 1)) < 0.5).astype(np.uint8)})
    rows = grid_evaluator.score_fills(
        {"a": lambda image, mask: np.full_like(image, 0.5)}, batches, area, ("tas", "pr"), ("K", "")
    )
    for channel, row in enumerate(rows):
        errors, weights = [], []
        for each in batches:
            for n, i, j in np.ndindex(each["image"].shape[:3]):
                value = each["image"][n, i, j, channel]
                if not each["mask"][n, i, j, 0] and not np.isnan(value):
                    errors.append(0.5 - float(value))
                    weights.append(float(area[0, i, 0, 0]))
        errors, weights = np.array(errors), np.array(weights)
        assert (row["method"], row["channel"], row["values"]) == ("a", ("tas", "pr")[channel], len(errors))
        assert row["rmse"] == pytest.approx(np.sqrt(np.mean(errors**2)))
        assert row["area_rmse"] == pytest.approx(np.sqrt((weights * errors**2).sum() / weights.sum()))
        assert (row["mae"], row["bias"]) == pytest.approx((np.abs(errors).mean(), errors.mean()))
    nothing = [{"image": batches[0]["image"], "mask": np.ones_like(batches[0]["mask"])}]
    assert np.isnan(
        grid_evaluator.score_fills({"a": lambda i, m: i}, nothing, area, ("tas", "pr"), ("", ""))[0]["rmse"]
    )


def test_simple_fills():
    """The constant, the mean of the latitude, and the interpolation read visible values alone."""
    image = climate.values(2, missing=0.0)[..., None]
    mask = np.ones_like(image, np.uint8)
    mask[0, 2] = mask[0, 3, :6] = 0
    image[1, 4, 0] = np.nan
    fills = grid_evaluator.simple_fills(np.array([7.0], np.float32))
    assert (fills["constant"](image, mask) == 7).all()
    zonal = fills["zonal mean"](image, mask)
    seen = (mask[0] != 0) & ~np.isnan(image[0])
    assert zonal[0, 3, 0, 0] == pytest.approx(image[0, 3, 6:].mean(), rel=1e-5)
    assert zonal[0, 2, 5, 0] == pytest.approx(image[0][seen].mean(), rel=1e-5)
    assert zonal[1, 4, 3, 0] == pytest.approx(image[1, 4, 1:].mean(), rel=1e-5)
    assert (fills["zonal mean"](image, np.zeros_like(mask)) == 7).all()
    expected = pyramid.interpolate(np.nan_to_num(image) - 7, ((mask != 0) & ~np.isnan(image)).astype(np.float32)) + 7
    changed = np.where(mask == 0, 1e6, image)
    for values in (image, changed):
        np.testing.assert_allclose(fills["interpolation"](values, mask), expected, atol=1e-3)


def command(module, **options):
    """Runs a command in this process."""
    flag_values = module.flags.FlagValues()
    module.define_flags(flag_values)
    flag_values(["command", *(f"--{name}={value}" for name, value in options.items())])
    module.main(flag_values)


def test_a_run_from_the_file_to_the_filled_file(tmp_path, capsys):
    """A network of two variables is trained, scored in their units, exported, and fills both in a file."""
    data = {"tas": climate.values(steps=20), "pr": 1e-3 * climate.values(steps=20, seed=1)}
    path = climate.write(tmp_path / "data.nc", data)
    config = climate.config(
        path,
        **{
            "data.variable": "tas,pr",
            "model.channels": 2,
            "model.input_mean": (0.0, 0.0),
            "model.input_std": (1.0, 1e-3),
            "masks.kind": "netcdf",
            "masks.path": path,
            "masks.variable": "tas",
            "loss.area_weights": True,
            "optim.ema": 0.5,
        },
    )
    workdir = str(tmp_path / "run")
    train.train(config, workdir)
    printed = capsys.readouterr().out
    assert "| network | tas [K] |" in printed and "| zonal mean | pr [K] |" in printed
    with open(os.path.join(workdir, "eval", "last.json"), encoding="utf-8") as file:
        rows = json.load(file)["rows"]
    assert [row["method"] for row in rows[::2]] == ["network", "constant", "zonal mean", "interpolation"]
    assert rows[2]["rmse"] > 100 * rows[3]["rmse"] > 0  # in the units of each variable
    with open(os.path.join(workdir, "metrics.jsonl"), encoding="utf-8") as file:
        scored = [row["eval_rmse"] for row in map(json.loads, file) if "eval_rmse" in row]
    standardised = np.sqrt(np.mean([(row["rmse"] / std) ** 2 for row, std in zip(rows[:2], (1, 1e-3), strict=True)]))
    assert scored[-1] == pytest.approx(standardised, rel=1e-5)
    assert os.path.exists(os.path.join(workdir, "samples", "step_0000004.png"))

    command(evaluate, run=workdir, checkpoint="best", compilation_cache="false")
    assert os.path.exists(os.path.join(workdir, "eval", "best.json"))
    with pytest.raises(UserError, match="only a run itself is evaluated on grids"):
        command(evaluate, run=workdir, manifest=str(tmp_path), compilation_cache="false")

    exported = networks.export(workdir, str(tmp_path / "weights.safetensors"))
    about = weights_file.read(exported).about
    assert (about["grid"], about["variables"], about["channel_axis"]) == ([8, 12], ["tas", "pr"], "")
    filled = {}
    for name, network in (("run", {"run": workdir}), ("weights", {"weights": exported})):
        command(infill, data=path, out=f"{tmp_path}/{name}.nc", compilation_cache="false", **network)
        with xarray.open_dataset(f"{tmp_path}/{name}.nc", engine="h5netcdf") as dataset:
            filled[name] = dataset.load()
    for key, before in data.items():
        known = ~np.isnan(before)
        after = filled["run"][key].values
        assert after[known].tobytes() == before[known].tobytes() and np.isfinite(after).all()
        np.testing.assert_allclose(filled["weights"][key].values, after, atol=0.02 * np.abs(before[known]).max())
    with pytest.raises(UserError, match="the data have 1 channels and the network has 2"):
        command(infill, data=path, variable="tas", out=f"{tmp_path}/x.nc", compilation_cache="false", run=workdir)
    with pytest.raises(UserError, match="give the network: either --weights=FILE or --run=DIR"):
        command(infill, data=path, out=f"{tmp_path}/x.nc")
