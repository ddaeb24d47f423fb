"""Tests that the faster implementations equal the operator as it is written down, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import layer_cases
import networks
import runs
from pconv_jax.models import unet
from pconv_jax.ops import decoder, partial_conv, windows
from pconv_jax.ops.cpu import dispatch
from pconv_jax.training import build, parallel

AUTO = functools.partial(dispatch.decoder_conv, impl="auto")


def assert_equal(fast, plain):
    """Checks outputs within 1e-12, gradients within 1e-11 of the largest, equal masks, and 0 in remaining holes."""
    (y, m, gradients), (expected, expected_mask, expected_gradients) = jax.device_get((fast, plain))
    np.testing.assert_array_equal(m, expected_mask)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    assert y.dtype == expected.dtype and not y[np.broadcast_to(m == 0, y.shape)].any()
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        assert gradient.dtype == expected_gradient.dtype
        np.testing.assert_allclose(gradient, expected_gradient, rtol=0, atol=1e-11 * np.abs(expected_gradient).max())


@pytest.mark.parametrize("case", layer_cases.DECODER)
def test_decoder_equals_the_operator(case):
    """With few, no and only valid pixels the layer equals the operator; values in holes are not read."""
    shape = layer_cases.DECODER[case]
    n, h, w, _, _, o, _ = shape
    with jax.enable_x64(True):
        fast, plain = layer_cases.with_gradients(AUTO), layer_cases.with_gradients(decoder.decoder_conv)
        for valid in (0.3, 0.0, 1.0):
            low, low_mask, skip, skip_mask, kernel, bias = arrays = layer_cases.decoder_layer(*shape, valid=valid)
            cotangent = layer_cases.cotangent(n, 2 * h, 2 * w, o)
            expected = plain(arrays, cotangent)
            assert_equal(fast(arrays, cotangent), expected)
            spoiled = jnp.where(low_mask == 1, low, jnp.nan), low_mask, jnp.where(skip_mask == 1, skip, jnp.inf)
            assert_equal(fast([*spoiled, skip_mask, kernel, bias], cotangent), expected)


@pytest.mark.parametrize("case", layer_cases.ENCODER)
def test_encoder_equals_the_operator(case):
    """With few, no and only valid pixels the layer equals the operator; values in holes are not read."""
    *shape, stride = layer_cases.ENCODER[case]
    pads = windows.half_padding(shape[-1:] * 2)
    operator = functools.partial(partial_conv.partial_conv, strides=stride, padding=pads)
    with jax.enable_x64(True):
        fast = layer_cases.with_gradients(functools.partial(dispatch.conv, stride=stride, impl="auto"))
        plain = layer_cases.with_gradients(operator)
        for valid in (0.3, 0.0, 1.0):
            x, mask, kernel, bias = arrays = layer_cases.encoder_layer(*shape, valid=valid)
            cotangent = layer_cases.cotangent(*operator(*arrays)[0].shape)
            expected = plain(arrays, cotangent)
            assert_equal(fast(arrays, cotangent), expected)
            assert_equal(fast([jnp.where(mask == 1, x, jnp.nan), mask, kernel, bias], cotangent), expected)


@pytest.mark.parametrize("case", ["dec1", "few: dec7"])
def test_the_choice_follows_platform_and_config(case):
    """The program differs from the operator's on a CPU, and equals it on a GPU and with "xla"."""
    arrays = layer_cases.decoder_layer(*layer_cases.DECODER[case], dtype=np.float32)

    def operations(layer, platform):
        text = layer_cases.lowered(layer, arrays, platform)
        return [text.count(f"stablehlo.{name} ") for name in ("dot_general", "pad")]

    plain = operations(decoder.decoder_conv, "cpu")
    assert operations(AUTO, "cpu") != plain
    assert operations(AUTO, "cuda") == operations(decoder.decoder_conv, "cuda") == plain
    assert operations(functools.partial(AUTO, impl="xla"), "cpu") == plain


def test_the_choice_follows_the_shape():
    """A 3x3 kernel is split into sub-pixel kernels where output positions are more than twice the channels."""

    def program(shape):
        return str(jax.make_jaxpr(AUTO)(*layer_cases.decoder_layer(*shape, dtype=np.float32)))

    assert program((1, 2, 2, 3, 2, 8, 3)).count("name=conv") == 1
    assert program((1, 2, 2, 3, 2, 7, 3)).count("name=conv") == 2  # of low and of skip
    assert program((1, 2, 2, 3, 2, 7, 5)).count("name=conv") == 1


