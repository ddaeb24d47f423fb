"""Tests of the loss terms against loops over their formulas, and of cases worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import loops
from pconv_jax.ops import losses
from pconv_jax.training import steps


def images(seed=0, shape=(2, 9, 8, 3)):
    rng = np.random.default_rng(seed)
    output, target = rng.uniform(-0.2, 1.2, shape), rng.uniform(0, 1, shape)
    mask = (rng.uniform(size=(*shape[:3], 1)) < 0.6).astype(np.float32)
    return output.astype(np.float32), target.astype(np.float32), mask


def test_valid_and_hole_are_means_over_all_elements():
    """The terms are not divided by the valid or the hole area, as the authors confirm."""
    output, target, mask = images()
    difference = np.abs(output.astype(np.float64) - target)
    np.testing.assert_allclose(losses.valid(output, target, mask), (mask * difference).sum() / output.size, rtol=1e-5)
    np.testing.assert_allclose(
        losses.hole(output, target, mask), ((1 - mask) * difference).sum() / output.size, rtol=1e-5
    )


def test_valid_and_hole_by_hand():
    """One of four pixels is a hole; the error is 0.4 there and 0.2 elsewhere."""
    target = np.zeros((1, 2, 2, 1), np.float32)
    mask = np.array([1, 1, 1, 0], np.float32).reshape(1, 2, 2, 1)
    output = np.array([0.2, -0.2, 0.2, 0.4], np.float32).reshape(1, 2, 2, 1)
    assert losses.valid(output, target, mask) == pytest.approx(0.15)
    assert losses.hole(output, target, mask) == pytest.approx(0.1)


def test_gram_equals_the_loop():
    features = np.random.default_rng(0).normal(size=(2, 4, 5, 6)).astype(np.float32)
    np.testing.assert_allclose(losses.gram(features), loops.gram(features.astype(np.float64)), rtol=1e-5, atol=1e-6)


def test_gram_by_hand():
    """Two positions with the channels [1, 2] and [3, 4] give [[10, 14], [14, 20]] / (2 * 1 * 2)."""
    features = np.array([[1, 2], [3, 4]], np.float32).reshape(1, 1, 2, 2)
    np.testing.assert_allclose(losses.gram(features)[0], np.array([[10, 14], [14, 20]]) / 4)


def test_gram_is_float32_under_half_precision():
    """The sum of 4096 ones is exact; in bfloat16 it would stagnate at 256."""
    gram = losses.gram(jnp.ones((1, 64, 64, 2), jnp.bfloat16))
    assert gram.dtype == jnp.float32
    np.testing.assert_array_equal(gram, 0.5)


def test_style_and_perceptual_equal_the_loop():
    rng = np.random.default_rng(1)
    a, b, c = ([rng.normal(size=(2, s, s, ch)) for s, ch in ((8, 3), (4, 5))] for _ in range(3))
    style = sum(np.abs(loops.gram(x) - loops.gram(y)).mean() for x, y in zip(a, b, strict=True))
    perceptual = sum(np.abs(x - z).mean() + np.abs(y - z).mean() for x, y, z in zip(a, b, c, strict=True))
    a, b, c = ([f.astype(np.float32) for f in features] for features in (a, b, c))
    np.testing.assert_allclose(losses.style(a, b), style, rtol=1e-5)
    np.testing.assert_allclose(losses.perceptual(a, b, c), perceptual, rtol=1e-5)


def test_total_variation_equals_the_loop():
    output, _, mask = images(2)
    expected = loops.total_variation(output.astype(np.float64), mask)
    np.testing.assert_allclose(losses.total_variation(output, mask), expected, rtol=1e-5)


def test_total_variation_by_hand():
    """A hole in the corner of 3x3 dilates to 2x2, which holds two vertical and two horizontal pairs."""
    image = np.array([[1, 2, 90], [4, 8, 90], [90, 90, 90]], np.float32).reshape(1, 3, 3, 1)
    mask = np.ones_like(image)
    mask[0, 0, 0] = 0
    assert losses.total_variation(image, mask) == pytest.approx(((3 + 6) + (1 + 4)) / 9)


def test_total_variation_of_a_constant_is_zero():
    """No pair crosses the edge of the region, nor joins the last row and the first."""
    _, _, mask = images()
    assert losses.total_variation(np.full((2, 9, 8, 3), 0.7, np.float32), mask) == 0
    ramp = np.broadcast_to(np.arange(9, dtype=np.float32)[None, :, None, None], (1, 9, 8, 1))
    everything = losses.total_variation(ramp, np.zeros((1, 9, 8, 1), np.float32))
    assert everything == pytest.approx(8 * 8 / 72)  # steps of 1, and none of 8 around the image


def test_total_variation_ignores_the_far_valid_region():
    output, _, _ = images()
    mask = np.ones((2, 9, 8, 1), np.float32)
    mask[:, 4, 4] = 0
    changed = output.copy()
    changed[:, :3], changed[:, 6:], changed[:, :, :3], changed[:, :, 6:] = 5.0, -3.0, 7.0, 9.0
    np.testing.assert_array_equal(losses.total_variation(changed, mask), losses.total_variation(output, mask))
    changed[:, 4, 4] += 1
    assert losses.total_variation(changed, mask) > losses.total_variation(output, mask)


def test_terms_and_their_weights_go_by_name():
    """With features all six terms; the composite's terms see the composite and the output's the output."""
    output, target, mask = images()
    features = lambda x: [x, x[:, ::2, ::2] * 2]  # noqa: E731
    terms = steps.loss_terms(output, target, mask, features, ["log_mse"])
    assert set(terms) == set(losses.term_names())
    np.testing.assert_allclose(terms["log_mse"], losses.log_mse(output, target, mask), rtol=1e-5)
    filled = np.where(mask != 0, target, output)
    np.testing.assert_allclose(terms["style_out"], losses.style(features(output), features(target)), rtol=1e-5)
    np.testing.assert_allclose(terms["style_comp"], losses.style(features(filled), features(target)), rtol=1e-5)
    expected = losses.perceptual(features(output), features(filled), features(target))
    np.testing.assert_allclose(terms["perceptual"], expected, rtol=1e-5)
    np.testing.assert_allclose(terms["tv"], losses.total_variation(filled, mask), rtol=1e-5)
    assert set(steps.loss_terms(output, target, mask, None)) == {"valid", "hole", "tv"}


def test_log_mse_is_the_psnr_of_the_hole():
    """The mean PSNR over the holes of the images is `-10 / ln(10)` times the loss, up to the added step of 8 bits."""
    output, target, mask = images()
    squares = (output.astype(np.float64) - target) ** 2
    errors = [squares[n][np.broadcast_to(mask[n] == 0, squares[n].shape)].mean() for n in range(len(mask))]
    psnr = np.mean([-10 * np.log10(error) for error in errors])
    np.testing.assert_allclose(-10 / np.log(10) * losses.log_mse(output, target, mask), psnr, rtol=1e-4)
    half, zero = np.full((1, 2, 2, 1), 0.5, np.float32), np.zeros((1, 2, 2, 1), np.float32)
    assert float(losses.log_mse(half, zero, zero)) == pytest.approx(np.log(0.25 + 1 / 255**2))


def test_log_mse_of_no_hole_is_finite_and_without_gradient():
    """An image may have no hole left at a coarse level of a pyramid."""
    output, target, mask = images()
    value, gradient = jax.value_and_grad(losses.log_mse)(output, target, np.ones_like(mask))
    assert float(value) == pytest.approx(np.log(1 / 255**2))
    np.testing.assert_array_equal(gradient, 0)


def test_hole_loss_drives_holes_and_valid_loss_the_rest():
    """The gradient of each term is in its own area (the Keras project had swapped the two)."""
    output, target, mask = images()
    for loss, region in ((losses.valid, mask != 0), (losses.hole, mask == 0)):
        gradient = np.asarray(jax.grad(loss)(output, target, mask))
        np.testing.assert_array_equal(gradient != 0, np.broadcast_to(region, gradient.shape))
