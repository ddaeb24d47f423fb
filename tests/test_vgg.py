"""Tests of VGG16: the file, the input convention and the features."""

import cv2
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pconv_jax import errors
from pconv_jax.models import vgg


def weights(seed=0, order="RGB", scale=1.0, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)):
    """Returns random arrays in the layout of the file."""
    rng, arrays, inputs = np.random.default_rng(seed), {}, 3
    for name, outputs in (layer for layer in vgg.LAYERS if layer is not None):
        arrays[f"{name}/kernel"] = rng.normal(0, np.sqrt(2 / (9 * inputs)), (3, 3, inputs, outputs)).astype(np.float32)
        arrays[f"{name}/bias"] = rng.normal(0, 0.1, outputs).astype(np.float32)
        inputs = outputs
    return arrays | {"order": order, "scale": scale, "mean": np.array(mean), "std": np.array(std)}


@pytest.fixture
def save(tmp_path):
    def write(arrays):
        np.savez(tmp_path / "vgg.npz", **arrays)
        return str(tmp_path / "vgg.npz")

    return write


def apply(path, image):
    module, params = vgg.load(path)
    return module.apply({"params": params}, image)


def test_features_by_hand(save):
    """The three pooled maps equal convolution, bias, ReLU and pooling written out for the first of them."""
    arrays = weights()
    image = np.random.default_rng(1).uniform(size=(2, 16, 24, 3)).astype(np.float32)
    features = apply(save(arrays), image)
    assert [f.shape for f in features] == [(2, 8, 12, 64), (2, 4, 6, 128), (2, 2, 3, 256)]
    x = (image.astype(np.float64) - arrays["mean"]) / arrays["std"]
    for name in ("conv1_1", "conv1_2"):
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        x = sum(
            padded[:, i : i + 16, j : j + 24] @ arrays[f"{name}/kernel"][i, j].astype(np.float64)
            for i in range(3)
            for j in range(3)
        )
        x = np.maximum(x + arrays[f"{name}/bias"], 0)
    pooled = x.reshape(2, 8, 2, 12, 2, 64).max(axis=(2, 4))
    np.testing.assert_allclose(features[0], pooled, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(8, 6), (5, 7), (2, 3)])
def test_pooling_is_flax_s(size):
    """Pooling gives Flax's bits forward and back, with ties and odd sizes, and its gradient has no scatter."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, (2, *size, 4)).astype(np.float32)
    dy = rng.normal(size=(2, size[0] // 2, size[1] // 2, 4)).astype(np.float32)

    def with_gradient(pool):
        y, transpose = jax.vjp(pool, x)
        return y, transpose(dy)[0]

    expected = with_gradient(lambda x: nn.max_pool(x, (2, 2), strides=(2, 2)))
    jax.tree.map(np.testing.assert_array_equal, with_gradient(vgg.max_pool), expected)
    assert "scatter" not in str(jax.make_jaxpr(lambda: with_gradient(vgg.max_pool))())


def test_both_conventions_give_the_same_features(save):
    """A network written for RGB in [0, 1] and for BGR in [0, 255] gives the same features."""
    rgb = weights(std=(1.0, 1.0, 1.0))
    bgr = dict(rgb)
    bgr["conv1_1/kernel"] = rgb["conv1_1/kernel"][:, :, ::-1] / 255
    bgr |= {"order": "BGR", "scale": 255.0, "mean": rgb["mean"][::-1] * 255}
    image = np.random.default_rng(1).uniform(size=(1, 16, 16, 3)).astype(np.float32)
    for a, b in zip(apply(save(rgb), image), apply(save(bgr), image), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    swapped = apply(save(rgb), image[..., ::-1])
    assert np.abs(swapped[0] - apply(save(rgb), image)[0]).max() > 0.1


def test_gradient_reaches_the_image(save):
    path = save(weights())
    image = jnp.full((1, 16, 16, 3), 0.4)
    gradient = jax.jit(jax.grad(lambda x: apply(path, x)[2].sum()))(image)
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def test_gain_scales_the_features(save):
    """The features are multiplied by the file's gain, and by 1 if the file has none."""
    image = np.random.default_rng(1).uniform(size=(1, 16, 16, 3)).astype(np.float32)
    plain = apply(save(weights()), image)
    for a, b in zip(apply(save(weights() | {"gain": 0.25}), image), plain, strict=True):
        np.testing.assert_array_equal(a, 0.25 * b)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv2_1/kernel": None}, "lacks conv2_1/kernel"),
        ({"conv3_3/bias": np.zeros(5)}, r"conv3_3/bias in .* has shape \(5,\); needs \(256,\)"),
        ({"order": "GBR"}, 'has order "GBR"; needs "RGB" or "BGR"'),
        ({"mean": None}, "lacks mean"),
    ],
)
def test_wrong_files_are_refused(save, change, message):
    arrays = {name: value for name, value in (weights() | change).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        vgg.load(save(arrays))


def test_missing_file(tmp_path):
    with pytest.raises(errors.UserError, match=r"set loss\.vgg16_weights"):
        vgg.load(str(tmp_path / "nothing.npz"))


def test_blur_is_further_than_an_equal_shift_of_brightness(save, shared_data):
    """With the real weights the perceptual distance separates what the mean square error does not."""
    file = np.load(shared_data("vgg16") / "vgg16_caffe_conv1_1-conv3_3.npz", allow_pickle=False)
    arrays = {"order": "BGR", "scale": 255.0, "mean": np.array([103.939, 116.779, 123.68]), "std": np.ones(3)}
    for layer in (layer[0] for layer in vgg.LAYERS if layer is not None):
        kernel = "weight_oihw_bgr" if layer == "conv1_1" else "weight_oihw"
        arrays[f"{layer}/kernel"] = file[f"{layer}.{kernel}"].transpose(2, 3, 1, 0)
        arrays[f"{layer}/bias"] = file[f"{layer}.bias"]
    module, params = vgg.load(save(arrays))
    features = jax.jit(lambda x: module.apply({"params": params}, x))
    photographs = sorted(path for split in ("train", "val") for path in (shared_data("bsds500") / split).glob("*.jpg"))
    ranked = []
    for path in photographs[::6]:
        image = cv2.resize(cv2.imread(str(path), cv2.IMREAD_COLOR_RGB), (96, 96), interpolation=cv2.INTER_AREA) / 255.0
        blurred = cv2.GaussianBlur(image, (0, 0), 1.5)
        shifted = image + np.sqrt(np.mean((blurred - image) ** 2))
        of = features(np.stack([image, blurred, shifted]).astype(np.float32))
        blur, shift = (sum(float(jnp.mean(jnp.abs(f[i] - f[0]))) for f in of) for i in (1, 2))
        ranked.append(blur > shift)
    assert len(ranked) == 50 and np.mean(ranked) >= 0.95
