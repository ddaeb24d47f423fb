"""Tests of the U-Net: the paper's table, its skips, its independence of hole content, and the types of convolution."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import networks
from pconv_jax.models import layers, unet

SMALL = {"depth": 2, "width": 8, "max_width": 16}


def example(size=16, channels=3, batch=2, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.uniform(size=(batch, size, size, channels)).astype(np.float32)
    mask = np.ones((batch, size, size, 1), np.float32)
    mask[:, 3 : size - 4, 2 : size - 3] = 0
    return image, mask


@functools.cache
def compiled(model):
    """Returns a model's `apply`, compiled once per shape: op by op, every operation would compile on its own."""
    return jax.jit(model.apply)


def initialised(**options):
    """Returns a model and variables, drawn without compiling its initialisation."""
    return networks.random(**{**SMALL, "kernels": (7, 5, 5, 3), "norm": "batch", "center": False, **options})


def test_the_papers_table():
    """The sixteen layers at 512 pixels have the kernels, channels, normalisation and bias of section 3.2.

    They have 32.9 million parameters.
    """
    image, mask = jnp.zeros((1, 512, 512, 3)), jnp.ones((1, 512, 512, 1))
    variables = jax.eval_shape(unet.UNet().init, jax.random.key(0), image, mask)
    kernels = {name: layer["conv"]["kernel"].shape for name, layer in variables["params"].items()}
    encoder = [(7, 3, 64), (5, 64, 128), (5, 128, 256), (3, 256, 512)] + [(3, 512, 512)] * 4
    decoder = [(3, 64 + 3, 3), (3, 128 + 64, 64), (3, 256 + 128, 128), (3, 512 + 256, 256)] + [(3, 1024, 512)] * 4
    expected = {f"enc{i + 1}": (k, k, c, o) for i, (k, c, o) in enumerate(encoder)}
    expected |= {f"dec{i + 1}": (k, k, c, o) for i, (k, c, o) in enumerate(decoder)}
    assert kernels == expected
    with_norm = {name for name, layer in variables["params"].items() if "norm" in layer}
    assert with_norm == set(expected) - {"enc1", "dec1"} == set(variables["batch_stats"])
    with_bias = {name for name, layer in variables["params"].items() if "bias" in layer["conv"]}
    assert with_bias == {"enc1", "dec1"}
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == 32_859_796
    (output, final), _ = jax.eval_shape(
        lambda v: unet.UNet().apply(v, image, mask, train=True, mutable=["batch_stats"]), variables
    )
    assert output.shape == (1, 512, 512, 3) and final.shape == (1, 512, 512, 1)


def test_parameter_tree():
    """Every module is registered under its name, batch normalisation included (tanimutomo's was not)."""
    _, variables = initialised()
    paths = {jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree.leaves_with_path(variables)}
    blocks = {"enc1": "b", "enc2": "n", "dec2": "n", "dec1": "b"}
    expected = {f"params/{name}/conv/kernel" for name in blocks}
    for name, kind in blocks.items():
        if kind == "b":
            expected |= {f"params/{name}/conv/bias"}
        else:
            expected |= {f"params/{name}/norm/batch/{leaf}" for leaf in ("scale", "bias")}
            expected |= {f"batch_stats/{name}/norm/batch/{leaf}" for leaf in ("mean", "var")}
    assert paths == expected


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({}, (16, 24)),
        ({"conv_type": "gated"}, (16, 24)),
        ({"mask_update": "vanish", "depth": 3, "center": True}, (24, 40)),
    ],
    ids=str,
)
def test_padding_beyond_inside_changes_nothing(options, size):
    """A padded image gives the very output of the image alone, whatever lies in the padding."""
    model, variables = initialised(**options)
    image, mask = (x[:1, : size[0], : size[1]] for x in example(40))
    expected, _ = compiled(model)(variables, image, mask)
    pad = ((0, 0), (0, 48 - size[0]), (0, 48 - size[1]), (0, 0))
    padded = np.pad(image, pad, constant_values=0.7), np.pad(mask, pad)
    output, _ = compiled(model)(variables, *padded, inside=np.pad(np.ones_like(mask), pad))
    np.testing.assert_allclose(output[:, : size[0], : size[1]], expected, atol=2e-5)


@pytest.mark.parametrize("conv_type", layers.CONV_TYPES)
def test_a_network_with_a_guess_adds_to_it(conv_type):
    """With all parameters 0 the output is the image with the guess in its hole; the content of the hole is not read."""
    model, variables = initialised(conv_type=conv_type, guess=True, norm="none", center=True)
    image, mask = example()
    guess = np.random.default_rng(1).uniform(size=image.shape).astype(np.float32)
    expected = np.where(mask != 0, image, guess)
    output, seen = compiled(model)(jax.tree.map(jnp.zeros_like, variables), image, mask, guess)
    np.testing.assert_array_equal(output, expected)
    assert seen is None if conv_type != "partial" else (np.asarray(seen) == 1).all()
    output, _ = compiled(model)(variables, image, mask, guess)
    other, _ = compiled(model)(variables, np.where(mask != 0, image, 9), mask, np.where(mask != 0, 9, guess))
    np.testing.assert_array_equal(output, other)
    assert not np.allclose(output, expected)
    assert (
        variables["params"]["enc1"]["conv"]["kernel"].shape[2]
        == variables["params"]["dec1"]["conv"]["kernel"].shape[2] - 8
        == 4
    )


