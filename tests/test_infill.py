"""Tests of the command for NetCDF files: measured values and everything around them stay, and mistakes are named."""

import os

import cv2
import h5py
import numpy as np
import pytest
import xarray

import networks
from pconv_jax import infill
from pconv_jax.errors import UserError
from pconv_jax.inpainting import grids, netcdf_files, weights_file
from pconv_jax.reading import netcdf

SECTION = {"depth": 2, "width": 6, "max_width": 8, "kernels": (3,), "norm": "none", "center": False, "channels": 1}
SECTION |= {"padding": "circular", "any_size": True, "conv_impl": "xla"}
TIMES, HEIGHT, WIDTH = 4, 8, 12


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Writes the weights file of a small random network for 8 x 12 cells."""
    _, variables = networks.random(**SECTION)
    section = {**SECTION, "kernels": [3], "kind": "partial", "dtype": "float32"}
    about = {"name": "test", "step": 0, "licence": "", "credits": "", "grid": [HEIGHT, WIDTH]}
    path = str(tmp_path_factory.mktemp("weights") / "grid.safetensors")
    weights_file.write(path, weights_file.Weights(section, variables, None, about), kernel_dtype=np.float32)
    return path


def raw(dtype=np.float32, missing=1e20):
    """Returns stored values and where they are valid."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(TIMES, HEIGHT, WIDTH)) * (1 if np.dtype(dtype).kind == "f" else 1000)
    valid = rng.uniform(size=values.shape) < 0.6
    return np.where(valid, values, missing).astype(dtype), valid


def write(path, values, attributes, *, engine="h5netcdf", dims=("time", "lat", "lon"), encoding=None, top=78):
    """Writes a file with coordinates, another variable and global attributes."""
    time = xarray.Variable("time", np.arange(TIMES) * 30.5, {"units": "days since 1850-1-1", "calendar": "360_day"})
    latitude = xarray.Variable("lat", np.linspace(-top, top, HEIGHT), {"units": "degrees_north"})
    longitude = xarray.Variable("lon", np.arange(WIDTH) * 30.0, {"standard_name": "longitude"})
    data = {"tas": xarray.Variable(dims, values, {"units": "K", **attributes}), "station": ("lat", np.arange(HEIGHT))}
    dataset = xarray.Dataset(
        data, {"time": time, "lat": latitude, "lon": longitude}, {"title": "test", "history": "made by a test"}
    )
    dataset.encoding["unlimited_dims"] = {"time"}
    form = "NETCDF4" if engine == "h5netcdf" else "NETCDF3_64BIT"
    dataset.to_netcdf(path, engine=engine, format=form, encoding={"tas": encoding or {}})
    return str(path)


def run(weights, data, out, **changes):
    """Runs the command and returns the path of the result."""
    flag_values = infill.flags.FlagValues()
    infill.define_flags(flag_values)
    options = {"weights": weights, "data": data, "out": str(out), "compilation_cache": "false", **changes}
    flag_values(["infill", *(f"--{name}={value}" for name, value in options.items())])
    infill.main(flag_values)
    return str(out)


def undecoded(path):
    """Returns a file's dataset as it is stored."""
    with xarray.open_dataset(path, decode_cf=False, engine=netcdf.engine(path)) as dataset:
        return dataset.load()


FILES = {
    "fill value": (np.float32, 1e20, {"_FillValue": np.float32(1e20), "missing_value": np.float32(1e20)}, {}),
    "NaN, compressed": (np.float64, np.nan, {}, {"encoding": {"zlib": True, "complevel": 4, "chunksizes": (1, 8, 12)}}),
    "packed": (np.int16, -32768, {"_FillValue": np.int16(-32768), "scale_factor": 0.002, "add_offset": 0.5}, {}),
    "NetCDF 3": (np.float32, 1e20, {"_FillValue": np.float32(1e20)}, {"engine": "scipy"}),
    "longitude first": (np.float32, np.nan, {}, {"dims": ("time", "lon", "lat")}),
}


@pytest.mark.parametrize("name", FILES)
def test_only_missing_values_change(tmp_path, weights, name):
    """Stored measured values are the same bits; coordinates, attributes, types and compression stay; history grows."""
    dtype, missing, attributes, options = FILES[name]
    values, valid = raw(dtype, missing)
    axes = (0, 2, 1) if "dims" in options else (0, 1, 2)
    data = write(tmp_path / "data.nc", values.transpose(axes), attributes, **options)
    before, after = undecoded(data), undecoded(run(weights, data, tmp_path / "out.nc", batch_size=3))
    changed = after["tas"].values.transpose(axes)
    assert changed[valid].tobytes() == values[valid].tobytes()
    scale, offset = attributes.get("scale_factor", 1), attributes.get("add_offset", 0)
    assert np.isfinite(changed).all() and (np.isnan(missing) or (changed != np.asarray(missing, dtype)).all())
    network = weights_file.read(weights)
    decoded = np.where(valid, values * float(scale) + offset, 0)
    output = grids.GridInfiller(network.model(), network.variables)(decoded[..., None], valid)[0][..., 0]
    tolerance = scale if np.dtype(dtype).kind == "i" else 1e-5
    np.testing.assert_allclose((changed * float(scale) + offset)[~valid], output[~valid], atol=tolerance)
    assert list(before.variables) == list(after.variables) and before.sizes == after.sizes
    assert before.encoding["unlimited_dims"] == after.encoding["unlimited_dims"]
    for key in before.variables:
        assert before[key].dtype == after[key].dtype and before[key].dims == after[key].dims
        assert str(before[key].attrs) == str(after[key].attrs)
        kept = ("zlib", "complevel", "chunksizes", "shuffle")
        assert [before[key].encoding.get(k) for k in kept] == [after[key].encoding.get(k) for k in kept]
        if key != "tas":
            np.testing.assert_array_equal(before[key], after[key])
    assert before.attrs.keys() == after.attrs.keys() and after.attrs["title"] == "test"
    first, second = after.attrs["history"].split("\n")
    assert f"{(~valid).sum()} missing values of tas filled by grid.safetensors" in first and second == "made by a test"


