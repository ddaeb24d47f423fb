"""Tests of the mask after a layer against loops, for both implementations of the convolution."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import networks
from pconv_jax.models import layers, unet
from pconv_jax.ops import mask_update

SIZE, KERNEL = 8, 3


def masks(seed, size=SIZE):
    """Returns masks with some valid pixels and a hole wider than a 3x3 kernel."""
    mask = (np.random.default_rng(seed).uniform(size=(2, size, size, 1)) < 0.4).astype(np.float32)
    mask[:, :5, :5] = 0
    return mask


def slow(rule, mask, previous, stride):
    """Updates window by window; `mask` is the input of the windows, `previous` the mask at full size."""
    n, h, w, _ = mask.shape
    result = np.zeros((n, -(-h // stride), -(-w // stride), 1), np.float32)
    half = KERNEL // 2
    for b, i, j in np.ndindex(result.shape[:3]):
        row, column = i * stride, j * stride
        if rule == "shrink":
            window = mask[b, max(row - half, 0) : row + half + 1, max(column - half, 0) : column + half + 1]
            result[b, i, j] = window.any()
        else:
            result[b, i, j] = 1 if rule == "vanish" else previous[b, row, column, 0]
    return result


def upsampled(x):
    return x.repeat(2, axis=1).repeat(2, axis=2)


@pytest.mark.parametrize("impl", ["auto", "xla"])
@pytest.mark.parametrize("rule", mask_update.RULES)
@pytest.mark.parametrize("stride", [1, 2])
def test_encoder_masks(rule, stride, impl):
    """The mask is the loop's, and the features are those of the paper's rule."""
    mask = masks(0)
    x = np.random.default_rng(1).normal(size=(*mask.shape[:3], 3)).astype(np.float32)
    kernel = np.random.default_rng(2).normal(size=(KERNEL, KERNEL, 3, 4)).astype(np.float32)
    convs = (layers.Conv(4, KERNEL, stride, use_bias=False, impl=impl, mask_update=r) for r in (rule, "shrink"))
    (y, new), (expected, _) = (conv.apply({"params": {"kernel": kernel}}, x, mask) for conv in convs)
    np.testing.assert_array_equal(new, slow(rule, mask, mask, stride))
    np.testing.assert_array_equal(y, expected)
    assert new.dtype == jnp.float32


@pytest.mark.parametrize("impl", ["auto", "xla"])
@pytest.mark.parametrize("rule", mask_update.RULES)
def test_decoder_masks(rule, impl):
    """The windows cover the upsampled mask and the skip's together; the previous mask is the skip's."""
    low_mask, skip_mask = masks(3, SIZE // 2), masks(4)
    rng = np.random.default_rng(5)
    low, skip = (rng.normal(size=(*m.shape[:3], c)).astype(np.float32) for m, c in ((low_mask, 2), (skip_mask, 3)))
    kernel = rng.normal(size=(KERNEL, KERNEL, 5, 4)).astype(np.float32)
    conv = layers.Conv(4, KERNEL, use_bias=False, impl=impl, mask_update=rule)
    _, new = conv.apply({"params": {"kernel": kernel}}, low, low_mask, skip, skip_mask)
    np.testing.assert_array_equal(new, slow(rule, np.maximum(upsampled(low_mask), skip_mask), skip_mask, 1))


def test_unknown_rule():
    with pytest.raises(ValueError, match='mask update "grow" is unknown; needs one of shrink, keep, vanish'):
        mask_update.update(jnp.ones((1, 2, 2, 1)), jnp.ones((1, 2, 2, 1)), "grow")


def example():
    image = np.random.default_rng(6).uniform(size=(1, 32, 32, 3)).astype(np.float32)
    mask = np.ones((1, 32, 32, 1), np.float32)
    mask[:, 10:22, 10:22] = 0
    return image, mask


@functools.cache
def outputs(rule, impl="xla"):
    """Returns `(output, final mask)` of a network whose parameters are the same under every rule."""
    _, variables = networks.random(center=False)
    model = unet.UNet(**{**networks.SMALL, "center": False}, mask_update=rule, conv_impl=impl)
    return jax.jit(model.apply)(variables, *example())


@pytest.mark.parametrize("rule", mask_update.RULES)
def test_networks_of_both_implementations_agree(rule):
    for a, b in zip(outputs(rule, "xla"), outputs(rule, "auto"), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_kept_hole_is_filled_at_its_rim_alone():
    """With "keep" the last layer fills one pixel of the rim, and the mask reports the middle as empty.

    The other rules fill the whole hole, differently.
    """
    output, final = (np.asarray(x)[0] for x in outputs("keep"))
    assert not output[11:21, 11:21].any() and not final[11:21, 11:21].any()
    assert output[10, 10:22].all() and final[10, 10:22].all()
    for rule in ("shrink", "vanish"):
        output, final = (np.asarray(x)[0] for x in outputs(rule))
        assert output.all() and final.all()
    assert np.abs(outputs("shrink")[0] - outputs("vanish")[0]).max() > 1e-3
