"""Tests of exported networks: the function that fills photographs, and the file for JAX."""

import jax
import numpy as np
import pytest

import networks
import runs
from pconv_jax import errors
from pconv_jax.inpainting import fill_function, inpainter, pyramid, weights_file
from pconv_jax.tools import export

LEVELS, MULTIPLE = 3, 16  # of the networks of depth 2 in this file


def example(size, seed=0):
    """Returns an image and a mask with a hole of 3 x 3 pixels and a larger one, away from the border."""
    rng = np.random.default_rng(seed)
    image, mask = rng.uniform(size=(*size, 3)).astype(np.float32), np.ones((*size, 1), np.float32)
    mask[4:7, 5:8] = 0
    mask[10:14, 9:13] = 0
    return image, mask


@pytest.fixture(scope="module")
def guided():
    """Returns `(model, variables)` of a network that takes a guess, whose last layer is not zero."""
    return networks.random(guess=True, conv_impl="xla")


@pytest.mark.parametrize("size", [(32, 48), (27, 41)])
def test_the_function_fills_like_the_inpainter(guided, size):
    """It equals `Inpainter`, whose number of levels is free; padding with -1 is treated as outside the image."""
    image, mask = example(size)
    expected = inpainter.Inpainter(*guided, tile=64, settings=pyramid.Settings(threshold=0, smallest=4))(image, mask)
    padding = [(0, -side % MULTIPLE) for side in size] + [(0, 0)]
    padded, padded_mask = np.pad(image, padding, constant_values=np.nan), np.pad(mask, padding, constant_values=-1)
    spoiled = np.where(padded_mask > 0, padded, np.nan)[None]
    filled = np.asarray(jax.jit(fill_function.make(*guided, LEVELS))(spoiled, padded_mask[None]))[0]
    filled = filled[: size[0], : size[1]]
    np.testing.assert_array_equal(filled[mask[..., 0] > 0], image[mask[..., 0] > 0])
    np.testing.assert_allclose(filled, expected, atol=2e-5)
    assert np.abs(filled - np.where(mask > 0, image, image[mask[..., 0] > 0].mean(0))).max() > 0.05  # is no constant


def test_levels_without_holes_change_nothing(guided):
    """More levels than the holes need give the same."""
    image, mask = (x[None] for x in example((32, 64)))
    few, many = (jax.jit(fill_function.make(*guided, levels))(image, mask) for levels in (3, 4))
    np.testing.assert_allclose(few, many, atol=1e-6)
    assert fill_function.multiple(2, 3) == MULTIPLE


def test_a_network_without_a_guess_is_applied_once():
    """One application, whose unseen pixels get the mean of the valid ones, as in `Inpainter`."""
    model, variables = networks.random(conv_impl="xla")
    image, mask = example((32, 32))
    expected = inpainter.Inpainter(model, variables, tile=32)(image, mask)
    filled = jax.jit(fill_function.make(model, variables, 1))(image[None], mask[None])[0]
    np.testing.assert_allclose(filled, expected, atol=2e-5)


@pytest.mark.parametrize(
    ("options", "levels", "message"),
    [
        ({}, 2, "number of levels is 2; needs 1, because the network takes no guess"),
        ({"guess": True}, 0, "number of levels is 0; needs at least 1"),
        ({"padding": "circular"}, 1, "for grids of the whole earth"),
    ],
)
def test_what_cannot_be_exported_is_refused(options, levels, message):
    """The message names the option that does not fit."""
    with pytest.raises(errors.UserError, match=message):
        fill_function.make(networks.unet.UNet(**options), None, levels)


@pytest.fixture(scope="module")
def small(guided, tmp_path_factory):
    """Returns the path of a small weights file, and its weights."""
    section = {**runs.tiny().model.to_dict(), **networks.SMALL, "guess": True}
    weights = weights_file.Weights(section, guided[1], pyramid.Settings(), {"name": "small", "licence": "CC0"})
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    weights_file.write(str(path), weights)
    return str(path), weights_file.read(str(path))


def test_stablehlo_computes_the_same(small, server, tmp_path):
    """The file of the command is for three platforms and any batch and size, and computes the same in JAX."""
    path, weights = small
    out = tmp_path / "small.stablehlo"
    arguments = [f"--weights={path}", "--format=stablehlo", f"--levels={LEVELS}", f"--out={out}"]
    code, printed = server(tmp_path, "tools.export", arguments)
    assert code == 0 and f"small, {LEVELS} levels, height and width multiples of {MULTIPLE}" in printed, printed
    exported = jax.export.deserialize(bytearray(out.read_bytes()))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    assert [str(aval.shape) for aval in exported.in_avals] == [f"(b, {MULTIPLE}*h, {MULTIPLE}*w, {c})" for c in (3, 1)]
    fill = jax.jit(fill_function.make(weights.model(), weights.variables, LEVELS))
    for size in ((16, 32), (48, 16)):
        image, mask = (np.stack(pair) for pair in zip(example(size), example(size, seed=1), strict=True))
        np.testing.assert_allclose(exported.call(image, mask), fill(image, mask), atol=1e-5)
    code, printed = server(tmp_path, "tools.export", arguments)
    assert code == 1 and f"{out} exists" in printed


def test_missing_libraries_are_named(monkeypatch, tmp_path):
    """Without jax2onnx the message tells how to make an environment for it; nothing is written."""
    find = export.importlib.util.find_spec
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None if "onnx" in name else find(name))
    flag_values = export.flags.FlagValues()
    export.define_flags(flag_values)
    flag_values(["export", "--format=onnx", f"--out={tmp_path}/x.onnx"])
    with pytest.raises(
        errors.UserError, match=r"needs jax2onnx and onnx and onnxruntime, .*/pip install \"\.\[onnx\]\""
    ):
        export.main(flag_values)
    assert not list(tmp_path.iterdir())
