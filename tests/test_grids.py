"""Tests of networks on grids of the earth: batches, sizes, resampling, and the published network on real months."""

import dataclasses

import h5py
import numpy as np
import pytest

import networks
from pconv_jax.errors import UserError
from pconv_jax.inpainting import grids, weights_file
from pconv_jax.tools import import_weights

GRID = {"channels": 1, "padding": "circular", "any_size": True, "center": False, "conv_impl": "xla"}


def months(count=5, height=8, width=12):
    """Returns random values of one channel and where they are valid."""
    rng = np.random.default_rng(0)
    valid = rng.uniform(size=(count, height, width)) < 0.5
    return rng.normal(size=(count, height, width, 1)), valid


def test_the_result_does_not_depend_on_the_batch_size():
    """Every time step equals one application of the network; progress ends at the last step."""
    model, variables = networks.random(**GRID)
    values, valid = months()
    reports = []
    output, seen = grids.GridInfiller(model, variables, batch_size=2)(values, valid, lambda *x: reports.append(x))
    assert reports == [(2, 5), (4, 5), (5, 5)]
    other, other_seen = grids.GridInfiller(model, variables, batch_size=5)(values, valid)
    np.testing.assert_array_equal(seen, other_seen)
    np.testing.assert_allclose(output, other, atol=1e-6)
    image = np.where(valid[..., None], values, 0).astype(np.float32)
    expected, _ = model.apply(variables, image, valid[..., None].astype(np.float32))
    np.testing.assert_allclose(output, expected, atol=1e-6)


def test_a_month_without_values_is_not_seen():
    """Where nothing is within reach, nothing is filled."""
    model, variables = networks.random(**GRID)
    values, valid = months(2)
    valid[1] = False
    _, seen = grids.GridInfiller(model, variables)(values, valid)
    assert seen[0].all() and not seen[1].any()


def test_networks_of_the_other_row_order():
    """A network that was trained with north first sees the rows in that order; the result has that of the data."""
    model, variables = networks.random(**GRID)
    values, valid = months(2)
    output, seen = grids.GridInfiller(model, variables, north_first=True)(values, valid)
    expected, expected_seen = grids.GridInfiller(model, variables)(values[:, ::-1], valid[:, ::-1])
    np.testing.assert_array_equal(output, expected[:, ::-1])
    np.testing.assert_array_equal(seen, expected_seen[:, ::-1])


def test_other_grids_are_refused_or_resampled():
    """The message names both sizes; with `regrid` the output has the size of the data."""
    model, variables = networks.random(**GRID)
    values, valid = months(height=6, width=12)
    with pytest.raises(UserError, match=r"the grid is 6 x 12 \(latitude x longitude\); needs 8 x 12, .* --regrid"):
        grids.GridInfiller(model, variables, (8, 12))(values, valid)
    output, seen = grids.GridInfiller(model, variables, (8, 12), regrid=True)(values, valid)
    assert output.shape == values.shape and seen.any() and np.isfinite(output).all()
    same, _ = grids.GridInfiller(model, variables, (6, 12), regrid=True)(values, valid)
    np.testing.assert_allclose(same, grids.GridInfiller(model, variables)(values, valid)[0], atol=1e-6)
    with pytest.raises(UserError, match="do not record the network's grid"):
        grids.GridInfiller(model, variables, regrid=True)
    with pytest.raises(UserError, match="image is 6x12; needs multiples of 4"):
        grids.GridInfiller(model.clone(any_size=False), variables)(values, valid)
    with pytest.raises(UserError, match="the data have 1 channels and the network has 3"):
        grids.GridInfiller(*networks.random(**{**GRID, "channels": 3}))(values, valid)
    with pytest.raises(UserError, match="takes a guess"):
        grids.GridInfiller(model.clone(guess=True), variables)


@pytest.mark.parametrize("size", [(8, 12), (4, 6), (16, 24), (5, 9)])
def test_resampling_is_the_mean_over_overlaps(size):
    """Each new cell is the mean of the valid old cells that it overlaps, weighted by the overlap, as in a loop."""
    values, valid = months(1)
    values = values[..., 0]
    result, seen = grids.resample(np.where(valid, values, np.nan), valid, size)
    for i, j in np.ndindex(size):
        total = weight = 0
        for a, b in np.ndindex(8, 12):
            rows = min((i + 1) / size[0], (a + 1) / 8) - max(i / size[0], a / 8)
            columns = min((j + 1) / size[1], (b + 1) / 12) - max(j / size[1], b / 12)
            if rows > 1e-9 and columns > 1e-9 and valid[0, a, b]:
                total, weight = total + rows * columns * values[0, a, b], weight + rows * columns
        assert seen[0, i, j] == (weight > 0)
        if weight:
            np.testing.assert_allclose(result[0, i, j], total / weight, rtol=1e-5, atol=1e-6)


def test_real_months(tmp_path, shared_data):
    """On hidden blocks of real months the error is near 1.00 K, and larger with zero padding or another slope."""
    path = str(tmp_path / "crai.safetensors")
    import_weights.import_file(str(shared_data("crai/20crtasgn72.pth")), path, grid="72x72")
    weights = weights_file.read(path)
    with h5py.File(shared_data("crai/tas_hadcrut_187709_189308.nc")) as file:
        values = file["tas"][:].astype(np.float64)
    known, rng = values < 1e19, np.random.default_rng(0)
    draws = [rng.uniform(size=(2, 18, 18)) < 0.25 for _ in range(20)]
    hidden = np.concatenate([draw.repeat(4, 1).repeat(4, 2) & known for draw in draws])
    values, known = np.tile(values, (20, 1, 1)), np.tile(known, (20, 1, 1))
    assert abs(hidden.sum() / known.sum() - 0.25) < 0.02

    def error(**changes):
        model = dataclasses.replace(weights, section={**weights.section, **changes}).model()
        network = grids.GridInfiller(model, weights.variables, (72, 72), batch_size=40)
        output, seen = network(values[..., None], known & ~hidden)
        return np.sqrt(np.mean((np.where(seen, output[..., 0], 0) - values)[hidden] ** 2))

    rmse = {"published": error(), "zero padding": error(padding="hole"), "slope 0.2": error(negative_slope=0.2)}
    assert 0.97 < rmse["published"] < 1.03
    assert rmse["zero padding"] > rmse["published"] + 0.02
    assert rmse["slope 0.2"] > rmse["published"] + 0.02


def test_several_channels_are_those_of_the_network():
    """Two channels go through the network together, also when they are resampled."""
    model, variables = networks.random(**{**GRID, "channels": 2})
    values = np.concatenate([months()[0], 2 * months()[0][::-1]], axis=-1)
    valid = months()[1]
    output, _ = grids.GridInfiller(model, variables)(values, valid)
    image = np.where(valid[..., None], values, 0).astype(np.float32)
    expected, _ = model.apply(variables, image, valid[..., None].astype(np.float32))
    np.testing.assert_allclose(output, expected, atol=1e-5)
    resampled, _ = grids.GridInfiller(model, variables, (4, 6), regrid=True)(values, valid)
    assert resampled.shape == values.shape and (resampled[..., 0] != resampled[..., 1]).any()
