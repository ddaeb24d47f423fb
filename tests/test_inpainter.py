"""Tests of the Inpainter: the network's output in the hole and the image elsewhere, for any size, depth and tiles."""

import functools
import logging
import re

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
import scipy.ndimage

import networks
import runs
from pconv_jax.errors import UserError
from pconv_jax.inpainting import inpainter, pyramid, tiled_network
from pconv_jax.models import unet
from pconv_jax.ops import pyramid as ops_pyramid
from pconv_jax.training import rundir


def picture(height, width, channels=3, seed=0):
    """Returns waves with some noise, float32 in [0, 1]."""
    y, x = np.mgrid[:height, :width]
    phase = np.arange(channels)
    waves = np.sin(y[..., None] / 7 + phase) * np.cos(x[..., None] / (5 + phase))
    noise = np.random.default_rng(seed).normal(0, 0.05, (height, width, channels))
    return np.clip(0.5 + 0.25 * waves + noise, 0, 1).astype(np.float32)


def hole(height, width):
    """Returns a block and a thin stroke along the whole width, which touch the border."""
    mask = np.ones((height, width), np.uint8)
    mask[height // 3 : height // 3 + 8, width // 4 : width // 2] = 0
    mask[-7:-2] = 0
    return mask


@functools.cache
def filler(tile=inpainter.TILE, **options):
    """Returns an Inpainter for `networks.random(**options)`, whose compiled functions tests share."""
    return inpainter.Inpainter(*networks.random(**options), tile)


@functools.cache
def compiled(model):
    return jax.jit(model.apply)


def applied(model, variables, image, mask, **options):
    """Applies the model to an image `[H, W, C]` without padding, and returns the raw output and the pixels seen."""
    image, mask = jnp.asarray(image)[None], jnp.asarray(mask, jnp.float32)[None, ..., None]
    output, seen = compiled(model)(variables, image, mask, **options)
    return np.asarray(output)[0], None if seen is None else np.asarray(seen)[0, ..., 0]


def test_64_bits_of_another_program_change_nothing(tmp_path):
    """With jax_enable_x64 a run's checkpoint is restored, and the filling has the same bits as without."""
    config = runs.tiny()
    run = networks.save_run(tmp_path / "run", config, [(networks.random_state(config), 20.0)])
    image, mask = picture(45, 61), hole(45, 61)
    wanted = inpainter.Inpainter.from_run(run)(image, mask)
    with jax.enable_x64(True):
        np.testing.assert_array_equal(inpainter.Inpainter.from_run(run)(image, mask), wanted)


def test_images_of_other_libraries():
    """Arrays of JAX, Pillow images, nested lists and masked arrays are what NumPy makes of them."""
    image, mask = (255 * picture(20, 30)).astype(np.uint8), hole(20, 30)
    fill = filler()
    wanted = fill(image, mask)
    for other in (jnp.asarray(image), PIL.Image.fromarray(image), np.ma.masked_array(image)):
        np.testing.assert_array_equal(fill(other, mask), wanted)
    for other in (jnp.asarray(mask), mask.tolist(), mask.astype(bool).tolist(), PIL.Image.fromarray(mask)):
        np.testing.assert_array_equal(fill(image, other), wanted)
    hidden = np.zeros(image.shape, bool)
    hidden[3:9, 4:7, 1] = True
    both = mask.copy()
    both[3:9, 4:7] = 0
    np.testing.assert_array_equal(fill(np.ma.masked_array(image, hidden), mask), fill(image, both))
    np.testing.assert_array_equal(fill(image, np.ma.masked_array(mask, hidden.any(axis=-1))), fill(image, both))
    with pytest.raises(UserError, match="image is a Pillow image of mode P: convert it to RGB or L first"):
        fill(PIL.Image.fromarray(image).quantize(8), mask)


def check(filled, image, mask, output, tolerance=2e-6):
    """Checks that valid pixels have the image's bits, and holes the clipped output."""
    assert filled.dtype == image.dtype and filled.shape == image.shape
    np.testing.assert_array_equal(filled[mask == 1], image[mask == 1])
    np.testing.assert_allclose(filled[mask == 0], np.clip(output, 0, 1)[mask == 0], atol=tolerance)


@pytest.mark.parametrize(
    "options",
    [{}, {"conv_type": "gated"}, {"conv_type": "zero", "center": False}, {"norm": "batch"}],
    ids=str,
)
def test_without_padding_it_is_the_network(options):
    """On a size that needs no padding, the result is the model's own output, for every kind of network."""
    model, variables = networks.random(**options)
    image, mask = picture(44, 60), hole(44, 60)
    output, _ = applied(model, variables, image, mask)
    assert output[mask == 0].std() > 0.01
    filled, unseen = filler(**options).fill(image, mask)
    assert unseen == 0
    check(filled, image, mask, output)


def test_an_odd_size_is_padded_with_what_lies_beyond_an_image():
    """At 451x300 the result is the model's output on the next multiple of eight, where the padding is hole."""
    model, variables = networks.random(depth=3)
    image, mask = picture(300, 451), hole(300, 451)
    padded = np.pad(image, ((0, 4), (0, 5), (0, 0)), constant_values=np.nan)
    inside = np.pad(np.ones((1, 300, 451, 1), np.float32), ((0, 0), (0, 4), (0, 5), (0, 0)))
    output, _ = applied(model, variables, padded, np.pad(mask, ((0, 4), (0, 5))), inside=inside)
    assert np.isfinite(output).all()
    check(filler(depth=3)(image, mask), image, mask, output[:300, :451])


@pytest.mark.parametrize(("height", "width"), [(1, 1 + 1), (3, 50), (50, 3), (17, 17)])
def test_small_sizes(height, width):
    """Images smaller than the multiple keep their valid pixels, and their holes get finite values."""
    image, mask = picture(height, width), np.ones((height, width), bool)
    mask[-1, -1] = False
    filled = filler()(image, mask)
    np.testing.assert_array_equal(filled[mask], image[mask])
    assert np.isfinite(filled).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(41, 57), (41, 57, 1), (41, 57, 3)])