def test_subpixel_kernels_save_half_of_the_operations():
    """The upsampled half takes 16 products per position instead of 36, forward and in both gradients."""
    arrays = layer_cases.decoder_layer(1, 32, 32, 32, 1, 32, 3, dtype=np.float32)

    def flops(layer):
        traced = layer_cases.with_gradients(layer).lower(arrays, layer_cases.cotangent(1, 64, 64, 32))
        return traced.compile().cost_analysis()["flops"]

    assert flops(AUTO) < 0.55 * flops(decoder.decoder_conv)


def forward_flops(**options):
    """Returns the operations of the paper's network for one 256x256 image, counted before XLA compiles it."""
    model = unet.UNet(depth=7, **options)
    image, mask = (jax.ShapeDtypeStruct((1, 256, 256, c), jnp.float32) for c in (3, 1))
    variables = jax.eval_shape(model.init, jax.random.key(0), image, mask)
    return jax.jit(model.apply).lower(variables, image, mask).cost_analysis()["flops"]


def test_what_the_network_costs():
    """Mask sums, ratio and masks cost three thousandths of the ordinary convolutions.

    Window sums of every channel would cost nine. The faster implementation saves more than a fifth of all operations;
    kernel positions outside the image are not counted.
    """
    ordinary, plain, fast = forward_flops(conv_type="zero"), forward_flops(conv_impl="xla"), forward_flops()
    assert ordinary < plain < 1.003 * ordinary
    assert 0.7 * plain < fast < 0.79 * plain


@pytest.mark.parametrize("impl", ["auto", "xla"])
def test_masks_of_a_network_are_not_folded(impl):
    """The window sums of all layers are computed at run time, even for a mask that is a constant of the program."""
    model, variables = networks.random(conv_impl=impl)
    image, mask = np.zeros((1, 16, 16, 3), np.float32), np.ones((1, 16, 16, 1), np.float32)
    text = jax.jit(lambda image: model.apply(variables, image, mask)).lower(image).compile().as_text()
    assert text.count(" reduce-window(") >= 4


@pytest.mark.parametrize("case", ["dec1", "few: dec7"])
def test_bfloat16_is_rounded_once(case):
    """Outputs are within half a unit in the last place of the same layer in float32."""
    shape = layer_cases.DECODER[case]
    half = layer_cases.decoder_layer(*shape, dtype=jnp.bfloat16)
    y, m = jax.jit(AUTO)(*half)
    expected, expected_mask = jax.jit(decoder.decoder_conv)(*(a.astype(jnp.float32) for a in half))
    assert y.dtype == jnp.bfloat16 and m.dtype == jnp.float32
    np.testing.assert_array_equal(m, expected_mask)
    eps = float(jnp.finfo(jnp.bfloat16).eps)
    np.testing.assert_allclose(y.astype(jnp.float32), expected, rtol=0.51 * eps, atol=1e-5)
    gradient = jax.jit(jax.grad(lambda k: AUTO(*half[:4], k, half[5])[0].sum()))(half[4])
    assert gradient.dtype == jnp.bfloat16 and np.isfinite(gradient.astype(np.float32)).all()


@pytest.mark.parametrize("case", ["dec1", pytest.param("few: dec7", marks=pytest.mark.slow), "enc5"])
def test_under_vmap(case):
    """Mapped over images, masks, kernels and biases, each result and gradient equals the operator's, in float64."""
    if case == "enc5":
        *shape, stride = layer_cases.ENCODER[case]
        layer, fast = layer_cases.encoder_layer, functools.partial(dispatch.conv, stride=stride, impl="auto")
        operator = functools.partial(partial_conv.partial_conv, strides=stride, padding=((1, 1), (1, 1)))
    else:
        shape = layer_cases.DECODER[case]
        layer, fast, operator = layer_cases.decoder_layer, AUTO, decoder.decoder_conv
    with jax.enable_x64(True):
        cases = [layer(*shape, valid=valid) for valid in (0.3, 0.0, 1.0)]
        cases = [[*images, (k + 1) * kernel, bias - k] for k, (*images, kernel, bias) in enumerate(cases)]
        cotangents = layer_cases.cotangent(3, *operator(*cases[0])[0].shape)
        stacked = [jnp.stack(arrays) for arrays in zip(*cases, strict=True)]
        together = jax.vmap(layer_cases.with_gradients(fast))(stacked, cotangents)
        plain = layer_cases.with_gradients(operator)
        for k, arrays in enumerate(cases):
            assert_equal(jax.tree.map(lambda x, k=k: x[k], together), plain(arrays, cotangents[k]))


