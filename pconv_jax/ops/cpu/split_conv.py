"""Convolution whose gradients are convolutions of stride 1 and matrix products.

XLA on a CPU computes the gradients of a convolution, above all the kernel's, at a fraction of the rate of the
convolution itself. Here they are made of operations that reach that rate:

- The input's gradient: for stride s, `s * s` convolutions of the output's gradient, one for each residue of row and
  column modulo s, with the kernel positions that meet it. (XLA's own is as fast where s > 1.)
- The kernel's gradient: for each of s residues of the kernel's rows, one product of the input, its columns shifted by
  each kernel column, and of the output's gradient, its rows shifted by each kernel row. (XLA's own is as fast for
  small inputs.)
- At low resolution (the bottom of a U-Net): both as products with the patches under the windows.

Layout `[N, H, W, C]`. A backend is a `primitives.Primitives`: XLA's compute in any dtype, oneDNN's in float32 and
bfloat16 (`onednn.usable`).
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from pconv_jax.ops.cpu import primitives

_FEW_CHANNELS = 8  # Copies are slow for this many input channels or fewer.


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def conv(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "k l c o"],
    stride: int,
    padding: primitives.Pads,
    backend: primitives.Primitives,
) -> Float[Array, "n p q o"]:
    """Convolves as `lax.conv_general_dilated`, with other gradients, equal up to rounding.

    Not differentiable in forward mode (`jvp`).

    Args:
      x: features.
      kernel: the weights.
      stride: stride of both axes.
      padding: `((top, bottom), (left, right))`, each from 0 to the kernel size less one.
      backend: the convolution and product to compute with.

    Returns:
      The convolution in the dtype that `backend` returns.
    """
    return backend.conv(x, kernel, stride, padding)


def low_resolution(output_shape: tuple[int, int, int, int]) -> bool:
    """Returns whether the weights of a layer roughly outnumber its activations; the bound was measured.

    Args:
      output_shape: `(N, H, W, O)` of the layer's output.
    """
    n, h, w, channels = output_shape
    return n * h * w <= 2 * channels


def _forward(x, kernel, stride, padding, backend):
    return conv(x, kernel, stride, padding, backend), (x, kernel)


def _backward(stride, padding, backend, saved, dy):
    x, kernel = saved
    if not dy.size:
        return jnp.zeros_like(x), jnp.zeros_like(kernel)
    dy = dy.astype(x.dtype)
    gradients = _gradients_by_patches if low_resolution(dy.shape) else _gradients_by_shifts
    dx, dkernel = gradients(x, kernel, dy, stride, padding, backend)
    return dx.astype(x.dtype), dkernel.astype(kernel.dtype)


conv.defvjp(_forward, _backward)


def _gradients_by_shifts(x, kernel, dy, stride, padding, backend):
    dx = _input_gradient(dy, kernel, x.shape, stride, padding, backend)
    return dx, _kernel_gradient(x, dy, kernel.shape, stride, padding, backend)


def _gradients_by_patches(x, kernel, dy, stride, padding, backend):
    """Transposes the product `y = patches @ kernel`."""
    patches = _as_floats(_patches(_as_bits(x), kernel.shape[:2], stride, padding), x.dtype)
    dy, weights = dy.reshape(-1, dy.shape[-1]), kernel.reshape(-1, kernel.shape[-1])
    dkernel = backend.product(patches.reshape(len(dy), -1), dy, transpose_a=True)
    dpatches = backend.product(dy, weights, transpose_b=True).reshape(patches.shape)
    like_x = jax.ShapeDtypeStruct(x.shape, dpatches.dtype)
    (dx,) = jax.linear_transpose(lambda x: _patches(x, kernel.shape[:2], stride, padding), like_x)(dpatches)
    return dx, dkernel.reshape(kernel.shape)


def _patches(x, kernel_size, stride, padding):
    """Returns the values under each window, `[N, P, Q, k * l * C]`, in the order of a kernel's axes."""
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    rows, columns = (
        [slice(i, size - k + 1 + i, stride) for i in range(k)]
        for size, k in zip(x.shape[1:3], kernel_size, strict=True)
    )
    return jnp.concatenate([x[:, row, column] for row in rows for column in columns], axis=-1)


