"""Tests of grids as training data: what is held out, what is refused, and masks from gaps of a file."""

import dataclasses
import os

import numpy as np
import pytest
import xarray

import climate
from pconv_jax.data import grid_source, masks, pipeline
from pconv_jax.errors import UserError
from pconv_jax.training import build, validation


def test_the_last_time_steps_of_each_file_are_held_out(tmp_path):
    """Values come unchanged, NaN where missing; the last fraction of each file, of all members, is for evaluation."""
    arrays = [climate.values(steps=20, seed=seed).reshape(2, 10, *climate.GRID) for seed in (1, 2)]
    for name, array in zip("ab", arrays, strict=True):
        climate.write(tmp_path / f"{name}.nc", {"tas": array}, ("member", "time", "lat", "lon"))
    data = climate.config(tmp_path / "*.nc", **{"data.eval_fraction": 0.3}).data
    train, evaluation = grid_source.load(data)
    assert len(train) == 28 and len(evaluation) == 12 and train.values.dtype == np.float32
    kept, held_out = (
        np.concatenate([a[:, part].reshape(-1, *climate.GRID) for a in arrays]) for part in (slice(7), slice(7, None))
    )
    np.testing.assert_array_equal(train.values[..., 0], kept)
    np.testing.assert_array_equal(evaluation.values[..., 0], held_out)
    np.testing.assert_array_equal(train[3][0], train.values[3])
    assert train.names[:2] == ("a.nc 0", "a.nc 1") and evaluation.names[-1] == "b.nc 19"
    assert train.fingerprint() != evaluation.fingerprint()
    assert (train.channels, train.units) == (("tas",), ("K",)) and train.latitude[0] == -78.75
    mean, std = train.statistics()
    assert mean == pytest.approx(np.nanmean(kept), abs=1e-6) and std == pytest.approx(np.nanstd(kept), rel=1e-6)


def test_other_files_for_evaluation(tmp_path):
    """With `data.eval_path` all of `data.path` is for training; a file on both sides is refused."""
    a, b = (climate.write(tmp_path / f"{n}.nc", {"tas": climate.values(seed=i)}) for i, n in enumerate("ab"))
    train, evaluation = grid_source.load(climate.config(a, **{"data.eval_path": b}).data)
    assert len(train) == len(evaluation) == 10
    os.symlink(a, tmp_path / "d.nc")
    with pytest.raises(UserError, match=r"is in data.path and in data.eval_path"):
        grid_source.load(climate.config(a, **{"data.eval_path": f"{b},{tmp_path}/d.nc"}).data)


def test_files_of_different_units_or_latitudes_are_refused(tmp_path):
    """Kelvin and degrees Celsius are not mixed, nor two grids; latitudes in the opposite order are one grid."""
    latitude = np.linspace(-80, 80, climate.GRID[0])
    array = climate.values(missing=0.0)
    climate.write(tmp_path / "a.nc", {"tas": array}, latitude=latitude)
    climate.write(tmp_path / "b.nc", {"tas": array[:, ::-1]}, latitude=latitude[::-1])
    train, _ = grid_source.load(climate.config(tmp_path / "*.nc").data)
    np.testing.assert_array_equal(train.values[:9], train.values[9:])
    np.testing.assert_array_equal(train.latitude, latitude)
    other = climate.write(tmp_path / "c.nc", {"tas": array}, latitude=latitude / 2)
    with pytest.raises(UserError, match=r"c.nc has latitudes of -40 to 40 and .*a.nc of -80 to 80: remap"):
        grid_source.load(climate.config(tmp_path / "a.nc", **{"data.eval_path": other}).data)
    with xarray.open_dataset(other, engine="h5netcdf") as dataset:
        dataset = dataset.load()
    dataset["tas"].attrs["units"] = "degC"
    dataset.to_netcdf(tmp_path / "c.nc", engine="h5netcdf")
    with pytest.raises(UserError, match=r"c.nc has the units degC and .*a.nc K: convert one"):
        grid_source.load(climate.config(tmp_path / "*.nc").data)
    metres = climate.write(tmp_path / "d.nc", {"tas": array}, latitude=1e5 * latitude)
    assert grid_source.load(climate.config(metres).data)[0].latitude is None


def test_mistakes_are_named(tmp_path):
    """Grids, channels, files and variables that do not fit; scales that a network is not trained well on."""
    path = climate.write(tmp_path / "a.nc", {"tas": climate.values(), "pr": climate.values()})
    single = climate.write(tmp_path / "b.nc", {"tas": climate.values(steps=1)})
    for changes, message in (
        (
            {"data.grid": (8, 16)},
            r"has a grid of \(8,12\) cells and data.grid is \(8, 16\): set --config.data.grid='\(8,",
        ),
        ({"data.variable": "ts"}, r"has no variable ts on a grid: give --config.data.variable, one of tas, pr"),
        ({"data.path": f"{tmp_path}/*.grib"}, r"no file .*\*.grib: set data.path to NetCDF files"),
        ({"data.path": single}, "has 1 time step; needs at least 2, or files in data.eval_path"),
        (
            {"data.variable": "tas,pr"},
            r"the data have 2 channels \(tas, pr\) and model.channels is 1: set --config.model",
        ),
    ):
        with pytest.raises(UserError, match=message):
            build.image_sources(climate.config(path, **changes))
    empty = climate.write(tmp_path / "c.nc", {"tas": np.full((4, *climate.GRID), np.nan, np.float32)})
    with pytest.raises(UserError, match="a channel has no known value"):
        build.image_sources(climate.config(empty))


