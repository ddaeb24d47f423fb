"""Convolution and matrix product by oneDNN, which XLA's wheels for CPUs contain but call only on request.

XLA executes a custom call whose target begins with "__onednn$" by oneDNN itself: float32 at the rate of the best CPU
libraries, bfloat16 on the AVX-512 and AMX units that XLA's own code leaves idle. Sums are float32 either way. The
targets and their options (`OneDnnConvolutionConfig`, `OneDnnMatMulConfig` in xla/service/cpu/onednn_config.proto) are
private to XLA and may change with a release, so `usable` accepts tested versions only and computes a small case first.
An option that XLA does not know, or an instruction that the processor lacks, ends or hangs the process without an error
in Python, so both are ruled out before anything is computed.

A program with such a call cannot be serialised: XLA 0.10 takes it for another kind of custom call and reads memory that
does not exist. JAX's persistent compilation cache serialises programs, so `usable` returns False where it is on.
"""

import functools
import json
import re

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pconv_jax.ops.cpu import primitives

_TESTED_JAXLIBS = ("0.10.2",)
_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}  # oneDNN computes in bfloat16 where the processor has one of these

_NHWC = {"dims": 4, "data": {"batch_dim": 0, "feature_dim": 3, "spatial_dims": [1, 2]}}


def conv(
    x: Float[Array, "n h w a"],
    kernel: Float[Array, "k l b c"],
    stride: int,
    padding: primitives.Pads,
    *,
    swapped: bool = False,
) -> Float[Array, "n p q o"]:
    """Cross-correlates `x` with `kernel`. Not differentiable by itself.

    Args:
      x: features, float32 or bfloat16.
      kernel: `[K, L, C, O]` or, if `swapped`, `[K, L, O, C]`, in the dtype of `x`.
      stride: stride of both axes.
      padding: `((top, bottom), (left, right))`, not negative.
      swapped: the kernel's last axis holds the input channels.

    Returns:
      float32.

    Raises:
      ValueError: padding is negative.
    """
    (n, h, w, _), (top, bottom), (left, right) = x.shape, *padding
    if min(top, bottom, left, right) < 0:
        raise ValueError(f"padding is {padding}; needs none below 0, with which oneDNN ends the process")
    rows = (h + top + bottom - kernel.shape[0]) // stride + 1
    columns = (w + left + right - kernel.shape[1]) // stride + 1
    inputs, outputs = (3, 2) if swapped else (2, 3)
    kernel_layout = {"input_feature_dim": inputs, "output_feature_dim": outputs, "spatial_dims": [0, 1]}
    window = {
        "size": kernel.shape[:2],
        "pad_left": [top, left],
        "pad_right": [bottom, right],
        "strides": [stride, stride],
        "window_dilations": [1, 1],
    }
    layouts = {"input": _NHWC, "kernel": {"dims": 4, "filter": kernel_layout}, "output": _NHWC}
    config = {"onednn_conv_config": {"dims": 4, **layouts, "window": window, "feature_groups": 1}}
    return _call("convolution", config, (n, rows, columns, kernel.shape[outputs]), x, kernel)


def product(
    a: Float[Array, "a b"], b: Float[Array, "c d"], *, transpose_a: bool = False, transpose_b: bool = False
) -> Float[Array, "m n"]:
    """Computes `a @ b`.

    Args:
      a: the left matrix, float32 or bfloat16.
      b: the right matrix, in the dtype of `a`.
      transpose_a: multiply by the transpose of `a`.
      transpose_b: multiply by the transpose of `b`.

    Returns:
      float32.
    """
    shape = a.shape[1 if transpose_a else 0], b.shape[0 if transpose_b else 1]
    config = {"onednn_matmul_config": {"transpose_a": transpose_a, "transpose_b": transpose_b}}
    return _call("matmul", config, shape, a, b)


PRIMITIVES = primitives.Primitives(conv, product)


def usable(dtype: DTypeLike) -> bool:
    """Returns whether oneDNN computes correctly in `dtype` in this process.

    True on a CPU with a tested version of jaxlib, unless JAX's persistent compilation cache is on
    (`jax_compilation_cache_dir`), which cannot store programs with oneDNN's calls.
    """
    # JAX defines its options at run time, so type checkers do not know them.
    if jax.config.jax_enable_compilation_cache and jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        return False
    return jax.default_backend() == "cpu" and _agrees_with_xla(jnp.dtype(dtype).name)


def _call(target, config, shape, *operands):
    if 0 in shape or any(operand.size == 0 for operand in operands):  # oneDNN refuses empty arrays
        return jnp.zeros(shape, jnp.float32)
    call = jax.ffi.ffi_call(
        f"__onednn${target}",
        jax.ShapeDtypeStruct(shape, jnp.float32),
        custom_call_api_version=2,  # the last version whose options are a string
        legacy_backend_config=json.dumps(config),
        vmap_method="sequential",
    )
    return call(*operands)


@functools.cache
def _agrees_with_xla(dtype):
    """Returns whether a small case of each call equals XLA's result exactly; its values are small integers."""
    if dtype not in ("float32", "bfloat16") or jaxlib.__version__ not in _TESTED_JAXLIBS:
        return False
    if dtype == "bfloat16" and not _BFLOAT16_FLAGS & _cpu_flags():
        return False
    x = np.arange(2 * 5 * 6 * 3).reshape(2, 5, 6, 3) % 7 - 3
    kernel = np.arange(3 * 2 * 3 * 4).reshape(3, 2, 3, 4) % 5 - 2
    a, b = x.reshape(-1, 3)[:4], kernel.reshape(-1, 4)[:3]
    pads = ((1, 2), (0, 1))

    def by_onednn(x, kernel, a, b):
        return (
            conv(x, kernel, 2, pads),
            conv(x, kernel.swapaxes(2, 3), 2, pads, swapped=True),
            product(a, b),
            product(a.T, b.T, transpose_a=True, transpose_b=True),
        )

    def by_xla(x, kernel, a, b):
        y = lax.conv_general_dilated(x, kernel, (2, 2), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return y, y, a @ b, a @ b

    with jax.ensure_compile_time_eval():  # may be called while a program is traced
        arrays = [jnp.asarray(array, jnp.float32) for array in (x, kernel, a, b)]
        try:
            results = jax.device_get(jax.jit(by_onednn)(*(array.astype(dtype) for array in arrays)))
        except (RuntimeError, ValueError):  # raised by JAX and XLA where the target does not exist
            return False
        expected = jax.device_get(jax.jit(by_xla)(*arrays))
    return all(np.array_equal(one, other) for one, other in zip(results, expected, strict=True))


def _cpu_flags():
    """Returns the CPU feature flags from /proc/cpuinfo, or the empty set where that file does not exist."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            match = re.search(r"^flags\s*:(.*)$", file.read(), re.MULTILINE)
    except OSError:
        return set()
    return set(match[1].split()) if match else set()
