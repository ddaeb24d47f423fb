"""Tests that oneDNN's convolutions equal XLA's and the operator's, and that they never meet the compilation cache."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging
from jax import lax
from jax.experimental.compilation_cache import compilation_cache as jax_cache

import layer_cases
import runs
from pconv_jax.models import vgg
from pconv_jax.ops import decoder, partial_conv, windows
from pconv_jax.ops.cpu import dispatch, onednn
from pconv_jax.training import build, compilation_cache, parallel

DTYPES = ("float32", "bfloat16")


@pytest.fixture
def uncached():
    """Switches JAX's compilation cache off, as in a process that caches no programs."""
    before = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    jax_cache.reset_cache()
    yield
    jax.config.update("jax_enable_compilation_cache", before)
    jax_cache.reset_cache()


@pytest.fixture(params=DTYPES)
def dtype(request, uncached):
    """Returns a dtype that oneDNN computes in here, or skips the test."""
    if not onednn.usable(request.param):
        pytest.skip(f"oneDNN does not compute {request.param} here: another platform, wheel or processor")
    return jnp.dtype(request.param)


def calls(function, *arrays):
    """Returns the number of oneDNN's calls in a program."""
    return jax.jit(function).lower(*arrays).as_text().count("__onednn$")


def assert_close(result, expected, dtype=np.float32):
    """Checks up to another order of float32 sums, or half a unit in the last place of a coarser dtype."""
    result, expected = np.asarray(result, np.float64), np.asarray(expected, np.float64)
    relative = 0.51 * float(jnp.finfo(dtype).eps) if dtype == jnp.bfloat16 else 1e-5
    np.testing.assert_allclose(result, expected, rtol=relative, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
def test_convolution(stride, swapped, dtype):
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.normal(size=shape), dtype) for shape in ((2, 9, 12, 20), (5, 3, 20, 33)))
    pads = ((2, 1), (0, 3))
    weights = kernel.swapaxes(2, 3) if swapped else kernel
    y = jax.jit(lambda x, k: onednn.conv(x, k, stride, pads, swapped=swapped))(x, weights)
    wide = x.astype(jnp.float32), kernel.astype(jnp.float32)
    expected = lax.conv_general_dilated(*wide, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    assert y.dtype == jnp.float32
    assert_close(y, expected)


@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
def test_product(transpose_a, transpose_b, dtype):
    rng = np.random.default_rng(0)
    a, b = (jnp.asarray(rng.normal(size=shape), dtype) for shape in ((33, 70), (70, 18)))
    options = {"transpose_a": transpose_a, "transpose_b": transpose_b}
    y = jax.jit(functools.partial(onednn.product, **options))(a.T if transpose_a else a, b.T if transpose_b else b)
    assert y.dtype == jnp.float32
    assert_close(y, a.astype(jnp.float32) @ b.astype(jnp.float32))


@pytest.mark.parametrize("case", ["dec1", "not square", "few: dec7", "enc5", "odd size, window 5"])
def test_layers_equal_the_operator(case, dtype):
    """With few, no and only valid pixels, outputs, masks and gradients equal the operator's.

    Outputs are rounded once, and values in holes are not read.
    """
    if case in layer_cases.ENCODER:
        *shape, stride = layer_cases.ENCODER[case]
        make, pads = layer_cases.encoder_layer, windows.half_padding(shape[-1:] * 2)
        operator = functools.partial(partial_conv.partial_conv, strides=stride, padding=pads)
        fast = functools.partial(dispatch.conv, stride=stride, impl="onednn")
    else:
        shape, make = layer_cases.DECODER[case], layer_cases.decoder_layer
        operator, fast = decoder.decoder_conv, functools.partial(dispatch.decoder_conv, impl="onednn")
    fast_gradients, plain_gradients = layer_cases.with_gradients(fast), layer_cases.with_gradients(operator)
    for valid in (0.3, 0.0, 1.0):
        arrays = make(*shape, valid=valid, dtype=dtype)
        wide = [a.astype(jnp.float32) for a in arrays]
        cotangent = layer_cases.cotangent(*jax.eval_shape(operator, *wide)[0].shape)
        cotangent = jnp.asarray(cotangent, dtype).astype(jnp.float32)
        y, mask, gradients = fast_gradients(arrays, cotangent)
        expected, expected_mask, expected_gradients = plain_gradients(wide, cotangent)
        assert y.dtype == dtype and not np.asarray(y)[np.broadcast_to(mask == 0, y.shape)].any()
        np.testing.assert_array_equal(mask, expected_mask)
        if dtype == jnp.bfloat16 and case in layer_cases.POLYPHASE:
            # Their kernels are sums of weights, which are rounded as well.
            np.testing.assert_allclose(y.astype(jnp.float32), expected, rtol=0, atol=0.01 * np.abs(expected).max())
        else:
            assert_close(y, expected, dtype)
        tolerance = 1e-5 if dtype == jnp.float32 else 0.02
        for gradient, right in zip(gradients, expected_gradients, strict=True):
            scale = max(np.abs(right).max(), 1e-6)
            np.testing.assert_allclose(gradient.astype(jnp.float32), right, rtol=0, atol=tolerance * scale)
        spoiled = [jnp.where(arrays[1] == 1, arrays[0], jnp.nan), *arrays[1:]]
        assert np.asarray(fast_gradients(spoiled, cotangent)[0]).tobytes() == np.asarray(y).tobytes()
    assert calls(lambda *a: fast(*a)[0], *arrays) >= 1


def test_under_vmap(dtype):
    x, mask, kernel, bias = layer_cases.encoder_layer(2, 6, 6, 5, 4, 3, dtype=dtype)
    fast = functools.partial(dispatch.conv, stride=2, impl="onednn")
    stacked, kernels = jnp.stack([x, 2 * x]), jnp.stack([kernel, -kernel])
    y, _ = jax.jit(jax.vmap(fast, in_axes=(0, None, 0, None)))(stacked, mask, kernels, bias)
    for k in range(2):
        np.testing.assert_array_equal(y[k], jax.jit(fast)(stacked[k], mask, kernels[k], bias)[0])


def test_other_platforms_have_their_own(dtype):
    arrays = layer_cases.encoder_layer(2, 6, 6, 5, 4, 3, dtype=dtype)
    fast = functools.partial(dispatch.conv, stride=2, impl="onednn")

    def ordinary(x, mask, kernel, bias):
        return (dispatch.ordinary_conv(x, kernel, 2, "onednn"),)

    for layer in (fast, ordinary):
        assert "onednn" in layer_cases.lowered(layer, arrays, "cpu")
        assert "onednn" not in layer_cases.lowered(layer, arrays, "cuda")


def test_vgg16_and_ordinary_convolutions(uncached):
    """Features of VGG16 and their gradient equal XLA's, and so do ordinary convolutions."""
    if not onednn.usable("float32"):
        pytest.skip("oneDNN is not usable here")
    options = {"order": "RGB", "scale": 1.0, "mean": (0.5,) * 3, "std": (0.3,) * 3}
    image = jnp.asarray(np.random.default_rng(0).uniform(size=(1, 16, 16, 3)), jnp.float32)
    results = []
    for impl in ("onednn", "auto"):
        model = vgg.VGG16Features(**options, conv_impl=impl)
        params = results[0][0] if results else model.init(jax.random.key(0), image)["params"]

        def loss(image, model=model, params=params):
            features = model.apply({"params": params}, image)
            return sum(jnp.sum(jnp.sin(f)) for f in features), features

        assert (calls(loss, image) > 0) == (impl == "onednn")
        results.append((params, *jax.jit(jax.value_and_grad(loss, has_aux=True))(image)))
    (_, (_, features), gradient), (_, (_, expected), expected_gradient) = results
    for one, other in zip(features, expected, strict=True):
        assert_close(one, other)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-4 * np.abs(expected_gradient).max())


