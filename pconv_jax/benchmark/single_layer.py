"""Single layers of the U-Net as tasks for a worker: the functions that the network calls, each compiled by itself."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from pconv_jax.benchmark import operations
from pconv_jax.ops import decoder, partial_conv, windows
from pconv_jax.ops.cpu import dispatch


def call(config, batch: dict[str, np.ndarray], name: str, part: str) -> Callable:
    """Prepares one part of a layer on random features.

    Args:
      config: experiment config.
      batch: its `mask` uint8 `[B, H, W, 1]` is propagated to the layer.
      name: name of the layer, e.g. "enc1".
      part: one of `op.PARTS`.

    Returns:
      A function without arguments that computes the part once.
    """
    layer = next(layer for layer in operations.layers(config.model, config.data.size) if layer.name == name)
    impl, count = config.model.conv_impl, len(batch["mask"])
    rng, masks = np.random.default_rng(0), _masks(config, batch)

    def random(size, channels):
        return jnp.asarray(rng.standard_normal((count, size, size, channels), np.float32), config.model.dtype)

    shape = (layer.kernel_size, layer.kernel_size, layer.low + layer.skip, layer.outputs)
    kernel = jnp.asarray(0.1 * rng.standard_normal(shape, np.float32), config.model.dtype)
    if layer.skip:
        inputs = random(layer.size // 2, layer.low), random(layer.size, layer.skip)
        input_masks = masks[layer.size // 2], masks[layer.size]
    else:
        inputs, input_masks = random(layer.size * 2, layer.low), masks[layer.size * 2]

    def apply(inputs, input_masks, kernel):
        if layer.skip:
            (low, skip), (low_mask, skip_mask) = inputs, input_masks
            return dispatch.decoder_conv(low, low_mask, skip, skip_mask, kernel, None, impl)[0]
        return dispatch.conv(inputs, input_masks, kernel, None, layer.stride, impl)[0]

    def input_gradient(inputs, input_masks, kernel, dy):
        return jax.vjp(lambda inputs: apply(inputs, input_masks, kernel), inputs)[1](dy)

    def kernel_gradient(inputs, input_masks, kernel, dy):
        return jax.vjp(lambda kernel: apply(inputs, input_masks, kernel), kernel)[1](dy)

    dy = random(layer.size, layer.outputs)
    functions = {
        "forward": (apply, (inputs, input_masks, kernel)),
        "input gradient": (input_gradient, (inputs, input_masks, kernel, dy)),
        "kernel gradient": (kernel_gradient, (inputs, input_masks, kernel, dy)),
        "mask": (functools.partial(_mask_sum, layer), (input_masks,)),
    }
    function, arguments = functions[part]
    compiled = jax.jit(function)
    return lambda: jax.block_until_ready(compiled(*arguments))


def all_masks(config, batch: dict[str, np.ndarray]) -> Callable:
    """Prepares the mask sums of all layers as one compiled function.

    Args:
      config: experiment config.
      batch: its `mask` uint8 `[B, H, W, 1]` is propagated to the layers.

    Returns:
      A function without arguments that computes the mask sums once.
    """
    layers, masks = operations.layers(config.model, config.data.size), _masks(config, batch)

    @jax.jit
    def compiled(masks):
        return [
            _mask_sum(layer, (masks[layer.size // 2], masks[layer.size]) if layer.skip else masks[2 * layer.size])
            for layer in layers
        ]

    return lambda: jax.block_until_ready(compiled(masks))


def _masks(config, batch):
    """Returns the encoder's masks by their size in pixels, from the image's down to the bottleneck's."""
    mask = jnp.asarray(batch["mask"], jnp.float32)
    masks = {config.data.size: mask}
    for layer in operations.layers(config.model, config.data.size)[: config.model.depth]:
        mask = partial_conv.propagate_mask(mask, _kernel_size(layer), strides=2, padding=_padding(layer))
        masks[layer.size] = mask
    return masks


def _mask_sum(layer, input_masks):
    if layer.skip:
        mask, group_sizes = decoder.up_concat(*input_masks), (layer.low, layer.skip)
    else:
        mask, group_sizes = input_masks, (layer.low,)
    return partial_conv.mask_sum(mask, _kernel_size(layer), (layer.stride, layer.stride), _padding(layer), group_sizes)


def _kernel_size(layer):
    return layer.kernel_size, layer.kernel_size


def _padding(layer):
    return windows.half_padding(_kernel_size(layer))