def _input_gradient(dy, kernel, shape, stride, padding, backend):
    """Computes `dx[s u + a] = sum_t dy[u + d - t] kernel[i + s t]` for each residue a of rows, columns alike.

    i is the first kernel position with `(a + low - i) % s = 0`, and `d = (a + low - i) / s`.
    """
    if backend == primitives.XLA and stride > 1:
        like_x = jax.ShapeDtypeStruct(shape, dy.dtype)
        return jax.linear_transpose(lambda x: backend.conv(x, kernel, stride, padding), like_x)(dy)[0]
    n, h, w, c = shape
    rows, columns = -(-h // stride), -(-w // stride)  # per residue; one too many where the size is odd
    kernel_bits = _as_bits(kernel)

    def residue(a, positions, low, kernel_size, outputs):
        first = (a + low) % stride
        count, d = len(range(first, kernel_size, stride)), (a + low - first) // stride
        return slice(first, None, stride), (count - 1 - d, positions - outputs + d), count

    def part(a, b):
        kernel_rows, row_pads, row_count = residue(a, rows, padding[0][0], kernel.shape[0], dy.shape[1])
        kernel_columns, column_pads, column_count = residue(b, columns, padding[1][0], kernel.shape[1], dy.shape[2])
        if not row_count * column_count:  # a kernel of 1 does not meet every position
            return jnp.zeros((n, rows, columns, c), dy.dtype)
        flipped = _as_floats(kernel_bits[kernel_rows, kernel_columns][::-1, ::-1], kernel.dtype)
        cropped, pads = _crop_negative(dy, (row_pads, column_pads))
        return backend.conv(cropped, flipped, 1, pads, swapped=True)

    parts = [jnp.stack([part(a, b) for b in range(stride)], axis=3) for a in range(stride)]
    return jnp.stack(parts, axis=2).reshape(n, rows * stride, columns * stride, c)[:, :h, :w]


def _crop_negative(x, padding):
    """Slices `x` where padding is negative, and returns it with the padding that is left, none below 0."""
    (top, bottom), (left, right) = padding
    rows, columns = (
        slice(max(-low, 0), size + min(high, 0)) for size, (low, high) in zip(x.shape[1:3], padding, strict=True)
    )
    return x[:, rows, columns], ((max(top, 0), max(bottom, 0)), (max(left, 0), max(right, 0)))


def _kernel_gradient(x, dy, shape, stride, padding, backend):
    """Computes the kernel's gradient by one product for each residue i of the kernel's rows.

    On one side stand the channels of `x` under all kernel columns, on the other those of `dy` for the kernel rows
    i + s t, both over as many rows as these kernel rows span.
    """
    if backend == primitives.XLA and _small(x.shape, dy.shape):
        like_kernel = jax.ShapeDtypeStruct(shape, dy.dtype)
        return jax.linear_transpose(lambda kernel: backend.conv(x, kernel, stride, padding), like_kernel)(dy)[0]
    (height, width, c, o), (n, p, q, _) = shape, dy.shape
    (top, _), (left, _) = padding
    bottom = (p - 1) * stride + height - top - x.shape[1]  # negative where no window meets the last row
    right = (q - 1) * stride + width - left - x.shape[2]
    pads = ((0, 0, 0), (top, bottom, 0), (left, right, 0), (0, 0, 0))
    padded = _as_floats(lax.pad(_as_bits(x), jnp.zeros((), _as_bits(x).dtype), pads), x.dtype)
    gradient = [None] * height
    for i in range(min(stride, height)):
        taps = range(i, height, stride)
        rows = p + len(taps) - 1
        inputs = _columns(padded[:, i : i + (rows - 1) * stride + 1], width, stride, backend)
        shifts = [((0, 0), (t, len(taps) - 1 - t), (0, 0), (0, 0)) for t in range(len(taps))]
        outputs = _as_floats(jnp.concatenate([jnp.pad(_as_bits(dy), shift) for shift in shifts], axis=-1), dy.dtype)
        products = backend.product(
            inputs.reshape(n * rows * q, width * c), outputs.reshape(n * rows * q, len(taps) * o), transpose_a=True
        ).reshape(width, c, len(taps), o)
        for t, tap in enumerate(taps):
            gradient[tap] = products[:, :, t]
    return jnp.stack(gradient)


def _small(input_shape, output_shape):
    """Returns whether XLA's own kernel gradient is as fast, as measured; never where outputs outnumber inputs."""
    _, h, w, c = input_shape
    _, p, q, _ = output_shape
    return p <= h and q <= w and (c <= _FEW_CHANNELS or p * q * c <= 2**16)


def _columns(x, width, stride, backend):
    """Maps `[N, H, W, C]` to `[N, P, Q, width * C]`: the values under a kernel of one row, without padding."""
    # Few channels (rare with XLA) are moved by a convolution, each of whose sums has one term.
    if x.shape[-1] <= _FEW_CHANNELS:
        size = width * x.shape[-1]
        selection = jnp.eye(size, dtype=x.dtype).reshape(1, width, x.shape[-1], size)
        return backend.conv(x, selection, stride, ((0, 0), (0, 0))).astype(x.dtype)
    bits = _as_bits(x)[:, ::stride]
    columns = [bits[:, :, j : x.shape[2] - width + 1 + j : stride] for j in range(width)]
    return _as_floats(jnp.concatenate(columns, axis=-1), x.dtype)


def _as_bits(x):
    """Returns bfloat16 as integers for copying: XLA on a CPU converts it to float32 and back even for a copy."""
    return lax.bitcast_convert_type(x, jnp.uint16) if x.dtype == jnp.bfloat16 else x


def _as_floats(x, dtype):
    return lax.bitcast_convert_type(x, dtype) if x.dtype == jnp.uint16 else x