def test_a_step_on_devices_is_the_same(uncached):
    """A step on four devices gives the same bits twice, and agrees with "auto"."""
    if not onednn.usable("float32"):
        pytest.skip("oneDNN is not usable here")
    after, programs = [], {}
    for impl in ("onednn", "onednn", "auto"):
        config = runs.tiny(**{"model.conv_impl": impl})
        if impl not in programs:
            step = runs.train_step(config, runs.phases(config)[0])
            programs[impl], fresh = parallel.map_step(step), jax.device_get(build.initial_state(config))
        batch = next(parallel.prefetch(iter([runs.batch(config)])))
        state, metrics = programs[impl](parallel.replicate(fresh), batch, {})
        after.append(jax.device_get((state.params, metrics)))
    first, again, by_xla = after
    jax.tree.map(np.testing.assert_array_equal, first, again)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=2e-5), first[1], by_xla[1])


def test_it_is_not_used_where_programs_are_cached(uncached, tmp_path):
    """oneDNN is not used with a compilation cache, which cannot store its programs, nor for other dtypes."""
    if not onednn.usable("float32"):
        pytest.skip("oneDNN is not usable here")
    assert not onednn.usable("float64") and not onednn.usable("float16")
    directory = jax.config.jax_compilation_cache_dir
    try:
        jax.config.update("jax_compilation_cache_dir", str(tmp_path))
        jax.config.update("jax_enable_compilation_cache", True)
        assert not onednn.usable("float32")
        arrays = layer_cases.encoder_layer(1, 4, 4, 2, 3, 3, dtype=np.float32)
        assert not calls(lambda *a: dispatch.conv(*a, 1, "onednn")[0], *arrays)
    finally:
        jax.config.update("jax_compilation_cache_dir", directory)