@pytest.mark.parametrize("channels", [1, 3])
def test_integers_come_back(dtype, shape, channels):
    """Results have the shape and dtype of the image, valid pixels bit for bit, and holes the rounded output."""
    white = np.iinfo(dtype).max
    image = np.round(picture(41, 57, shape[-1] if len(shape) == 3 else 1) * white).astype(dtype).reshape(shape)
    mask = hole(41, 57)
    fill = filler(channels=channels)
    filled = fill(image, mask[..., None])
    assert filled.dtype == dtype and filled.shape == shape
    np.testing.assert_array_equal(filled[mask == 1], image[mask == 1])
    exact = fill((image / np.float32(white)).astype(np.float32), mask)
    np.testing.assert_array_equal(filled[mask == 0], np.round(exact[mask == 0] * np.float64(white)))
    if dtype == np.uint16:
        assert (filled[mask == 0] % 257 != 0).mean() > 0.9  # not 8 bits twice


def test_grey_is_seen_by_a_network_for_colour():
    """A network for RGB gets grey as three equal channels, and the result is their mean."""
    model, variables = networks.random()
    image, mask = picture(44, 60, 1), hole(44, 60)
    output, _ = applied(model, variables, np.repeat(image, 3, axis=-1), mask)
    check(filler()(image, mask), image, mask, output.mean(axis=-1, keepdims=True))


def test_colour_is_seen_by_a_network_for_grey():
    """A network for grey gets the channels of RGB one by one."""
    model, variables = networks.random(channels=1)
    image, mask = picture(44, 60), hole(44, 60)
    output = np.concatenate([applied(model, variables, image[..., c : c + 1], mask)[0] for c in range(3)], axis=-1)
    check(filler(channels=1)(image, mask), image, mask, output)


