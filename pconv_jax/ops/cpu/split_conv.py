"""Convolution whose gradients are convolutions at stride 1 and matrix products, by XLA or by oneDNN.

XLA on a CPU computes the gradients of a convolution, above all the kernel's, at a fraction of the rate of the
convolution itself. Here they are made of operations that reach it:

- The input's gradient: for stride s, `s * s` convolutions of the output's gradient, one for each residue of rows and
  columns, with the taps of the kernel that meet it. (XLA's own is as fast where s > 1.)
- The kernel's gradient: for each of s residues of rows, one product of the input, its columns shifted by each tap,
  and of the output's gradient, its rows shifted by each tap. (XLA's own is as fast for small inputs.)
- With few positions (the bottom of a U-Net): both as products with the patches that a window sees.

Layout `[N, H, W, C]`. "xla" computes in any type, "onednn" in float32 and bfloat16 (`onednn.usable`).
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from pconv_jax.ops.cpu import onednn

_FEW_CHANNELS = 8  # of the input; copies by runs of so few are slow


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def conv(
    x: Float[Array, "n h w c"], kernel: Float[Array, "k l c o"], stride: int, padding: onednn.Pads, library: str
) -> Float[Array, "n p q o"]:
    """`lax.conv_general_dilated` with other gradients, equal but for rounding. Not differentiable forward (`jvp`).

    Args:
      padding: `((top, bottom), (left, right))`, none of them larger than the window less one, nor negative.
      library: "xla" or "onednn", which returns float32 whatever the arguments are.
    """
    return _conv(library)(x, kernel, stride, padding)


def _forward(x, kernel, stride, padding, library):
    return conv(x, kernel, stride, padding, library), (x, kernel)


def _backward(stride, padding, library, saved, dy):
    x, kernel = saved
    dy = dy.astype(x.dtype)
    gradients = _gradients_by_patches if few_positions(dy.shape) else _gradients_by_shifts
    dx, dkernel = gradients(x, kernel, dy, stride, padding, library)
    return dx.astype(x.dtype), dkernel.astype(kernel.dtype)


conv.defvjp(_forward, _backward)


def few_positions(outputs: tuple[int, int, int, int]) -> bool:
    """Whether the weights of a layer outnumber its activations, roughly: where the bound lies was measured."""
    n, h, w, channels = outputs
    return n * h * w <= 2 * channels


def _gradients_by_shifts(x, kernel, dy, stride, padding, library):
    dx = _input_gradient(dy, kernel, x.shape, stride, padding, library)
    return dx, _kernel_gradient(x, dy, kernel.shape, stride, padding, library)


def _gradients_by_patches(x, kernel, dy, stride, padding, library):
    """The products are `y = patches . kernel` transposed."""
    patches = _as_floats(_patches(_as_bits(x), kernel.shape[:2], stride, padding), x.dtype)
    dy, of_kernel = dy.reshape(-1, dy.shape[-1]), kernel.reshape(-1, kernel.shape[-1])
    dkernel = _product(library)(patches.reshape(len(dy), -1), dy, transpose_a=True)
    dpatches = _product(library)(dy, of_kernel, transpose_b=True).reshape(patches.shape)
    like_x = jax.ShapeDtypeStruct(x.shape, dpatches.dtype)
    (dx,) = jax.linear_transpose(lambda x: _patches(x, kernel.shape[:2], stride, padding), like_x)(dpatches)
    return dx, dkernel.reshape(kernel.shape)


def _patches(x, window, stride, padding):
    """What each window sees, `[N, P, Q, k * l * C]`, in the order of a kernel's axes."""
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    rows, columns = (
        [slice(i, size - k + 1 + i, stride) for i in range(k)] for size, k in zip(x.shape[1:3], window, strict=True)
    )
    return jnp.concatenate([x[:, row, column] for row in rows for column in columns], axis=-1)