def test_xla_stays_differentiable_forward():
    """The implementation "xla" supports forward-mode differentiation, which "auto" does not."""
    low, *rest = layer_cases.decoder_layer(*layer_cases.DECODER["dec1"], dtype=np.float32)
    layer = functools.partial(AUTO, impl="xla")
    _, tangent = jax.jvp(lambda low: layer(low, *rest)[0], (low,), (low,))
    without_bias = layer(low, *rest[:-1], jnp.zeros(3))[0] - layer(0 * low, *rest[:-1], jnp.zeros(3))[0]
    np.testing.assert_allclose(tangent, without_bias, atol=1e-4)


def test_the_network_is_the_same():
    """Outputs and gradients of the whole U-Net are equal in float64 with the same parameters."""
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        image = jnp.asarray(rng.uniform(size=(2, 8, 8, 3)))
        mask = jnp.asarray(layer_cases.random_mask(rng, (2, 8, 8), 0.7), float)
        results = []
        for impl in dispatch.IMPLS:
            model = unet.UNet(depth=2, width=16, max_width=32, kernels=(3,), dtype=jnp.float64, conv_impl=impl)
            if not results:
                variables = jax.jit(model.init)(jax.random.key(0), image, mask)
                variables = jax.tree.map(lambda a: a.astype(float), variables)

            def loss(params, model=model, variables=variables):
                variables = {**variables, "params": params}
                (y, _), _ = model.apply(variables, image, mask, train=True, mutable=["batch_stats"])
                return jnp.sum(jnp.sin(y)), y

            results.append(jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"]))
    *others, ((_, expected), expected_gradients) = results
    scale = max(np.abs(g).max() for g in jax.tree.leaves(expected_gradients))
    for (_, y), gradients in others:
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-11 * scale), gradients, expected_gradients
        )


@pytest.mark.slow
def test_a_step_on_four_devices_is_the_same():
    """From one state, a step on four devices gives the same loss and statistics with each implementation."""
    after = {}
    for impl in dispatch.IMPLS:
        config = runs.tiny(**{"model.conv_impl": impl})
        model = build.unet_model(config)
        assert model.conv_impl == impl
        train_step = parallel.map_step(runs.train_step(config, runs.phases(config)[0]))
        fresh = build.initial_state(runs.tiny(**{"model.conv_impl": "xla"}))
        assert jax.tree.map(jnp.shape, fresh) == jax.tree.map(jnp.shape, build.state_shapes(config))
        batch = next(parallel.prefetch(iter([runs.batch(config)])))
        after[impl], metrics = jax.device_get(train_step(parallel.replicate(fresh), batch, {}))
        after[impl] = metrics["loss"], after[impl].batch_stats
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), after["auto"], after["xla"])


@pytest.mark.parametrize("impl", dispatch.IMPLS)
@pytest.mark.parametrize(("batch", "kernel_size", "stride"), [(0, 3, 2), (0, 3, 1), (2, 2, 2), (1, 2, 3), (1, 4, 4)])
def test_empty_batches_and_even_kernels(impl, batch, kernel_size, stride):
    """Outputs and gradients of every implementation equal the operator's, also where oneDNN computes."""
    arrays = layer_cases.encoder_layer(batch, 3, 4, 5, 3, kernel_size, dtype=np.float32)
    pads = windows.half_padding((kernel_size, kernel_size))
    operator = functools.partial(partial_conv.partial_conv, strides=stride, padding=pads)
    cotangent = layer_cases.cotangent(*jax.eval_shape(operator, *arrays)[0].shape)
    caching = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)  # with it, "onednn" computes as "auto"
    try:
        fast = layer_cases.with_gradients(functools.partial(dispatch.conv, stride=stride, impl=impl))
        results = jax.device_get(fast(arrays, cotangent))
    finally:
        jax.config.update("jax_enable_compilation_cache", caching)
    expected = layer_cases.with_gradients(operator)(arrays, cotangent)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), results, jax.device_get(expected))


def test_empty_batch_of_a_decoder_layer():
    """Its gradients are empty or 0 in every implementation."""
    arrays = layer_cases.decoder_layer(0, 2, 2, 3, 2, 4, 3, dtype=np.float32)
    for impl in dispatch.IMPLS:
        layer = layer_cases.with_gradients(functools.partial(dispatch.decoder_conv, impl=impl))
        y, mask, gradients = layer(arrays, layer_cases.cotangent(0, 4, 4, 4))
        assert y.shape == (0, 4, 4, 4) and mask.shape == (0, 4, 4, 1)
        assert not any(np.asarray(gradient).any() for gradient in gradients)