@pytest.mark.parametrize("size", [(44, 60), (150, 170)])
def test_what_lies_in_a_hole_is_not_read(size):
    """Values in holes, NaN included, change nothing, with and without tiles; image and mask are not modified."""
    image, mask = picture(*size), hole(*size)
    fill = filler(tile=48)
    expected = fill(image, mask)
    for junk in (np.nan, np.inf, 7.0):
        spoiled = np.where(mask[..., None] == 1, image, np.float32(junk))
        before = spoiled.copy()
        np.testing.assert_array_equal(fill(spoiled, mask), expected)
        np.testing.assert_array_equal(spoiled, before)


def test_no_hole_gives_a_copy():
    image = picture(20, 30)
    filled, unseen = filler().fill(image, np.ones((20, 30), bool))
    assert unseen == 0 and filled is not image
    np.testing.assert_array_equal(filled, image)


def test_tiles_with_enough_overlap_change_nothing():
    """If tiles overlap by four times the receptive field's radius, they give the result without tiles."""
    assert filler()._network.reach == 9
    image, mask = picture(301, 420), hole(301, 420)
    mask[:, 100:110] = mask[60:72] = 0
    whole, tiled = filler()(image, mask), filler(tile=144)(image, mask)
    np.testing.assert_allclose(tiled, whole, atol=1e-5)


def steps(difference, mask):
    """Returns the mean difference between neighbours that both lie in the hole, by row and by column."""
    for axis in (0, 1):
        both = (np.delete(mask, 0, axis) == 0) & (np.delete(mask, -1, axis) == 0)
        size = np.where(both, np.abs(np.diff(difference, axis=axis)).mean(axis=-1), 0).sum(axis=1 - axis)
        count = both.sum(axis=1 - axis)
        yield size[count > 0] / count[count > 0]


def test_small_tiles_show_no_seam():
    """With tiles that lack context, no row or column of the change to the whole has a mean step of 1/255."""
    image, mask = picture(301, 420), hole(301, 420)
    mask[:, 100:110] = mask[60:72] = 0
    whole, tiled = filler()(image, mask), filler(tile=96)(image, mask)
    assert np.abs(tiled - whole).max() > 1e-3  # these tiles do lack context
    assert max(by_line.max() for by_line in steps(tiled - whole, mask)) < 1 / 255


def test_only_tiles_with_holes_are_computed(monkeypatch):
    """A small hole in a large image costs one tile."""
    fill, calls = filler(tile=48), []
    predict = fill._network._predict
    monkeypatch.setattr(fill._network, "_predict", lambda *args: calls.append(args[1].shape) or predict(*args))
    mask = np.ones((500, 600), bool)
    mask[3:9, 5:9] = False
    fill(picture(500, 600), mask)
    assert calls == [(1, 48, 48, 3)]


