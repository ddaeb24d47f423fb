"""Tests of reading grids from NetCDF files: channels, time steps, and the cells that are missing."""

import numpy as np
import pytest

import climate
from pconv_jax.errors import UserError
from pconv_jax.reading import netcdf


def test_variables_and_levels_are_channels(tmp_path):
    """Each variable, and each entry of the channel axis, is a channel, wherever the axis stands; `unstack` inverts."""
    array = np.stack([climate.values(seed=seed) for seed in range(3)])  # level, time, latitude, longitude
    by_name = {"ta": array.transpose(1, 0, 2, 3), "hus": 2 * array.transpose(1, 0, 2, 3)}
    path = climate.write(tmp_path / "a.nc", by_name, ("time", "plev", "lat", "lon"))
    variables = netcdf.read_all(path, ("ta", "hus"), "plev")
    stacked, valid = netcdf.stack(variables)
    assert stacked.shape == (10, *climate.GRID, 6) and [v.levels for v in variables] == [3, 3]
    for channel in range(6):
        expected = array[channel % 3] * (1 + channel // 3)
        np.testing.assert_array_equal(np.where(valid, stacked, np.nan)[..., channel], expected)
    for part, variable in zip(netcdf.unstack(stacked, variables), variables, strict=True):
        np.testing.assert_array_equal(part, variable.values)
    single = netcdf.read_all(path, ("ta",))
    assert netcdf.stack(single)[0].shape == (30, *climate.GRID, 1)
    with pytest.raises(UserError, match="have no axis height; axes are time, plev, lat, lon"):
        netcdf.read_all(path, ("ta",), "height")
    with pytest.raises(UserError, match="lat is an axis of the grid of ta"):
        netcdf.read_all(path, ("ta",), "lat")


def test_variables_of_different_shapes_are_refused(tmp_path):
    """The message has the shape of each variable."""
    path = climate.write(tmp_path / "a.nc", {"tas": climate.values()})
    import xarray

    with xarray.open_dataset(path, engine="h5netcdf") as dataset:
        dataset = dataset.load()
    dataset["orog"] = dataset["tas"].isel(time=0)
    dataset.to_netcdf(tmp_path / "b.nc", engine="h5netcdf")
    with pytest.raises(UserError, match=r"different shapes \(orog: 1 x 8 x 12; tas: 10 x 8 x 12\)"):
        netcdf.read_all(str(tmp_path / "b.nc"), ("tas", "orog"))


def test_time_is_found_wherever_it_stands(tmp_path):
    """Members of an ensemble share their time steps: `steps` has one row per time step."""
    array = climate.values(steps=6).reshape(2, 3, *climate.GRID)
    path = climate.write(tmp_path / "a.nc", {"tas": array}, ("member", "time", "lat", "lon"))
    np.testing.assert_array_equal(netcdf.read(path).steps(), [[0, 3], [1, 4], [2, 5]])
    path = climate.write(tmp_path / "b.nc", {"tas": array}, ("time", "member", "lat", "lon"))
    np.testing.assert_array_equal(netcdf.read(path).steps(), [[0, 1, 2], [3, 4, 5]])
    path = climate.write(tmp_path / "c.nc", {"tas": array[0, 0]}, ("lat", "lon"))
    np.testing.assert_array_equal(netcdf.read(path).steps(), [[0]])


def test_holes_are_missing_values_or_the_zeros_of_a_mask(tmp_path):
    """Missing values are holes; in a variable of zeros and ones, the zeros too. Other values are no mask."""
    array = climate.values()
    path = climate.write(tmp_path / "a.nc", {"tas": array})
    np.testing.assert_array_equal(netcdf.read_holes(path), np.isnan(array))
    ones = np.where(array > 0, 1, np.where(np.isnan(array), np.nan, 0)).astype(np.float32)
    path = climate.write(tmp_path / "b.nc", {"mask": ones})
    np.testing.assert_array_equal(netcdf.read_holes(path), ~(ones == 1))
    path = climate.write(tmp_path / "c.nc", {"zero": np.zeros((2, *climate.GRID), np.float32)})
    assert not netcdf.read_holes(path).any()