def test_files_from_north_to_south(tmp_path, weights):
    """The file whose rows are in the opposite order gets the same values in that order."""
    values, _ = raw(missing=np.nan)
    south = write(tmp_path / "south.nc", values, {})
    north = write(tmp_path / "north.nc", values[:, ::-1], {}, top=-78)
    expected, result = (undecoded(run(weights, path, f"{path}.out")) for path in (south, north))
    np.testing.assert_array_equal(result["tas"].values, expected["tas"].values[:, ::-1])
    np.testing.assert_allclose(result["lat"], expected["lat"][::-1], atol=1e-9)


def test_integers_never_become_the_fill_value():
    """Values beyond the range of packed integers take the last integer that does not mark a missing cell."""
    markers = {"_FillValue": np.int16(-32768), "missing_value": np.array([32767, 0, 1], np.int16)}
    variable = xarray.DataArray(np.zeros(2, np.int16), attrs={**markers, "scale_factor": 0.5})
    encoded = netcdf_files._encoded(np.array([-1e9, 0.0, 0.5, 1.0, 1e9]), variable)
    np.testing.assert_array_equal(encoded, [-32767, 2, 2, 2, 32766])


def test_masks_and_maps(tmp_path, weights):
    """Cells that the mask file marks as missing are filled too; the map is a picture that is not empty."""
    values, _ = raw()
    values[values > 1e19] = 0
    data = write(tmp_path / "data.nc", values, {})
    measured = np.ones((TIMES, HEIGHT, WIDTH), np.float32)
    measured[:, 2:4, 3:6] = 0
    mask = write(tmp_path / "mask.nc", measured, {})
    out = run(weights, data, tmp_path / "out.nc", mask=mask, map=tmp_path / "map.png", map_step=1)
    changed = undecoded(out)["tas"].values
    np.testing.assert_array_equal(changed[measured == 1], values[measured == 1])
    assert (changed[measured == 0] != values[measured == 0]).all()
    picture = cv2.imread(str(tmp_path / "map.png"))
    assert picture.shape[1] > 1000 and picture.std() > 10
    wrong = write(tmp_path / "wrong.nc", measured * 2, {})
    with pytest.raises(UserError, match=r"wrong.nc holds 0 to 2; needs 1 measured and 0 missing"):
        run(weights, data, tmp_path / "other.nc", mask=wrong)


def test_nothing_within_reach_stays_missing(tmp_path, weights, capsys):
    """A month without any measured value is left as it was, with a warning."""
    values, _ = raw()
    values[2] = 1e20
    data = write(tmp_path / "data.nc", values, {"_FillValue": np.float32(1e20)})
    changed = undecoded(run(weights, data, tmp_path / "out.nc"))["tas"].values
    assert (changed[2] == np.float32(1e20)).all() and (changed[[0, 1, 3]] < 1e19).all()
    assert f"warning: {HEIGHT * WIDTH} values have no measured value within reach" in capsys.readouterr().err


def test_mistakes_are_named_and_nothing_is_written(tmp_path, weights):
    """Other sizes, variables and files, and paths that would overwrite an input."""
    data = write(tmp_path / "data.nc", raw()[0], {})
    small = tmp_path / "small.nc"
    xarray.Dataset({"a": (("y", "x"), np.zeros((6, 12)))}).to_netcdf(small, engine="h5netcdf")
    (tmp_path / "text.nc").write_text("text")
    with h5py.File(tmp_path / "cut.nc", "w") as file:
        file["x"] = np.zeros(9)
    (tmp_path / "cut.nc").write_bytes((tmp_path / "cut.nc").read_bytes()[:300])
    names = sorted(os.listdir(tmp_path))
    for changes, message in (
        ({"data": small}, r"the grid is 6 x 12 .*; needs 8 x 12"),
        ({"variable": "pr"}, r"has no variable pr on a grid: give --variable, one of tas"),
        ({"data": tmp_path / "none.nc"}, r"no file .*none.nc"),
        ({"data": tmp_path / "text.nc"}, r"starts with b'text'; needs NetCDF 4 or 3"),
        ({"data": tmp_path / "cut.nc"}, r"cut.nc cannot be read as NetCDF"),
        ({"out": data}, r"is an input as well"),
        ({"out": small}, r"small.nc exists: choose another name"),
        ({"out": tmp_path / "no" / "out.nc"}, r"no folder for"),
        ({"map_step": 4}, r"--map_step is 4; .* has 4 time steps"),
    ):
        with pytest.raises(UserError, match=message):
            run(**{"weights": weights, "data": data, "out": tmp_path / "out.nc", **changes})
    assert sorted(os.listdir(tmp_path)) == names
    run(weights, str(small), tmp_path / "out.nc", regrid=True)
