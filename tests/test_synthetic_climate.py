"""Tests of the synthetic ensemble: smooth, periodic in longitude, with gaps, and readable by infill."""

import numpy as np
import pytest
import xarray

from pconv_jax.errors import UserError
from pconv_jax.reading import netcdf
from pconv_jax.tools import synthetic_climate


def run(out, **changes):
    """Runs the tool."""
    flag_values = synthetic_climate.flags.FlagValues()
    synthetic_climate.define_flags(flag_values)
    flag_values(["tool", *(f"--{name}={value}" for name, value in {"out": out, "months": 6, **changes}.items())])
    synthetic_climate.main(flag_values)


def test_the_file_has_gaps_and_the_truth(tmp_path):
    """Measured values are those of the complete field; later months are measured more densely."""
    path = str(tmp_path / "e.nc")
    run(path, grid="36,72")
    with xarray.open_dataset(path, engine="h5netcdf") as dataset:
        assert str(dataset["time"].values[-1]).startswith("1900-06-01")
    gaps, complete = netcdf.read(path, "tas"), netcdf.read(path, "tas_complete")
    assert gaps.values.shape == (6, 36, 72) and complete.valid.all()
    np.testing.assert_array_equal(gaps.values[gaps.valid], complete.values[gaps.valid])
    np.testing.assert_allclose(gaps.valid.mean(axis=(1, 2)), np.linspace(0.3, 0.8, 6), atol=0.01)
    for changes, message in (({"grid": "36"}, "needs two numbers"), ({}, "exists: choose another")):
        with pytest.raises(UserError, match=message):
            run(path if not changes else tmp_path / "other.nc", **changes)


def test_fields_are_smooth_across_the_date_line_and_persist():
    """Neighbours across the edge of the map differ as little as others; months resemble the month before."""
    fields, _ = synthetic_climate.draw(40, 36, 72, 0)
    inner, edge = np.abs(np.diff(fields, axis=2)).mean(), np.abs(fields[:, :, 0] - fields[:, :, -1]).mean()
    assert 0.7 * inner < edge < 1.3 * inner < 0.5 * np.abs(fields).mean()
    assert np.corrcoef(fields[:-1].ravel(), fields[1:].ravel())[0, 1] > 0.6
