"""Tests that the convolution with gradients of convolutions and products equals XLA's, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from pconv_jax.ops.cpu import onednn, primitives, split_conv

# (batch, height, width, channels, outputs), window, stride, ((top, bottom), (left, right))
CASES = {
    "3 x 3": ((2, 6, 5, 3, 4), (3, 3), 1, ((1, 1), (1, 1))),
    "7 x 7, stride 2": ((2, 16, 12, 3, 5), (7, 7), 2, ((3, 3), (3, 3))),
    "5 x 5, stride 2, odd": ((1, 9, 11, 10, 4), (5, 5), 2, ((2, 2), (2, 2))),
    "3 x 3, stride 2, smallest": ((1, 2, 2, 3, 4), (3, 3), 2, ((1, 1), (1, 1))),
    "one position": ((3, 1, 1, 2, 3), (3, 3), 2, ((1, 1), (1, 1))),
    "corners": ((2, 4, 5, 9, 4), (2, 2), 1, ((1, 1), (1, 1))),
    "1 x 1, stride 2": ((2, 5, 4, 9, 2), (1, 1), 2, ((0, 0), (0, 0))),
    "stride 3, rows that no window reaches": ((1, 9, 8, 9, 2), (3, 4), 3, ((0, 0), (1, 0))),
    "even kernel, stride 2": ((2, 3, 3, 3, 4), (2, 2), 2, ((1, 1), (1, 1))),
    "even kernel, stride 4": ((1, 3, 8, 9, 2), (6, 4), 4, ((3, 3), (2, 2))),
    "kernel 3, stride 3": ((1, 3, 3, 9, 2), (3, 3), 3, ((1, 1), (1, 1))),
    "more outputs than inputs": ((1, 4, 4, 2, 3), (3, 2), 1, ((2, 2), (1, 1))),
}


def without_negative_padding(x, kernel, stride, padding, *, swapped=False):
    """XLA's convolution as a backend that refuses negative padding, as oneDNN does."""
    assert min(pad for pads in padding for pad in pads) >= 0
    return primitives.xla_conv(x, kernel, stride, padding, swapped=swapped)


def gradients(convolve, x, kernel, dy):
    """Returns `(y, dx, dkernel)`."""
    y, transpose = jax.vjp(convolve, x, kernel)
    return y, *transpose(dy)


@pytest.mark.parametrize(("small", "few"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("case", CASES)
def test_it_equals_xla(case, small, few, monkeypatch):
    """Every way of computing each gradient equals XLA's for every shape.

    The last way also replaces XLA's own input gradient of strided convolutions.
    """
    (n, h, w, c, o), window, stride, pads = CASES[case]
    rng = np.random.default_rng(0)
    monkeypatch.setattr(split_conv, "low_resolution", lambda output_shape: few)
    monkeypatch.setattr(split_conv, "_small", lambda input_shape, output_shape: small)
    backend = primitives.XLA
    if not small:  # another backend, computed by XLA
        backend = primitives.Primitives(without_negative_padding, primitives.xla_product)

    def plain(x, kernel):
        return lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    with jax.enable_x64(True):
        x, kernel = jnp.asarray(rng.normal(size=(n, h, w, c))), jnp.asarray(rng.normal(size=(*window, c, o)))
        dy = jnp.asarray(rng.normal(size=jax.eval_shape(plain, x, kernel).shape))
        fast = jax.jit(lambda *a: gradients(lambda x, k: split_conv.conv(x, k, stride, pads, backend), *a))
        expected = gradients(plain, x, kernel, dy)
        for one, other in zip(fast(x, kernel, dy), expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-12 * np.abs(other).max())


def test_bfloat16_is_moved_not_converted():
    """bfloat16 arrays are gathered as integers: XLA on a CPU converts them to float32 even for a copy."""
    x, dy = jnp.zeros((1, 8, 8, 16), jnp.bfloat16), jnp.zeros((1, 8, 8, 4), jnp.bfloat16)
    gather = jax.make_jaxpr(lambda x: split_conv._columns(x, 3, 1, primitives.XLA))(x)
    assert [e.invars[0].aval.dtype for e in gather.eqns if e.primitive.name == "concatenate"] == [jnp.uint16]
    kernel = jnp.zeros((3, 3, 16, 4), jnp.bfloat16)
    pads = ((1, 1), (1, 1))
    patches = jax.make_jaxpr(lambda *a: split_conv._gradients_by_patches(*a, 1, pads, onednn.PRIMITIVES)[1])(
        x, kernel, dy
    )
    assert jnp.uint16 in [e.invars[0].aval.dtype for e in patches.eqns if e.primitive.name == "concatenate"]