def test_a_guess_is_neither_missing_nor_surplus():
    """The message names what the network was built for."""
    image, mask = example()
    for with_guess, guess, state in ((True, None, "missing"), (False, image, "given")):
        model, variables = initialised(guess=with_guess, norm="none")
        with pytest.raises(ValueError, match=f"a guess is {state} and the network was built with guess={with_guess}"):
            model.apply(variables, image, mask, guess)


@pytest.mark.parametrize("conv_type", layers.CONV_TYPES)
def test_gradient_reaches_every_skip(conv_type):
    """The half of each decoder kernel that reads the skip has a gradient (the Keras project dropped every skip)."""
    model, variables = initialised(conv_type=conv_type)
    image, mask = example()

    def loss(params):
        (output, _), _ = model.apply({**variables, "params": params}, image, mask, train=True, mutable=["batch_stats"])
        return jnp.mean(output**2)

    grads = jax.jit(jax.grad(loss))(variables["params"])
    skip_channels = {"dec1": 4 if conv_type == "mask_channel" else 3, "dec2": 8}
    for name, channels in skip_channels.items():
        gradient = np.asarray(grads[name]["conv"]["kernel"])[..., -channels:, :]
        assert np.abs(gradient).max() > 0, name
    assert all(np.abs(np.asarray(g["conv"]["kernel"])).max() > 0 for g in grads.values())


@pytest.mark.parametrize("conv_type", layers.CONV_TYPES)
@pytest.mark.parametrize("center", [False, True])
def test_hole_content_is_irrelevant(conv_type, center):
    """NaN in the holes of the image gives the same output and the same finite gradients."""
    model, variables = initialised(conv_type=conv_type, center=center)
    image, mask = example()
    spoiled = np.where(mask != 0, image, np.nan).astype(np.float32)

    @jax.jit
    def value_and_grad(image):
        def loss(params):
            output, _ = model.apply({**variables, "params": params}, image, mask)
            return jnp.sum(output**2), output

        return jax.value_and_grad(loss, has_aux=True)(variables["params"])

    (_, expected), expected_grads = value_and_grad(image)
    (_, output), grads = value_and_grad(spoiled)
    np.testing.assert_array_equal(output, expected)
    jax.tree.map(np.testing.assert_array_equal, grads, expected_grads)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


@pytest.mark.parametrize("conv_type", layers.CONV_TYPES)
def test_the_mask_matters(conv_type):
    """The output of each type of convolution depends on the mask."""
    model, variables = initialised(conv_type=conv_type)
    image, mask = example()
    with_hole, _ = compiled(model)(variables, image, mask)
    without, _ = compiled(model)(variables, image, np.ones_like(mask))
    assert np.abs(with_hole - without).max() > 1e-3


def test_prediction_does_not_depend_on_batch_mates():
    """Outside training the running statistics are used, not the batch's (PConv-Keras used the batch's)."""
    model, variables = initialised()
    image, mask = example(batch=3)
    together, _ = compiled(model)(variables, image, mask)
    alone, _ = compiled(model)(variables, image[1:2], mask[1:2])
    np.testing.assert_allclose(together[1:2], alone, rtol=1e-5, atol=1e-5)


def test_training_moves_the_statistics():
    model, variables = initialised()
    image, mask = example()
    _, updates = jax.jit(functools.partial(model.apply, train=True, mutable=["batch_stats"]))(variables, image, mask)
    before, after = (jax.tree.leaves(v["batch_stats"]) for v in (variables, updates))
    assert all(np.abs(a - b).max() > 0 for a, b in zip(after, before, strict=True))


def test_final_mask_shows_what_was_seen():
    """A hole larger than the receptive field stays a hole in the final mask; a small one is filled."""
    model, variables = initialised(depth=1, norm="none")
    image, mask = example(size=16)
    _, final = compiled(model)(variables, image, mask)
    assert 0 < float(final.mean()) < 1
    _, final = compiled(model)(variables, image, np.ones_like(mask))
    assert float(final.mean()) == 1
    output, final = compiled(model)(variables, image, np.zeros_like(mask))
    assert not np.asarray(final).any() and not np.asarray(output).any()


