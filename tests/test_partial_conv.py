"""Tests of the operator against a loop over its definition, and of the properties that follow from it."""

import itertools

import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads

import loops
import pconv_jax

DIMENSIONS = {1: ("NWC", "WIO", "NWC"), 2: ("NHWC", "HWIO", "NHWC"), 3: ("NDHWC", "DHWIO", "NDHWC")}
SPATIAL = {1: (11,), 2: (7, 8), 3: (5, 6, 5)}


def make(rank, channels=4, outputs=6, mask_channels=1, groups=1, window=3, valid=0.4, seed=0, batch=2):
    """Returns random features, mask (None if `mask_channels` is 0), kernel and bias."""
    rng = np.random.default_rng([seed, rank, channels, mask_channels, groups])
    x = rng.normal(size=(batch, *SPATIAL[rank], channels)).astype(np.float32)
    mask = (rng.uniform(size=(batch, *SPATIAL[rank], mask_channels)) < valid).astype(np.float32)
    if mask_channels:
        mask[:, : SPATIAL[rank][0] // 2 + 1] *= rng.uniform(size=mask[:, : SPATIAL[rank][0] // 2 + 1].shape) < 0.2
    windows = (window,) * rank if isinstance(window, int) else window
    kernel = rng.normal(size=(*windows, channels // groups, outputs)).astype(np.float32)
    return x, mask if mask_channels else None, kernel, rng.normal(size=outputs).astype(np.float32)


def plain(x, kernel, strides=1, padding="SAME", dilation=1, groups=1):
    """Returns XLA's ordinary convolution."""
    rank = x.ndim - 2
    return lax.conv_general_dilated(
        x,
        kernel,
        (strides,) * rank,
        padding,
        rhs_dilation=(dilation,) * rank,
        dimension_numbers=DIMENSIONS[rank],
        feature_group_count=groups,
    )


def explicit(padding, rank, window, stride, dilation):
    """Returns the padding as `(low, high)` per axis."""
    if isinstance(padding, str):
        reach = [(k - 1) * dilation + 1 for k in window]
        return lax.padtype_to_pads(SPATIAL[rank], reach, (stride,) * rank, padding)
    return padding


OPTIONS = [
    *itertools.product((1, 2, 3), (1, 2), (1, 2), ("SAME", "VALID"), (1,), (0, 1, 4)),
    *itertools.product((1, 2, 3), (1, 2), (1,), ("explicit",), (1, 2), (0, 1, 2, 4)),
    *itertools.product((2,), (1, 3), (1,), ("SAME",), (4,), (0, 1, 4)),
]


@pytest.mark.parametrize(("rank", "stride", "dilation", "padding", "groups", "mask_channels"), OPTIONS)
def test_equals_the_loop(rank, stride, dilation, padding, groups, mask_channels):
    """Features and mask equal the definition within 1e-5 for each option."""
    outputs = 4 if groups == 4 else 6
    x, mask, kernel, bias = make(rank, outputs=outputs, mask_channels=mask_channels, groups=groups)
    padding = ((2, 0), (0, 1), (1, 3))[:rank] if padding == "explicit" else padding
    sizes = {0: None, 1: (4,), 2: (3, 1) if groups == 1 else None, 4: None}[mask_channels]
    y, m = pconv_jax.partial_conv(
        x,
        mask,
        kernel,
        bias,
        strides=stride,
        padding=padding,
        dilation=dilation,
        feature_group_count=groups,
        group_sizes=sizes,
    )
    pads = explicit(padding, rank, (3,) * rank, stride, dilation)
    repeats = sizes or {0: None, 1: (4,), 2: (2, 2), 4: (1,) * 4}[mask_channels]
    per_axis = (stride,) * rank, pads, (dilation,) * rank
    expected, expected_mask = loops.partial_conv(x, mask, kernel, bias, *per_axis, groups, repeats)
    assert y.dtype == jnp.float32 and m.dtype == jnp.float32 and m.shape[-1] == groups
    np.testing.assert_array_equal(m, expected_mask)
    np.testing.assert_allclose(y, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("sizes", [(1, 3), (2, 2), (3, 1), (1, 1, 2)])
def test_groups_of_channels_have_their_own_holes(sizes):
    """sum(M) is the sum of group_sizes[g] * box(M_g), as for features concatenated from several maps."""
    x, mask, kernel, bias = make(2, mask_channels=len(sizes))
    y, m = pconv_jax.partial_conv(x, mask, kernel, bias, group_sizes=sizes)
    expected, expected_mask = loops.partial_conv(x, mask, kernel, bias, (1, 1), ((1, 1), (1, 1)), (1, 1), 1, sizes)
    np.testing.assert_array_equal(m, expected_mask)
    np.testing.assert_allclose(y, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("window", [(1, 1), (2, 2), (5, 3), (7, 7)])
def test_windows(window):
    """Even, uneven and large kernels equal the definition."""
    x, mask, kernel, bias = make(2, window=window)
    pads = explicit("SAME", 2, window, 2, 1)
    y, m = pconv_jax.partial_conv(x, mask, kernel, bias, strides=2)
    expected, expected_mask = loops.partial_conv(x, mask, kernel, bias, (2, 2), pads, (1, 1), 1, (4,))
    np.testing.assert_array_equal(m, expected_mask)
    np.testing.assert_allclose(y, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("channels", [1, 3, 8])
def test_full_mask_is_the_plain_convolution_inside(channels):
    """No factor of k * k or C is lost or gained (naoto0804, CRAI, PConv-Keras, parx)."""
    x, _, kernel, bias = make(2, channels=channels)
    expected = plain(x, kernel, padding="VALID") + bias
    for mask in (None, np.ones_like(x[..., :1]), np.ones_like(x)):
        y, m = pconv_jax.partial_conv(x, mask, kernel, bias, padding="VALID")
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(
            pconv_jax.partial_conv(x, mask, kernel, bias)[0][:, 1:-1, 1:-1], expected, rtol=1e-5, atol=1e-5
        )
        assert np.all(m == 1)


def test_border_ratio_of_padding():
    """A 3x3 kernel of ones keeps its sum over an all-valid image: the ratio is 1.5 on an edge and 2.25 in a corner."""
    x, kernel = jnp.ones((1, 5, 5, 2)), jnp.ones((3, 3, 2, 1))
    y, _ = pconv_jax.partial_conv(x, None, kernel)
    np.testing.assert_allclose(y, 18.0, rtol=1e-6)
    ratio = y / plain(x, kernel)
    np.testing.assert_allclose(ratio[0, 0, 0, 0], 2.25, rtol=1e-6)
    np.testing.assert_allclose(ratio[0, 0, 2, 0], 1.5, rtol=1e-6)
    np.testing.assert_allclose(ratio[0, 2, 2, 0], 1.0, rtol=1e-6)


@pytest.mark.parametrize("junk", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("mask_channels", [1, 2, 4])
def test_hole_content_is_irrelevant(junk, mask_channels):
    """Values in a hole change neither the result nor any gradient."""
    x, mask, kernel, bias = make(2, mask_channels=mask_channels)
    sizes = {1: (4,), 2: (3, 1), 4: (1,) * 4}[mask_channels]
    spoiled = np.where(np.repeat(mask, sizes, axis=-1) != 0, x, junk).astype(np.float32)

    def value(x, kernel, bias):
        y, _ = pconv_jax.partial_conv(x, mask, kernel, bias, group_sizes=sizes)
        return jnp.sum(jnp.sin(y)), y

    (_, clean), grads = jax.value_and_grad(value, (0, 1, 2), has_aux=True)(x, kernel, bias)
    (_, result), spoiled_grads = jax.value_and_grad(value, (0, 1, 2), has_aux=True)(spoiled, kernel, bias)
    np.testing.assert_array_equal(clean, result)
    for grad, expected in zip(spoiled_grads, grads, strict=True):
        assert np.isfinite(grad).all()
        np.testing.assert_array_equal(grad, expected)
    assert np.all(np.asarray(grads[0])[np.repeat(mask, sizes, axis=-1) == 0] == 0)


def test_bias_is_added_once_and_not_in_holes():
    """With a kernel of zeros the output is the bias where it is valid and 0 elsewhere (tanimutomo scaled the bias)."""
    x, mask, kernel, bias = make(2, valid=0.05)
    mask[:, :4] = 0
    y, m = pconv_jax.partial_conv(x, mask, 0 * kernel, bias)
    assert 0 < m.mean() < 1
    np.testing.assert_array_equal(y, np.where(m == 1, bias, 0))


def test_all_holes_give_zero_and_no_gradient():
    """An empty mask gives 0 and gradients of 0: nothing is divided by zero."""
    x, mask, kernel, bias = make(2)
    y, m = pconv_jax.partial_conv(x, 0 * mask, kernel, bias)
    assert not y.any() and not m.any()
    grads = jax.grad(lambda *a: pconv_jax.partial_conv(a[0], 0 * mask, *a[1:])[0].sum(), (0, 1, 2))(x, kernel, bias)
    assert all(not np.asarray(g).any() for g in grads)


def test_no_mask_is_remembered():
    """The same arguments give the same result, whatever was called before (NVIDIA's layer cached the mask)."""
    x, mask, kernel, bias = make(2)
    before = pconv_jax.partial_conv(x, None, kernel, bias)[0]
    with_mask = pconv_jax.partial_conv(x, mask, kernel, bias)[0]
    np.testing.assert_array_equal(pconv_jax.partial_conv(x, None, kernel, bias)[0], before)
    np.testing.assert_array_equal(pconv_jax.partial_conv(x, mask, kernel, bias)[0], with_mask)
    assert np.abs(before - with_mask).max() > 0.1


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("groups", [1, 2])
def test_half_precision_follows_float32(dtype, groups):
    """With 512 channels half precision equals float32, rounded once.

    sum(M) of up to 4608 is not an integer of bfloat16, and NVIDIA's epsilon is 0 in float16.
    """
    x, mask, kernel, bias = make(2, channels=512, outputs=4, groups=groups)
    x, kernel, bias = (jnp.asarray(a, dtype) for a in (x, kernel / 64, bias))
    y, m = pconv_jax.partial_conv(x, mask, kernel, bias, feature_group_count=groups)
    wide = (a.astype(jnp.float32) for a in (x, kernel, bias))
    wide_x, *rest = wide
    expected, expected_mask = pconv_jax.partial_conv(wide_x, mask, *rest, feature_group_count=groups)
    assert y.dtype == dtype and m.dtype == jnp.float32
    np.testing.assert_array_equal(m, expected_mask)
    eps = float(jnp.finfo(dtype).eps)
    # Rounded once, from the float32 accumulator times the float32 ratio: within half a unit in the last place.
    np.testing.assert_allclose(y.astype(jnp.float32), expected, rtol=0.51 * eps, atol=1e-6)
    grad = jax.grad(lambda k: pconv_jax.partial_conv(x, mask, k, bias, feature_group_count=groups)[0].sum())(kernel)
    assert grad.dtype == dtype and np.isfinite(np.asarray(grad, np.float32)).all()


@pytest.mark.parametrize(
    ("rank", "mask_channels", "groups"), [(1, 1, 1), (2, 0, 1), (2, 1, 1), (2, 2, 1), (2, 4, 2), (3, 1, 1)]
)
def test_gradients(rank, mask_channels, groups):
    """First and second derivatives, forward and reverse, equal finite differences in float64."""
    with jax.enable_x64(True):
        arrays = make(rank, mask_channels=mask_channels, groups=groups, batch=1)
        x, mask, kernel, bias = (None if a is None else jnp.asarray(a, jnp.float64) for a in arrays)
        sizes = (3, 1) if mask_channels == 2 else None

        def value(x, kernel, bias):
            return pconv_jax.partial_conv(
                x, mask, kernel, bias, strides=2, feature_group_count=groups, group_sizes=sizes
            )[0]

        assert value(x, kernel, bias).dtype == jnp.float64
        check_grads(value, (x, kernel, bias), order=2, modes=("fwd", "rev"), atol=1e-6, rtol=1e-6)


def test_under_jit_vmap_and_jvp():
    """Each transformation gives the same numbers."""
    x, mask, kernel, bias = make(2)
    y, m = pconv_jax.partial_conv(x, mask, kernel, bias)
    for name, function in {
        "jit": jax.jit(pconv_jax.partial_conv),
        "vmap": lambda x, m, k, b: jax.tree.map(
            lambda a: a[:, 0], jax.vmap(lambda x, m: pconv_jax.partial_conv(x[None], m[None], k, b))(x, m)
        ),
        "jvp": lambda x, m, k, b: jax.jvp(lambda x: pconv_jax.partial_conv(x, m, k, b), (x,), (x,))[0],
    }.items():
        result, result_mask = function(x, mask, kernel, bias)
        np.testing.assert_allclose(result, y, rtol=1e-5, atol=1e-5, err_msg=name)
        np.testing.assert_array_equal(result_mask, m, err_msg=name)
    kernels = np.stack([kernel, 2 * kernel])
    both = jax.vmap(lambda k: pconv_jax.partial_conv(x, mask, k)[0])(kernels)
    np.testing.assert_allclose(both[1], 2 * both[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mask_dtype", [bool, np.uint8, np.int32, np.float16])
def test_mask_dtypes(mask_dtype):
    """A mask of any dtype that holds 0 and 1 gives the same result."""
    x, mask, kernel, bias = make(2)
    expected = pconv_jax.partial_conv(x, mask, kernel, bias)[0]
    np.testing.assert_array_equal(pconv_jax.partial_conv(x, mask.astype(mask_dtype), kernel, bias)[0], expected)


masks = hypothesis.extra.numpy.arrays(np.float32, (1, 9, 8, 1), elements=st.sampled_from([0.0, 1.0]))
windows = st.sampled_from([(1, 1), (3, 3), (5, 3), (7, 7)])
PROPERTIES = hypothesis.settings(max_examples=40, deadline=None, derandomize=True)


@PROPERTIES
@hypothesis.given(masks, masks, windows)
def test_mask_update_is_monotone(a, b, window):
    """More valid input never gives less valid output."""
    less = pconv_jax.propagate_mask(a * b, window)
    more = pconv_jax.propagate_mask(np.maximum(a, b), window)
    assert np.all(np.asarray(less) <= np.asarray(more))
    assert set(np.unique(less)) <= {0.0, 1.0}


@PROPERTIES
@hypothesis.given(masks, windows)
def test_mask_update_is_dilation(mask, window):
    """At stride 1 the new mask is the old one dilated by the window."""
    result = pconv_jax.propagate_mask(mask, window)
    np.testing.assert_array_equal(result[0, ..., 0], loops.dilate(mask[0, ..., 0], window))


@PROPERTIES
@hypothesis.given(masks, st.sampled_from([(3, 3), (5, 5)]))
def test_mask_update_ends_full(mask, window):
    """A full mask stays full, and any mask with a valid pixel becomes full after enough layers."""
    for _ in range(8):
        mask = pconv_jax.propagate_mask(mask, window)
    assert np.all(mask == mask[0, 0, 0, 0])
    np.testing.assert_array_equal(pconv_jax.propagate_mask(mask, window), mask)


@PROPERTIES
@hypothesis.given(masks, st.integers(1, 3), st.sampled_from(["SAME", "VALID"]))
def test_propagate_mask_equals_the_operator(mask, stride, padding):
    """`propagate_mask` returns the mask of `partial_conv`."""
    kernel = np.ones((3, 3, 1, 1), np.float32)
    _, expected = pconv_jax.partial_conv(mask, mask, kernel, strides=stride, padding=padding)
    result = pconv_jax.propagate_mask(mask, (3, 3), strides=stride, padding=padding)
    np.testing.assert_array_equal(result, expected)


def test_mask_sums_of_a_constant_mask_are_not_folded_by_the_compiler():
    """The window sums stay in the program: folding them takes seconds for a 512x512 batch."""
    x, mask, kernel, bias = make(2)
    compiled = jax.jit(lambda x: pconv_jax.partial_conv(x, mask, kernel, bias)).lower(x).compile()
    assert "reduce-window" in compiled.as_text()


def test_all_valid_needs_no_window_sums():
    """With `mask=None` the mask sums are known when the function is traced."""
    x, _, kernel, bias = make(2)
    compiled = jax.jit(lambda x: pconv_jax.partial_conv(x, None, kernel, bias)).lower(x).compile()
    assert "reduce-window" not in compiled.as_text()


def test_mask_sums_cost_one_channel_per_group():
    """Mask sums and ratio add 0.3 % to a convolution's operations at 64 to 64 channels.

    A second group adds 8 operations per position. Sums over all 64 channels, one position or one window at a time,
    would make it 0.4 or 1.1 %.
    """
    x = jax.ShapeDtypeStruct((1, 64, 64, 64), jnp.float32)
    kernel = x.update(shape=(3, 3, 64, 64))

    def cost(*group_sizes):
        def partial(x, mask, kernel):
            return pconv_jax.partial_conv(x, mask, kernel, group_sizes=group_sizes)

        mask = x.update(shape=(1, 64, 64, len(group_sizes)))
        return jax.jit(partial).lower(x, mask, kernel).compile().cost_analysis()["flops"]

    floor = jax.jit(plain).lower(x, kernel).compile().cost_analysis()["flops"]
    assert floor <= cost(64) < 1.0035 * floor
    assert cost(61, 3) - cost(64) < 8 * 64 * 64


@pytest.fixture
def shapes_unchecked():
    """Lets wrong shapes through to the operator's own checks, as outside pytest."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.ones((2, 4), np.float32)}, r"x has shape \(2, 4\); needs \[N, \*S, C\]"),
        ({"x": np.ones((2, 7, 8, 4), np.int32)}, "x is int32; needs a floating dtype"),
        ({"mask": np.ones((2, 7, 9, 1), np.float32)}, r"mask has shape \(2, 7, 9, 1\); needs \(2, 7, 8, 'G'\)"),
        ({"mask": np.ones((2, 7, 8), np.float32)}, r"mask has shape \(2, 7, 8\)"),
        ({"mask": np.ones((2, 7, 8, 2), np.float32)}, "mask has 2 channels for 4 features; needs 1 or 4, or group_s"),
        ({"mask": np.full((2, 7, 8, 1), 0.5, np.float32)}, "mask holds 0.5; needs exactly 0"),
        ({"mask": np.full((2, 7, 8, 1), 255, np.uint8)}, "mask holds 255; needs exactly 0"),
        ({"group_sizes": (3, 1)}, r"group_sizes is \(3, 1\); needs 1 positive sizes"),
        ({"group_sizes": (5,)}, "that sum to 4 features"),
        ({"kernel": np.ones((3, 4, 6), np.float32)}, r"kernel has shape \(3, 4, 6\); needs 4 axes"),
        ({"kernel": np.ones((3, 3, 3, 6), np.float32)}, "kernel has 3 input channels; needs 4"),
        ({"feature_group_count": 3}, "feature_group_count is 3; needs a divisor of the 4 input and the 6 output"),
        ({"feature_group_count": 2}, "kernel has 4 input channels; needs 2"),
        ({"bias": np.ones(5, np.float32)}, r"bias has shape \(5,\); needs \(6,\)"),
        (
            {"group_sizes": (1.9, 2.1), "mask": np.ones((2, 7, 8, 2), np.float32)},
            r"group_sizes is \(1.9, 2.1\); needs 2",
        ),
        ({"group_sizes": 4}, "group_sizes is 4; needs 1 positive sizes"),
        ({"group_sizes": (4,), "mask": None}, r"group_sizes is \(4,\) without a mask"),
        ({"feature_group_count": 2.0}, r"feature_group_count is 2.0; needs a positive integer"),
        ({"kernel": np.ones((0, 3, 4, 6), np.float32)}, r"kernel has shape \(0, 3, 4, 6\); needs no axis of size 0"),
        ({"strides": 1.5}, r"strides is \(1.5, 1.5\); needs a positive integer"),
        ({"padding": 1}, 'padding is 1; needs "SAME", "VALID", or 2 pairs'),
        ({"padding": None}, 'padding is None; needs "SAME", "VALID", or 2 pairs'),
        ({"padding": ((1, 1.5), (0, 0))}, 'needs "SAME", "VALID", or 2 pairs'),
        ({"strides": (1, 2, 3)}, r"strides is \(1, 2, 3\); needs a positive integer, or one per spatial axis \(2\)"),
        ({"dilation": 0}, "dilation is 0; needs a positive integer"),
        ({"padding": "FULL"}, 'padding is "FULL"; needs "SAME", "VALID"'),
        ({"padding": ((1, 1),)}, "or 2 pairs"),
        ({"padding": "VALID", "dilation": 4}, "a window of extent 9 does not fit"),
    ],
)
def test_wrong_arguments_are_named(change, message, shapes_unchecked):
    """A ValueError names the argument, its value and what is needed."""
    names = ("x", "mask", "kernel", "bias")
    arguments = dict(zip(names, make(2), strict=True)) | change
    arrays = [arguments.pop(name) for name in names]
    with pytest.raises(ValueError, match=message):
        pconv_jax.partial_conv(*arrays, **arguments)


@pytest.mark.parametrize(
    ("mask", "window", "message"),
    [
        (np.ones((4, 4), np.float32), (3, 3), r"mask has shape \(4, 4\); needs \[N, \*S, G\]"),
        (np.ones((1, 4, 4, 1), np.float32), (3,), r"kernel_size is \(3,\); needs a positive integer"),
        (np.ones((1, 4, 4, 1), np.float32), (0, 3), r"kernel_size is \(0, 3\)"),
        (np.full((1, 4, 4, 1), 0.5, np.float32), (3, 3), "mask holds 0.5; needs exactly 0"),
    ],
)
def test_propagate_mask_names_wrong_arguments(mask, window, message, shapes_unchecked):
    with pytest.raises(ValueError, match=message):
        pconv_jax.propagate_mask(mask, window)


def test_lists_and_numpy_integers_are_taken(shapes_unchecked):
    """Nested lists as mask and bias and np.int64 as stride are accepted, as by NumPy."""
    x, mask, kernel, bias = make(2)
    expected = pconv_jax.partial_conv(x, mask, kernel, bias, strides=2)[0]
    result = pconv_jax.partial_conv(x, mask.tolist(), kernel, bias.tolist(), strides=np.int64(2))[0]
    np.testing.assert_array_equal(result, expected)