@pytest.mark.parametrize(
    "broken",
    [
        lambda target, config, shape, *operands: jnp.zeros(shape, jnp.float32),
        lambda *_: jax.ffi.ffi_call("__no$such$target", jax.ShapeDtypeStruct((1,), np.float32))(jnp.zeros(1)),
    ],
    ids=["another result", "no such target"],
)
def test_it_is_tried_first(broken, uncached, monkeypatch):
    """oneDNN is not used where its small case gives another result or the target does not exist."""
    onednn._agrees_with_xla.cache_clear()
    monkeypatch.setattr(onednn, "_call", broken)
    assert not onednn.usable("float32")
    onednn._agrees_with_xla.cache_clear()


def test_a_training_caches_no_programs_with_it(uncached, monkeypatch):
    """The compilation cache is off with oneDNN, and on with a warning where oneDNN is not usable."""
    settings = ("jax_enable_compilation_cache", "jax_compilation_cache_dir")
    before, lines = {name: getattr(jax.config, name) for name in settings}, []
    for level in ("info", "warning"):
        monkeypatch.setattr(logging, level, lambda line, *values, level=level: lines.append((level, line % values)))
    try:
        for usable in (True, False):
            monkeypatch.setattr(onednn, "usable", lambda dtype, usable=usable: usable)
            jax.config.update("jax_enable_compilation_cache", True)
            compilation_cache.enable(True, runs.tiny(**{"model.conv_impl": "onednn"}).model)
            assert jax.config.jax_enable_compilation_cache == (not usable)
        jax.config.update("jax_enable_compilation_cache", True)
        compilation_cache.enable(True, runs.tiny(**{"model.conv_impl": "auto"}).model)
        assert jax.config.jax_enable_compilation_cache
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
    (first, info), (second, warning) = lines
    assert (first, second) == ("info", "warning") and "oneDNN" in info and "model.conv_impl=auto is used" in warning


@pytest.mark.parametrize(("flags", "version"), [(set(), None), ({"avx512f", "avx2"}, None), ({"amx_bf16"}, "0.10.9")])
def test_nothing_is_computed_where_it_would_end_the_process(flags, version, uncached, monkeypatch):
    """No call is made in bfloat16 without its instructions, nor with a jaxlib that was not tested."""
    onednn._agrees_with_xla.cache_clear()
    monkeypatch.setattr(onednn, "_cpu_flags", lambda: flags)
    monkeypatch.setattr(onednn, "_call", lambda *_: pytest.fail("called"))
    if version:
        monkeypatch.setattr(onednn.jaxlib, "__version__", version)
    assert not onednn.usable("bfloat16")
    onednn._agrees_with_xla.cache_clear()


def test_negative_pads_are_refused():
    with pytest.raises(ValueError, match="needs none below 0"):
        onednn.conv(jnp.zeros((1, 4, 4, 1)), jnp.zeros((1, 1, 1, 1)), 1, ((-1, 0), (0, 0)))
