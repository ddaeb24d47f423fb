"""Tests of reading grids from NetCDF files: channels, time steps, and the cells that are missing."""

import numpy as np
import pytest
import xarray

import climate
from pconv_jax.errors import UserError
from pconv_jax.reading import netcdf, netcdf_masks


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
    np.testing.assert_array_equal(netcdf_masks.read_holes(path), np.isnan(array))
    ones = np.where(array > 0, 1, np.where(np.isnan(array), np.nan, 0)).astype(np.float32)
    path = climate.write(tmp_path / "b.nc", {"mask": ones})
    np.testing.assert_array_equal(netcdf_masks.read_holes(path), ~(ones == 1))
    path = climate.write(tmp_path / "c.nc", {"zero": np.zeros((2, *climate.GRID), np.float32)})
    assert not netcdf_masks.read_holes(path).any()


def test_rows_run_from_south_to_north(tmp_path):
    """A file from north to south is read in the opposite order of rows, with its latitudes."""
    array, latitude = climate.values(), np.linspace(80, -80, climate.GRID[0])
    path = climate.write(tmp_path / "a.nc", {"tas": array}, latitude=latitude)
    grids = netcdf.read(path)
    np.testing.assert_array_equal(np.where(grids.valid, grids.values, np.nan), array[:, ::-1])
    np.testing.assert_array_equal(grids.coordinate(1), latitude[::-1])
    np.testing.assert_array_equal(netcdf_masks.read_holes(path), np.isnan(array[:, ::-1]))


@pytest.mark.parametrize("dims", [("lat", "lon", "time"), ("lon", "lat", "time"), ("lon", "time", "lat")])
def test_axes_are_found_wherever_they_stand(tmp_path, dims):
    """Latitude and longitude need not be the last axes."""
    array = climate.values()
    order = [("time", "lat", "lon").index(name) for name in dims]
    grids = netcdf.read(climate.write(tmp_path / "a.nc", {"tas": array.transpose(order)}, dims))
    np.testing.assert_array_equal(np.where(grids.valid, grids.values, np.nan), array)


def test_values_that_the_type_cannot_hold_mark_nothing(tmp_path):
    """A `missing_value` of 1e20 beside packed integers does not turn zeros into missing cells; texts mark nothing."""
    array = np.arange(np.prod((2, *climate.GRID)), dtype=np.int16).reshape(2, *climate.GRID)
    variable = ("time", "lat", "lon"), array, {"_FillValue": np.int16(5), "missing_value": 1e20, "scale_factor": 0.5}
    dataset = xarray.Dataset({"tas": variable, "pr": (*variable[:2], {"missing_value": "NaN"})})
    dataset.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    np.testing.assert_array_equal(netcdf.read(str(tmp_path / "a.nc"), "tas").valid, array != 5)
    assert netcdf.read(str(tmp_path / "a.nc"), "pr").valid.all()


def test_bounds_of_coordinates_are_no_grids(tmp_path):
    """The only variable on the grid needs no name, though `lat_bnds` has two axes as well."""
    path = climate.write(tmp_path / "a.nc", {"tas": climate.values()})
    with xarray.open_dataset(path, engine="h5netcdf") as dataset:
        dataset = dataset.load()
    dataset["lat"].attrs["bounds"] = "lat_bnds"
    dataset["lat_bnds"] = (("lat", "bnds"), np.zeros((climate.GRID[0], 2)))
    dataset.to_netcdf(tmp_path / "b.nc", engine="h5netcdf")
    assert netcdf.read(str(tmp_path / "b.nc")).name == "tas"


def test_masks_follow_levels_and_coordinates(tmp_path):
    """A mask of all levels belongs to the same levels; one with other longitudes is refused."""
    array = climate.values(missing=0.0).reshape(2, 5, *climate.GRID)
    measured = (np.random.default_rng(0).uniform(size=array.shape) < 0.5).astype(np.float32)
    dims = ("time", "plev", "lat", "lon")
    grids = netcdf.read(climate.write(tmp_path / "a.nc", {"ta": array}, dims), channel_axis="plev")
    path = climate.write(tmp_path / "mask.nc", {"mask": measured}, dims)
    expected = measured.transpose(1, 0, 2, 3).reshape(grids.valid.shape) == 1
    np.testing.assert_array_equal(netcdf_masks.read_mask(path, grids), expected)
    with xarray.open_dataset(path, engine="h5netcdf") as dataset:
        dataset = dataset.load()
    dataset.assign_coords(lon=dataset["lon"] - 360).to_netcdf(tmp_path / "turn.nc", engine="h5netcdf")
    np.testing.assert_array_equal(netcdf_masks.read_mask(str(tmp_path / "turn.nc"), grids), expected)
    dataset.assign_coords(lon=dataset["lon"] - 180).to_netcdf(tmp_path / "rolled.nc", engine="h5netcdf")
    with pytest.raises(UserError, match=r"rolled.nc has a longitude of -180 to 150 and .* of 0 to 330: remap"):
        netcdf_masks.read_mask(str(tmp_path / "rolled.nc"), grids)
    north = climate.write(tmp_path / "north.nc", {"ta": array}, dims, latitude=np.linspace(80, -80, climate.GRID[0]))
    with xarray.open_dataset(path, engine="h5netcdf") as opened:
        opened.drop_vars("lat").to_netcdf(tmp_path / "bare.nc", engine="h5netcdf")
    flipped = netcdf_masks.read_mask(str(tmp_path / "bare.nc"), netcdf.read(north, channel_axis="plev"))
    np.testing.assert_array_equal(flipped, expected[:, ::-1])  # Without latitudes the rows are those of the data file.
    both = climate.write(tmp_path / "both.nc", {"a": measured, "b": measured}, dims)
    with pytest.raises(UserError, match="keep one variable in the mask's file, or call it ta; it has a, b"):
        netcdf_masks.read_mask(both, grids)