def test_a_scale_far_from_one_is_a_warning(tmp_path, caplog):
    """Kelvin of 288 without standardisation is warned of, with the keys to set; with them nothing is."""
    path = climate.write(tmp_path / "a.nc", {"tas": 288 + 20 * climate.values()})
    build.image_sources(climate.config(path))
    assert "the values have mean 28" in caplog.text and "set --config.model.input_mean='(28" in caplog.text
    caplog.clear()
    build.image_sources(climate.config(path, **{"model.input_mean": (288.0,), "model.input_std": (25.0,)}))
    assert not caplog.records


def test_grids_reach_the_batch_unchanged(tmp_path):
    """A batch holds whole grids as float32 with NaN where missing, in the order of the epoch."""
    array = climate.values()
    config = climate.config(climate.write(tmp_path / "a.nc", {"tas": array}), **{"train.batch_size": 9})
    train, _ = build.image_sources(config)
    batch = next(iter(build.train_batches(config, train, 0)))
    assert batch["image"].dtype == np.float32 and batch["mask"].dtype == np.uint8
    order = pipeline.epoch_order(config.seed, 0, 9)
    np.testing.assert_array_equal(batch["image"][..., 0], array[:9][order])
    assert batch["mask"].shape == (9, *climate.GRID, 1)


def test_masks_are_gaps_of_a_file(tmp_path):
    """Every mask is that of one time step whose area fits; all time steps occur; evaluation is fixed."""
    array = climate.values(missing=0.0)
    for step in range(10):
        array[step, : 1 + step // 2] = np.nan  # 12 to 60 of 96 cells
    path = climate.write(tmp_path / "a.nc", {"tas": array, "other": climate.values()})
    family = masks.Family("netcdf", (0.0, 1.0), path=path, variable="tas")
    drawn = [masks.draw_named(family, 0, 0, index, climate.GRID) for index in range(60)]
    assert {name for _, name in drawn} == {f"a.nc {step}" for step in range(10)}
    for mask, name in drawn:
        np.testing.assert_array_equal(mask[..., 0] == 0, np.isnan(array[int(name.split()[1])]))
    narrow = dataclasses.replace(family, area=(0.3, 0.4))
    assert {masks.draw_named(narrow, 0, 0, index, climate.GRID)[1] for index in range(20)} == {"a.nc 4", "a.nc 5"}
    with pytest.raises(UserError, match=r"the 10 time steps of .* miss 0.125 to 0.625 of the cells; none fits"):
        masks.draw(dataclasses.replace(family, area=(0.7, 0.8)), 0, 0, 0, climate.GRID)
    with pytest.raises(UserError, match="have 8 x 12 cells; needs 8 x 16, as the data have"):
        masks.draw(family, 0, 0, 0, (8, 16))
    with pytest.raises(UserError, match=r'mask border is 0.1; masks of kind "netcdf" are used as they are'):
        dataclasses.replace(family, border=0.1)
    config = climate.config(path, **{"masks.kind": "netcdf", "masks.path": path, "masks.variable": "tas"})
    assert build.fingerprints(config, *build.image_sources(config))["train masks"].startswith("tas of a.nc, ")


GRIDS = {"data.source": "netcdf", "data.path": "a.nc", "data.flip": False, "data.grid": (36, 72), "model.depth": 2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.grid": ()}, r'data.source is "netcdf" and data.grid is empty: set --config.data.grid'),
        ({"data.flip": True}, r"data.flip is True and grids are used as they are: set --config.data.flip=False"),
        ({"data.path": ""}, "data.path is empty: set --config.data.path to NetCDF files"),
        ({"model.depth": 3}, "data.grid: image is 36x72; needs multiples of 8"),
        ({"loss.vgg16_weights": "vgg.npz"}, "loss.vgg16_weights is set and the data are no photographs"),
        ({"model.guess": True, "train.pyramid_levels": 1}, "grids are filled at once"),
        ({"masks.variable": "tas"}, 'masks.variable is set and the kind is "strokes": set masks.kind=netcdf'),
        ({"data.source": "photos", "data.path": ""}, r'data.grid is set and data.source is "photos": set .*=netcdf'),
        (
            {"data.source": "photos", "data.path": "", "data.grid": (), "loss.area_weights": True},
            'loss.area_weights is True; needs data.source "netcdf"',
        ),
        (
            {"data.source": "photos", "data.path": "", "data.grid": (), "model.channels": 2},
            "model.channels is 2; needs 3 for RGB or 1 for grey",
        ),
    ],
)
def test_wrong_settings_are_named(changes, message):
    """Settings for grids that do not fit each other, or that photographs do not have."""
    validation.validate(climate.runs.tiny(**GRIDS))
    with pytest.raises(UserError, match=message):
        validation.validate(climate.runs.tiny(**{**GRIDS, **changes}))