def test_few_functions_are_compiled_for_many_sizes():
    """Photographs of 12 sizes, in colour and grey, and all levels of their pyramids share four compiled functions."""
    traced = []

    class Counted(unet.UNet):
        def __call__(self, image, mask, **options):
            traced.append(image.shape)
            return super().__call__(image, mask, **options)

    model, variables = networks.random()
    options = {name: getattr(model, name) for name in ("depth", "width", "max_width", "kernels", "norm", "center")}
    fill = inpainter.Inpainter(Counted(**options), variables, tile=256, settings=pyramid.Settings(smallest=8))
    for height in (44, 70, 131, 150):
        for width in (33, 101, 270):
            image, mask = picture(height, width), hole(height, width)
            mask[height // 4 : -20, 8:-4] = 0
            fill(image, mask)
            fill((image[..., :1] * 255).astype(np.uint8), mask)
    assert sorted(set(traced)) == sorted(traced) == [(1, side, side, 3) for side in (32, 64, 128, 256)]


def test_what_the_network_cannot_see_is_reported(caplog):
    """A warning has the fraction of the hole that is out of sight; its pixels get the mean of the valid ones."""
    model, variables = networks.random()
    image, mask = picture(96, 96), np.zeros((96, 96), np.uint8)
    mask[:, :20] = 1
    _, seen = applied(model, variables, image, mask)
    fill = filler()
    filled, unseen = fill.fill(image, mask)
    assert 0.5 < unseen == pytest.approx((seen[mask == 0] == 0).mean())
    mean = image[mask == 1].astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(filled[seen == 0], np.broadcast_to(mean, filled[seen == 0].shape), atol=1e-6)
    assert np.abs(filled[(seen == 1) & (mask == 0)] - mean).max() > 0.01
    with caplog.at_level(logging.WARNING, logger="absl"):
        np.testing.assert_array_equal(fill(image, mask), filled)
    assert re.search(rf"{unseen:.1%} of the hole is farther .* \(at most 9 pixels\) and holds the mean", caplog.text)
    assert fill.explain(1 / 7159).startswith("less than 0.1% of the hole is farther")  # not 0.0%


def test_only_a_rim_is_filled_where_masks_stay(monkeypatch):
    """With `mask_update` "keep" only the rim is filled, with a warning, and larger tiles are not tried."""
    options = {"mask_update": "keep", "depth": 3, "kernels": (7, 5, 3)}
    image, mask = picture(96, 120), np.ones((96, 120), np.uint8)
    mask[21:60, 20:59] = 0
    _, seen = applied(*networks.random(**options), image, mask)
    distance = scipy.ndimage.distance_transform_cdt(mask == 0, "chessboard")
    fill = filler(tile=32, **options)
    assert distance[seen == 1].max() == fill._network.sight == tiled_network.RIM < fill._network.reach
    tiles, predict = [], fill._network._predict
    monkeypatch.setattr(fill._network, "_predict", lambda *args: tiles.append(args[1].shape[1:3]) or predict(*args))
    _, unseen = fill.fill(image, mask)
    assert set(tiles) == {(32, 32)} and unseen == pytest.approx((seen[mask == 0] == 0).mean())
    assert re.search(
        r"fills with model.mask_update=keep \(at most 2 pixels\) .*mask_update=shrink", fill.explain(unseen)
    )


def test_a_hole_larger_than_a_tile_gets_a_larger_tile(monkeypatch):
    """Larger tiles are tried until as much of the hole is seen as without tiles."""
    model, variables = networks.random(depth=3, kernels=(7, 5, 3))
    image, mask = picture(96, 120), np.ones((96, 120), np.uint8)
    mask[20:60, 20:60] = 0
    _, expected = inpainter.Inpainter(model, variables).fill(image, mask)
    fill = inpainter.Inpainter(model, variables, tile=32)
    _, unseen = fill.fill(image, mask)
    assert expected == unseen < 0.1
    monkeypatch.setattr(fill._network, "sight", 8)  # as if a tile of 32 showed all that the network can see
    _, at_first = fill.fill(image, mask)
    assert at_first > 2 * unseen


def averaging():
    """Returns a network that fills with the mean of nearby valid pixels, so that its results are predictable."""
    model = unet.UNet(depth=1, width=3, max_width=3, kernels=(7,), norm="none")
    same = np.eye(3, dtype=np.float32)
    encoder = {"kernel": np.broadcast_to(same / 49, (7, 7, 3, 3)), "bias": np.zeros(3, np.float32)}
    decoder = {"kernel": np.broadcast_to(np.concatenate([same, same]) / 18, (3, 3, 6, 3)), "bias": encoder["bias"]}
    return model, {"params": {"enc1": {"conv": encoder}, "dec1": {"conv": decoder}}}


def deep_hole(height=160, width=200):
    """Returns a hole of 120 x 90 pixels that touches the border, and a small one."""
    mask = np.ones((height, width), np.uint8)
    mask[30:150, 110:] = mask[100:110, 30:50] = 0
    return mask


@pytest.mark.parametrize("tile", [1024, 64])
def test_coarse_to_fine_shows_no_seam(tile):
    """In a deep hole of a smooth image, neighbours differ little at the band, at tiles and at the hole's border."""
    y, x = np.mgrid[:160, :200] / 200
    image = np.stack([x, y, 0.5 + 0.2 * np.sin(5 * x + 3 * y)], axis=-1).astype(np.float32)
    mask = deep_hole()
    fill = inpainter.Inpainter(*averaging(), tile=tile, settings=pyramid.Settings())
    filled, unseen = fill.fill(image, mask)
    assert unseen == 0
    for axis in (0, 1):
        assert np.abs(np.diff(filled, axis=axis)).max() < 0.05
    error = np.abs(filled - image)[mask == 0]
    plain = np.abs(inpainter.Inpainter(*averaging())(image, mask) - image)[mask == 0]
    assert error.mean() < 0.5 * plain.mean()


def test_coarse_to_fine_asks_the_network_for_a_rim_only(monkeypatch):
    """On all levels but the coarsest, no hole of the network's input is deeper than the band."""
    settings = pyramid.Settings(threshold=8, band=4)
    fill, depths = inpainter.Inpainter(*averaging(), settings=settings), []
    predict = fill._network._predict_tile

    def noted(image, valid, *rest):
        depths.append(pyramid.depth(valid).max())
        return predict(image, valid, *rest)

    monkeypatch.setattr(fill._network, "_predict_tile", noted)
    fill.fill(picture(160, 200), deep_hole())
    assert len(depths) == 4 and max(depths) <= 8 and max(depths[1:]) <= 4


@pytest.mark.parametrize(("tile", "tolerance"), [(1024, 1e-4), (64, 3e-3)])
def test_a_network_that_takes_a_guess_fills_as_in_training(tile, tolerance):
    """The result equals that of `ops.pyramid.coarse_to_fine`, which training applies, and nearly so in tiles."""
    model, variables = networks.random(guess=True, kernels=(3,))
    variables = jax.tree.map(lambda x: 0.5 * x, variables)
    image, mask = picture(96, 128), deep_hole(160, 200)[-96:, -128:]
    outputs = ops_pyramid.coarse_to_fine(
        lambda *level: compiled(model)(variables, *level)[0],
        np.where(mask[..., None], image, 0)[None],
        mask[None, ..., None].astype(np.float32),
        3,
    )
    settings = pyramid.Settings(threshold=0, smallest=24)
    filled, unseen = inpainter.Inpainter(model, variables, tile=tile, settings=settings).fill(image, mask)
    assert unseen == 0
    check(filled, image, mask, np.asarray(outputs[0])[0], tolerance)


def test_a_shallow_hole_is_filled_at_once():
    """If the hole is within the threshold, the network is applied once."""
    image, mask = picture(44, 60), hole(44, 60)
    mask[-7:-2] = 1
    model, variables = networks.random()
    filled = inpainter.Inpainter(model, variables, settings=pyramid.Settings())(image, mask)
    np.testing.assert_array_equal(filled, filler()(image, mask))


def test_valid_pixels_and_repetitions_with_everything_on():
    """With a pyramid, tiles and an ensemble, valid pixels keep their bits, and two calls agree bit for bit."""
    image = (picture(161, 203) * 255).astype(np.uint8)
    mask = deep_hole(161, 203)
    fill = inpainter.Inpainter(*networks.random(), tile=64, settings=pyramid.Settings(), ensemble=3)
    filled = fill(image, mask)
    np.testing.assert_array_equal(filled[mask == 1], image[mask == 1])
    np.testing.assert_array_equal(fill(image, mask), filled)
    spoiled = np.where(mask[..., None] == 1, image, np.uint8(7))
    np.testing.assert_array_equal(fill(spoiled, mask), filled)


def test_an_ensemble_is_the_mean_over_flips_and_turns():
    """The result is the mean over all eight flips and turns, and a square photograph's result turns with it."""
    image, mask = picture(48, 48), hole(48, 48)
    single, fill = filler(), inpainter.Inpainter(*networks.random(), ensemble=8)
    filled = fill(image, mask)
    outputs = []
    for flipped in (False, True):
        for quarters in range(4):
            views = [np.rot90(x[:, ::-1] if flipped else x, quarters) for x in (image, mask)]
            output = np.rot90(single.predict(*map(np.ascontiguousarray, views)), -quarters)
            outputs.append(output[:, ::-1] if flipped else output)
    assert np.abs(single(image, mask) - filled).max() > 0.01
    turned = fill(np.ascontiguousarray(np.rot90(image)), np.ascontiguousarray(np.rot90(mask)))
    np.testing.assert_allclose(np.rot90(turned, -1), filled, atol=1e-5)
    unclipped = (np.min(outputs, axis=0) > 0) & (np.max(outputs, axis=0) < 1) & (mask == 0)[..., None]
    assert unclipped.sum() > 200
    np.testing.assert_allclose(filled[unclipped], np.mean(outputs, axis=0)[unclipped], atol=1e-5)


def test_the_raw_prediction_covers_valid_pixels():
    """`predict` returns the network's own output everywhere, clipped."""
    image, mask = picture(44, 60), hole(44, 60)
    output, _ = applied(*networks.random(), image, mask)
    np.testing.assert_allclose(filler().predict(image, mask), np.clip(output, 0, 1), atol=2e-6)


GOOD = picture(12, 16)
MASK = hole(12, 16)


@pytest.mark.parametrize(
    ("image", "mask", "message"),
    [
        (GOOD.astype(np.float64), MASK, "image is float64; needs uint8, uint16, float32"),
        ((GOOD * 100).astype(np.int32), MASK, "image is int32; needs"),
        (GOOD[None], MASK, r"image is \[1, 12, 16, 3\]; needs \[H, W\]"),
        (np.concatenate([GOOD, GOOD[..., :1]], -1), MASK, r"image is \[12, 16, 4\]; .* keep alpha apart"),
        (GOOD[:0], MASK[:0], r"image is \[0, 16, 3\]"),
        (GOOD, MASK[:, 1:], r"mask is \[12, 15\] and image \[12, 16, 3\]"),
        (GOOD, MASK.T, r"mask is \[16, 12\]"),
        (GOOD, np.repeat(MASK[..., None], 3, -1), r"mask is \[12, 16, 3\]"),
        (GOOD, MASK * 255, r"mask holds 0 to 255; needs only 0 \(hole\) and 1 \(valid\)"),
        (GOOD, MASK * 0.5, "mask holds 0.0 to 0.5; needs"),
        (GOOD, MASK * np.nan, "mask holds nan"),
        (GOOD, 0 * MASK, "the mask is all hole"),
        (GOOD * 255, MASK, r"valid pixels range from .* to .*; float32 needs \[0, 1\]"),
        (GOOD - 1, MASK, "valid pixels range from -"),
        (np.full_like(GOOD, np.nan), MASK, "valid pixels range from nan"),
    ],
)
def test_bad_input(image, mask, message):
    """Wrong images and masks are named before anything is computed."""
    model, _ = networks.random()
    with pytest.raises(ValueError, match=message):
        inpainter.Inpainter(model, None)(image, mask)


def test_a_network_that_is_not_finite():
    """An output that is not finite is an error."""
    model, variables = networks.random()
    variables = jax.tree.map(lambda x: x * jnp.nan, variables)
    with pytest.raises(ValueError, match="the network's output is not finite"):
        inpainter.Inpainter(model, variables)(GOOD, MASK)


def test_options_out_of_range():
    """Tiles, ensembles and settings of the pyramid are checked before anything is loaded."""
    model = networks.random()[0]
    with pytest.raises(UserError, match="tile is 0; needs a number of pixels"):
        inpainter.Inpainter(model, None, tile=0)
    with pytest.raises(UserError, match=r"ensemble is 9; needs 1 \(none\) to 8"):
        inpainter.Inpainter(model, None, ensemble=9)
    with pytest.raises(UserError, match=r"'threshold': -1, .*; needs smallest and band of at least 1"):
        pyramid.Settings(threshold=-1)


def test_from_run(tmp_path):
    """`from_run` loads the last or the best checkpoint, with averaged parameters if the run has them."""
    config = runs.tiny(**{"optim.ema": 0.9, "model.center": True, "train.checkpoint_every": 1})
    start = networks.random_state(config)
    best = start.replace(step=start.step + 1, ema=jax.tree.map(lambda x: 0.5 * x, start.params))
    last = start.replace(step=start.step + 2, ema=jax.tree.map(lambda x: 0.4 * x, start.params))
    run = networks.save_run(tmp_path / "run", config, [(best, 30.0), (last, 20.0)])
    image, mask = picture(21, 30), hole(21, 30)
    model, _ = networks.random(depth=2, width=8, max_width=16, norm="batch", conv_impl=config.model.conv_impl)
    for name, after in (("last", last), ("best", best)):
        expected = inpainter.Inpainter(model, after.eval_variables)(image, mask)
        np.testing.assert_array_equal(inpainter.Inpainter.from_run(run, checkpoint=name)(image, mask), expected)
    other = inpainter.Inpainter(model, {"params": last.params, "batch_stats": last.batch_stats})(image, mask)
    assert np.abs(other - inpainter.Inpainter.from_run(run)(image, mask)).max() > 1e-3


def test_from_run_of_something_else(tmp_path):
    """A missing run, checkpoint or name of a checkpoint, and another network, are errors."""
    with pytest.raises(ValueError, match=r"holds no run \(config.json is missing\)"):
        inpainter.Inpainter.from_run(str(tmp_path))
    config = runs.tiny()
    run = networks.save_run(tmp_path / "new", config, [])
    with pytest.raises(ValueError, match="has no checkpoint yet"):
        inpainter.Inpainter.from_run(run)
    with pytest.raises(ValueError, match='checkpoint is "first"; needs last or best'):
        inpainter.Inpainter.from_run(run, "first")
    run = networks.save_run(tmp_path / "other", config, [(networks.random_state(config), 20.0)])
    rundir.write_atomically(f"{run}/config.json", runs.tiny(**{"model.width": 4}).to_json())
    with pytest.raises(ValueError, match="checkpoint 0 does not fit this model"):
        inpainter.Inpainter.from_run(run)


def test_progress_grows_to_one_and_changes_nothing():
    """Fractions start at 0, grow with each tile of each level and flip, and end at 1; the filling has the same bits."""
    model, variables = networks.random(guess=True)
    fill = inpainter.Inpainter(model, variables, tile=48, settings=pyramid.Settings(0, 16), ensemble=2)
    image, mask, fractions = picture(90, 120), hole(90, 120), []
    filled, _ = fill.fill(image, mask, progress=fractions.append)
    np.testing.assert_array_equal(filled, fill(image, mask))
    assert fractions[0] == 0 and fractions[-1] == 1 and fractions == sorted(fractions) and len(set(fractions)) > 8


def test_an_exception_of_progress_ends_the_filling(monkeypatch):
    """After the exception no further tile is computed, so that a filling can be cancelled."""
    fill, calls = filler(tile=48), []
    predict = fill._network._predict
    monkeypatch.setattr(fill._network, "_predict", lambda *args: calls.append(1) or predict(*args))

    def stop(fraction):
        if fraction > 0:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fill.fill(picture(90, 120), hole(90, 120), progress=stop)
    assert len(calls) == 1


def test_prepared_functions_are_not_compiled_again():
    """After `prepare` for every side, filling traces nothing, with any ensemble."""
    traced = []

    class Counted(unet.UNet):
        def __call__(self, image, mask, **options):
            traced.append(image.shape)
            return super().__call__(image, mask, **options)

    _, variables = networks.random()
    fill = inpainter.Inpainter(Counted(**networks.SMALL), variables, tile=128)
    for side in fill.sides:
        fill.prepare(side)
    assert len(traced) == len(fill.sides) == 4
    fill.with_ensemble(2)(picture(90, 120), hole(90, 120))
    assert len(traced) == 4
    with pytest.raises(UserError, match="ensemble is 9; needs 1"):
        fill.with_ensemble(9)
