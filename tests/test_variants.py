"""Tests of the options in which networks of others differ from the paper's, against the network as slow loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import networks
import slow_unet
from pconv_jax.models import unet
from pconv_jax.ops import decoder, half_padded
from pconv_jax.ops.cpu import dispatch

BASE = {"depth": 2, "width": 4, "max_width": 6, "kernels": (5, 3), "norm": "batch", "center": False, "conv_impl": "xla"}


def example(height=8, width=8, channels=3):
    """Returns an image with NaN in its hole, and the mask, whose hole touches two borders."""
    rng = np.random.default_rng(0)
    image = rng.uniform(size=(1, height, width, channels)).astype(np.float32)
    mask = (rng.uniform(size=(1, height, width, 1)) < 0.7).astype(np.float32)
    mask[:, : height // 2 + 1, width // 2 :] = 0
    return np.where(mask != 0, image, np.nan).astype(np.float32), mask


def applied(options, image, mask):
    """Returns `(variables, output, mask)` of a network with random variables."""
    model, variables = networks.random(**{**BASE, **options})
    output, seen = jax.jit(model.apply)(variables, image, mask)
    return jax.device_get(variables), np.asarray(output), np.asarray(seen)


@pytest.mark.parametrize(
    ("options", "loop"),
    [
        ({}, {}),
        ({"negative_slope": 0.01}, {"slope": 0.01}),
        ({"first_norm": True}, {}),
        ({"norm_bias": True}, {}),
        ({"padding": "circular"}, {"circular": True}),
        (
            {"input_mean": (0.5, 0.4, 0.3), "input_std": (0.2, 0.3, 0.4)},
            {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)},
        ),
        ({"renormalise_twice": True}, {"twice": True}),
    ],
    ids=lambda value: "-".join(value) or "paper",
)
def test_each_option_equals_the_loop(options, loop):
    """The network with one option changed equals the loop, and differs from the paper's network."""
    image, mask = example()
    variables, output, seen = applied(options, image, mask)
    expected, expected_mask = slow_unet.apply(variables, image, mask, **loop)
    np.testing.assert_array_equal(seen, expected_mask)
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    if loop:
        other, _ = slow_unet.apply(variables, image, mask)
        assert np.abs(other - expected).max() > 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize("size", [(7, 9), (5, 6), (1, 3)])
@pytest.mark.parametrize("padding", ["hole", "circular"])
def test_sizes_that_are_no_multiples(size, padding):
    """With `any_size` the decoder upsamples to the size of the skip, as the loop does; without, the size is refused."""
    image, mask = example(*size)
    mask[:, 0, 0], image[:, 0, 0] = 1, 0.3
    variables, output, seen = applied({"any_size": True, "padding": padding}, image, mask)
    expected, expected_mask = slow_unet.apply(variables, image, mask, circular=padding == "circular")
    np.testing.assert_array_equal(seen, expected_mask)
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    with pytest.raises(ValueError, match="needs multiples of 4"):
        applied({"padding": padding}, image, mask)


def test_norm_options_change_the_parameter_tree():
    """`first_norm` replaces the bias of enc1 by a normalisation; `norm_bias` adds a bias to every other layer."""
    first = networks.random(**BASE, first_norm=True)[1]["params"]
    assert "norm" in first["enc1"] and "bias" not in first["enc1"]["conv"]
    biased = networks.random(**BASE, norm_bias=True)[1]["params"]
    assert all("bias" in block["conv"] for block in biased.values()) and "norm" not in biased["enc1"]


def test_circular_padding_commutes_with_shifts_of_longitude():
    """Shifting the image by a coarsest cell along the width shifts the output; along the height it does not."""
    image, mask = example(8, 16)
    model, variables = networks.random(**BASE, padding="circular")
    apply = jax.jit(model.apply)
    output, seen = apply(variables, image, mask)
    shifted, shifted_seen = apply(variables, np.roll(image, 4, 2), np.roll(mask, 4, 2))
    np.testing.assert_array_equal(shifted_seen, np.roll(seen, 4, 2))
    np.testing.assert_allclose(shifted, np.roll(output, 4, 2), atol=1e-5)
    down, _ = apply(variables, np.roll(image, 4, 1), np.roll(mask, 4, 1))
    assert np.abs(down - np.roll(output, 4, 1)).max() > 1e-2


@pytest.mark.parametrize("impl", dispatch.IMPLS)
def test_every_implementation_computes_the_variants(impl):
    """The fast implementations leave the variants to the plain operator, so that all give the same numbers."""
    image, mask = example(7, 9)
    options = {"padding": "circular", "any_size": True, "renormalise_twice": True}
    _, expected, _ = applied(options, image, mask)
    _, output, _ = applied({**options, "conv_impl": impl}, image, mask)
    np.testing.assert_array_equal(output, expected)


def test_cropped_upsampling_needs_the_size_of_the_encoder():
    """A skip of two rows less is refused, with and without `crop`."""
    low = jnp.zeros((1, 3, 4, 2))
    assert decoder.up_concat(low, jnp.zeros((1, 5, 8, 1)), crop=True).shape == (1, 5, 8, 3)
    for crop in (True, False):
        with pytest.raises(ValueError, match=r"skip is \(4, 8\); needs twice the size of low, which is \(3, 4\)"):
            decoder.up_concat(low, jnp.zeros((1, 4, 8, 1)), crop=crop)


def test_circular_padding_may_exceed_the_width():
    """A 7x7 kernel on a grid of two columns repeats them as often as it needs."""
    x, mask = np.ones((1, 4, 2, 1), np.float32), np.ones((1, 4, 2, 1), np.float32)
    variant = half_padded.Variant(circular=True)
    y, _ = half_padded.conv(x, mask, np.full((7, 7, 1, 1), 1 / 49, np.float32), variant=variant)
    np.testing.assert_allclose(y, 1, rtol=1e-6)


def test_options_exclude_each_other():
    """Circular padding needs partial convolution; means and deviations come in pairs, one value per channel."""
    image, mask = example()
    for options, message in (
        ({"padding": "circular", "conv_type": "gated"}, 'padding is "circular", .* only "partial" has them'),
        ({"input_mean": (0.5,), "input_std": (0.5,)}, r"needs 3 values in both"),
        ({"input_mean": (0.5, 0.5, 0.5)}, r"input_std \(\); needs 3 values in both"),
    ):
        model = unet.UNet(**{**BASE, **options})
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(model.init, jax.random.key(0), image, mask)