def _input_gradient(dy, kernel, shape, stride, padding, library):
    """By residues (a, b) of rows and columns: `dx[s u + a] = sum_t dy[u + d - t] kernel[i + s t]`, where i is
    the first tap with `(a + low - i) % s = 0` and `d = (a + low - i) / s`. Columns alike."""
    if library == "xla" and stride > 1:
        like_x = jax.ShapeDtypeStruct(shape, dy.dtype)
        return jax.linear_transpose(lambda x: xla_conv(x, kernel, stride, padding), like_x)(dy)[0]
    n, h, w, c = shape
    rows, columns = -(-h // stride), -(-w // stride)  # of each residue; one too many where the size is odd
    kernel_bits = _as_bits(kernel)

    def residue(a, positions, low, taps, outputs):
        first = (a + low) % stride
        count, d = len(range(first, taps, stride)), (a + low - first) // stride
        return slice(first, None, stride), (count - 1 - d, positions - outputs + d), count

    def part(a, b):
        of_rows, pad_rows, count_rows = residue(a, rows, padding[0][0], kernel.shape[0], dy.shape[1])
        of_columns, pad_columns, count_columns = residue(b, columns, padding[1][0], kernel.shape[1], dy.shape[2])
        if not count_rows * count_columns:  # a window of 1 does not meet every position
            return jnp.zeros((n, rows, columns, c), dy.dtype)
        flipped = _as_floats(kernel_bits[of_rows, of_columns][::-1, ::-1], kernel.dtype)
        return _conv(library)(dy, flipped, 1, (pad_rows, pad_columns), swapped=True)

    parts = [jnp.stack([part(a, b) for b in range(stride)], axis=3) for a in range(stride)]
    return jnp.stack(parts, axis=2).reshape(n, rows * stride, columns * stride, c)[:, :h, :w]


def _kernel_gradient(x, dy, shape, stride, padding, library):
    """For each residue i of the kernel's rows: all columns of taps beside the channels of `x`, the taps i + s t beside
    those of `dy`, and as many rows of both as these taps reach."""
    if library == "xla" and _small(x.shape, dy.shape):
        like_kernel = jax.ShapeDtypeStruct(shape, dy.dtype)
        return jax.linear_transpose(lambda kernel: xla_conv(x, kernel, stride, padding), like_kernel)(dy)[0]
    (height, width, c, o), (n, p, q, _) = shape, dy.shape
    (top, _), (left, _) = padding
    bottom = (p - 1) * stride + height - top - x.shape[1]  # negative where no window reaches the last row
    right = (q - 1) * stride + width - left - x.shape[2]
    pads = ((0, 0, 0), (top, bottom, 0), (left, right, 0), (0, 0, 0))
    padded = _as_floats(lax.pad(_as_bits(x), jnp.zeros((), _as_bits(x).dtype), pads), x.dtype)
    gradient = [None] * height
    for i in range(min(stride, height)):
        taps = range(i, height, stride)
        rows = p + len(taps) - 1
        inputs = _columns(padded[:, i : i + (rows - 1) * stride + 1], width, stride, library)
        shifts = [((0, 0), (t, len(taps) - 1 - t), (0, 0), (0, 0)) for t in range(len(taps))]
        outputs = _as_floats(jnp.concatenate([jnp.pad(_as_bits(dy), shift) for shift in shifts], axis=-1), dy.dtype)
        found = _product(library)(
            inputs.reshape(n * rows * q, width * c), outputs.reshape(n * rows * q, len(taps) * o), transpose_a=True
        ).reshape(width, c, len(taps), o)
        for t, tap in enumerate(taps):
            gradient[tap] = found[:, :, t]
    return jnp.stack(gradient)


def _small(inputs, outputs):
    """Where XLA's own kernel gradient takes no longer, as measured. Never where outputs outnumber inputs."""
    _, h, w, c = inputs
    _, p, q, _ = outputs
    return p <= h and q <= w and (c <= _FEW_CHANNELS or p * q * c <= 2**16)


def _columns(x, width, stride, library):
    """`[N, H, W, C] -> [N, P, Q, width * C]`: what a window of one row sees, without padding."""
    # Few channels (with XLA rarely): moved by a convolution, each sum of which is one value.
    if x.shape[-1] <= _FEW_CHANNELS:
        size = width * x.shape[-1]
        one_each = jnp.eye(size, dtype=x.dtype).reshape(1, width, x.shape[-1], size)
        return _conv(library)(x, one_each, stride, ((0, 0), (0, 0))).astype(x.dtype)
    bits = _as_bits(x)[:, ::stride]
    columns = [bits[:, :, j : x.shape[2] - width + 1 + j : stride] for j in range(width)]
    return _as_floats(jnp.concatenate(columns, axis=-1), x.dtype)


def _as_bits(x):
    """bfloat16 as integers, to be moved: XLA on a CPU converts it to float32 and back even for a copy."""
    return lax.bitcast_convert_type(x, jnp.uint16) if x.dtype == jnp.bfloat16 else x


def _as_floats(x, dtype):
    return lax.bitcast_convert_type(x, dtype) if x.dtype == jnp.uint16 else x


def _conv(library):
    return {"xla": xla_conv, "onednn": onednn.conv}[library]


def _product(library):
    return {"xla": _xla_product, "onednn": onednn.product}[library]


def xla_conv(x, kernel, stride, padding, *, swapped=False):
    """`lax.conv_general_dilated` with the arguments of `onednn.conv`."""
    layouts = ("NHWC", "HWOI" if swapped else "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=layouts)


def _xla_product(a, b, *, transpose_a=False, transpose_b=False):
    return lax.dot_general(a, b, (((0,) if transpose_a else (1,), (1,) if transpose_b else (0,)), ((), ())))
