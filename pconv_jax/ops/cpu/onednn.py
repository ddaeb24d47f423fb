"""Convolution and matrix product by oneDNN, which XLA's wheels for CPUs contain but call only when told to.

XLA executes a custom call whose target begins with "__onednn$" by oneDNN itself: float32 at the rate of the best CPU
libraries, bfloat16 on the AVX-512 and AMX units that XLA's own code leaves idle. Sums are float32 either way. The
targets and their options (`OneDnnConvolutionConfig`, `OneDnnMatMulConfig` in xla/service/cpu/onednn_config.proto) are
XLA's own affair and may change with a release: `usable` asks for versions that were tried and computes a small case
first. Neither an option that XLA does not know nor an instruction that the processor lacks is an error that Python
sees: the process ends, or hangs. So both are ruled out before anything is computed.

A program with such a call cannot be serialised: XLA 0.10 takes it for another kind of custom call and reads what is
not there. JAX's persistent compilation cache serialises programs; where it is on, `usable` says no.
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

Pads = tuple[tuple[int, int], tuple[int, int]]

_TRIED = ("0.10.2",)  # versions of jaxlib
_BFLOAT16 = {"avx512_bf16", "amx_bf16"}  # any of these; oneDNN knows no other way

_NHWC = {"dims": 4, "data": {"batch_dim": 0, "feature_dim": 3, "spatial_dims": [1, 2]}}


def conv(
    x: Float[Array, "n h w a"], kernel: Float[Array, "k l b c"], stride: int, padding: Pads, *, swapped: bool = False
) -> Float[Array, "n p q o"]:
    """Cross-correlation of `x` with `kernel`, `[K, L, C, O]` or, if `swapped`, `[K, L, O, C]`.

    Both of float32 or both of bfloat16; the result is float32. Pads are not negative. Not differentiable by itself.
    """
    (n, h, w, _), (top, bottom), (left, right) = x.shape, *padding
    if min(top, bottom, left, right) < 0:
        raise ValueError(f"padding is {padding}; needs none below 0, with which oneDNN ends the process")
    rows = (h + top + bottom - kernel.shape[0]) // stride + 1
    columns = (w + left + right - kernel.shape[1]) // stride + 1
    inputs, outputs = (3, 2) if swapped else (2, 3)
    of_kernel = {"input_feature_dim": inputs, "output_feature_dim": outputs, "spatial_dims": [0, 1]}
    window = {
        "size": kernel.shape[:2],
        "pad_left": [top, left],
        "pad_right": [bottom, right],
        "strides": [stride, stride],
        "window_dilations": [1, 1],
    }
    layouts = {"input": _NHWC, "kernel": {"dims": 4, "filter": of_kernel}, "output": _NHWC}
    config = {"onednn_conv_config": {"dims": 4, **layouts, "window": window, "feature_groups": 1}}
    return _call("convolution", config, (n, rows, columns, kernel.shape[outputs]), x, kernel)


def product(
    a: Float[Array, "a b"], b: Float[Array, "c d"], *, transpose_a: bool = False, transpose_b: bool = False
) -> Float[Array, "m n"]:
    """`a @ b`, either of them transposed first. Both of float32 or both of bfloat16; the result is float32."""
    shape = a.shape[1 if transpose_a else 0], b.shape[0 if transpose_b else 1]
    config = {"onednn_matmul_config": {"transpose_a": transpose_a, "transpose_b": transpose_b}}
    return _call("matmul", config, shape, a, b)


def _call(target, config, shape, *operands):
    call = jax.ffi.ffi_call(
        f"__onednn${target}",
        jax.ShapeDtypeStruct(shape, jnp.float32),
        custom_call_api_version=2,  # the last one whose options are a string
        legacy_backend_config=json.dumps(config),
        vmap_method="sequential",
    )
    return call(*operands)


def usable(dtype: DTypeLike) -> bool:
    """Whether oneDNN computes in `dtype` here: on a CPU, with a wheel that contains it as this file expects.

    Not where JAX keeps compiled programs (`jax_compilation_cache_dir`): see above.
    """
    # JAX defines its options at run time, so type checkers do not know them.
    if jax.config.jax_enable_compilation_cache and jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        return False
    return jax.default_backend() == "cpu" and _right(jnp.dtype(dtype).name)


@functools.cache
def _right(dtype):
    """Whether a small case of each call comes out as XLA has it; small integers, so exactly."""
    if dtype not in ("float32", "bfloat16") or jaxlib.__version__ not in _TRIED:
        return False
    if dtype == "bfloat16" and not _BFLOAT16 & _instructions():
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

    with jax.ensure_compile_time_eval():  # also asked for while a program is traced
        arrays = [jnp.asarray(array, jnp.float32) for array in (x, kernel, a, b)]
        try:
            found = jax.device_get(jax.jit(by_onednn)(*(array.astype(dtype) for array in arrays)))
        except (RuntimeError, ValueError):  # JAX's and XLA's: no such target
            return False
        expected = jax.device_get(jax.jit(by_xla)(*arrays))
    return all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


def _instructions():
    """What the processor can do, by Linux' names; elsewhere nothing is known, and so nothing is said."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            found = re.search(r"^flags\s*:(.*)$", file.read(), re.MULTILINE)
    except OSError:
        return set()
    return set(found[1].split()) if found else set()