def test_centering_follows_brightness():
    """With `center`, adding a constant to the image adds it to the prediction."""
    model, variables = initialised(center=True)
    image, mask = example()
    base, _ = compiled(model)(variables, image, mask)
    brighter, _ = compiled(model)(variables, image + 0.3, mask)
    np.testing.assert_allclose(brighter, base + 0.3, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("norm", layers.NORM_TYPES)
@pytest.mark.parametrize("channels", [1, 3])
def test_norms_and_channels(norm, channels):
    model, variables = initialised(norm=norm, channels=channels)
    image, mask = example(channels=channels)
    output, _ = compiled(model)(variables, image, mask)
    assert output.shape == image.shape and output.dtype == jnp.float32
    assert ("batch_stats" in variables) == (norm in ("batch", "masked_batch"))
    assert any("group" in str(path) for path, _ in jax.tree.leaves_with_path(variables)) == (norm == "group")


def test_masked_normalisation_needs_masks():
    with pytest.raises(ValueError, match='norm "masked_batch" with kind "gated"; only "partial" has a mask'):
        initialised(norm="masked_batch", conv_type="gated")


def test_a_frozen_encoder_leaves_its_statistics():
    """The frozen encoder keeps its running statistics, and the decoder updates its own."""
    model, variables = initialised()
    image, mask = example()
    apply = functools.partial(model.apply, train=True, freeze_encoder=True, mutable=["batch_stats"])
    _, updates = jax.jit(apply)(variables, image, mask)
    before, after = variables["batch_stats"], updates["batch_stats"]
    jax.tree.map(np.testing.assert_array_equal, before["enc2"], after["enc2"])
    decoder = zip(jax.tree.leaves(before["dec2"]), jax.tree.leaves(after["dec2"]), strict=True)
    assert all(np.abs(a - b).max() > 0 for a, b in decoder)


def test_prepared_variables_are_the_same():
    """Prepared variables give the same bits, also from arrays of the host, as a checkpoint has them."""
    model, variables = networks.random(dtype=jnp.bfloat16)
    rng = np.random.default_rng(0)
    image, mask = rng.uniform(size=(1, 16, 16, 3)).astype(np.float32), np.ones((1, 16, 16, 1), np.float32)
    prepared = unet.prepared(jax.device_get(variables), model.dtype)
    kinds = {value.ndim: value.dtype for value in jax.tree.leaves(prepared)}
    assert kinds == {4: jnp.bfloat16, 1: jnp.float32}
    expected, result = (jax.jit(model.apply)(v, image, mask)[0] for v in (variables, prepared))
    np.testing.assert_array_equal(result, expected)


def test_bfloat16_follows_float32():
    """Features are bfloat16, parameters and output float32, and the output is close to that of float32."""
    model, variables = initialised(dtype=jnp.bfloat16)
    image, mask = example()
    output, final = compiled(model)(variables, image, mask)
    expected, expected_final = compiled(unet.UNet(**SMALL))(variables, image, mask)
    assert output.dtype == jnp.float32 and final.dtype == jnp.float32
    np.testing.assert_array_equal(final, expected_final)
    assert np.abs(output - expected).mean() < 0.03 * np.abs(expected).mean()


@pytest.mark.parametrize(
    ("image", "mask", "message"),
    [
        ((1, 250, 304, 3), (1, 250, 304, 1), r"image is 250x304; needs multiples of 4 \(2 downsampling stages\): pad"),
        ((1, 0, 16, 3), (1, 0, 16, 1), "image is 0x16; needs multiples of 4"),
        ((1, 16, 16, 1), (1, 16, 16, 1), r"needs \[N, H, W, 3\] and \[N, H, W, 1\]"),
        ((1, 16, 16, 3), (1, 16, 16, 3), r"mask \(1, 16, 16, 3\); needs"),
    ],
)
def test_wrong_sizes_are_refused(image, mask, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(unet.UNet(**SMALL).init, jax.random.key(0), jnp.zeros(image), jnp.zeros(mask))


@pytest.mark.parametrize("options", [{}, {"depth": 1, "kernels": (7,)}, {"depth": 3, "kernels": (5, 3)}])
def test_receptive_field_radius(options):
    """A pixel changes outputs up to exactly that far away, and validity spreads no farther."""
    model, variables = networks.random(center=False, **options)
    radius = unet.receptive_field_radius(model.depth, model.kernels)
    side = -(-(2 * radius + 2**model.depth) // 8) * 8 + 8
    image = np.random.default_rng(0).uniform(size=(1, side, side, 3)).astype(np.float32)
    farthest = 0
    before, _ = compiled(model)(variables, image, np.ones((1, side, side, 1)))
    for place in range(radius, radius + 2**model.depth):
        other = image.copy()
        other[0, place, place] += 10
        after, _ = compiled(model)(variables, other, np.ones((1, side, side, 1)))
        rows, columns = np.nonzero(np.abs(after - before)[0].max(axis=-1))
        farthest = max(farthest, *np.abs(rows - place), *np.abs(columns - place))
        mask = np.zeros((1, side, side, 1), np.float32)
        mask[0, place, place] = 1
        _, seen = compiled(model)(variables, image, mask)
        assert np.abs(np.argwhere(np.asarray(seen)[0, ..., 0] != 0) - place).max() <= radius
    assert farthest == radius
